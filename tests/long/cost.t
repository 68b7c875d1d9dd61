#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the series costs those who don't use it, counted in instructions against the
# stock kernel: on a machine without MKTME within 0.1 %, on one with it within 1 %.
# And how often the lines of a page under a key are flushed: once into it, once out.
# Not part of "make test": "make cost-check" builds what it needs, and runs it.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
need build/linux/out/vmlinux build/linux/out-stock/vmlinux build/qemu/out/qemu-system-x86_64 \
	build/guest/tests/cost

ok "the plugin builds" sh -c 'gcc -shared -fPIC -O2 -Wall -o "$0/insns.so" "$1/tests/long/insns.c" \
	-I"$1/build/qemu/src/include/qemu" $(pkg-config --cflags glib-2.0)' "$T" "$TOP"

names=([0]='fault of 512 pages' [1]='mprotect of 512 pages' [2]='munmap of 512 pages'
	[3]='mmap' [4]='munmap' [5]='fork, exit, wait' [6]='copy on write of 512 pages'
	[7]='vfork, exec, exit, wait' [8]='fault of a huge page' [9]='free of a huge page')

# count NAME COMMAND OPTIONS...: into $T/NAME, a line for each of names[]
count() {
	local name=$1 command=$2 status=0
	shift 2
	"$TOP/vm/boot" --smp 1 --append 'norandmaps' "$@" --exec "$command" -- \
		-plugin "$T/insns.so,out=$T/$name" -icount shift=1,sleep=off -seed 1 \
		-rtc base=2020-01-01,clock=vm >"$T/out" 2>&1 || status=$?
	is "$name: counted" "$status $(wc -l <"$T/$name")" '0 10'
	[ $status = 0 ] || diag <"$T/out"
}
count stock cost --no-mktme --kernel "$TOP/build/linux/out-stock/vmlinux"
count without cost --no-mktme
count with cost
count encrypted 'cost $(keyctl add mktme k "type=cpu algorithm=aes-xts-128" @u)'

# column NAME NUMBER COLUMN
column() { awk -v n="$2" -v c="$3" '$1 == n { print $c }' "$T/$1"; }

printf '# %-25s %10s %18s %18s %18s\n' instructions stock 'without MKTME' 'with it' 'under a key'
for n in "${!names[@]}"; do
	s=$(column stock "$n" 3)
	printf '# %-25s %10d' "${names[n]}" "$s"
	for k in without with encrypted; do
		v=$(column $k "$n" 3)
		printf ' %10d %+6.2f%%' "$v" "$(awk "BEGIN { print ($v - $s) * 100 / $s }")"
	done
	echo
done

for k in 'without 0.001' 'with 0.01'; do
	read -r name limit <<<"$k"
	for n in "${!names[@]}"; do
		s=$(column stock "$n" 3) v=$(column "$name" "$n" 3)
		ok "$name MKTME: ${names[n]}" awk "BEGIN { exit !($v <= $s * (1 + $limit)) }"
	done
done

# 64 lines a page
is 'flushes of a page that comes under a key' $(($(column encrypted 0 4) / 512)) 64
is 'flushes of a page that is freed' $(($(column encrypted 2 4) / 512)) 64
is 'flushes without a key' "$(for n in "${!names[@]}"; do column with "$n" 4; done | sort -u)" 0
done_testing
