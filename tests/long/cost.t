#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the series costs those who don't use it, counted in instructions against the
# stock kernel: on a machine without MKTME within 0.1 %, on one with it within 1 %.
# And how often the lines of a page under a key are flushed: once into it, once out.
# Not part of "make test": "make cost-check" builds what it needs, and runs it.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
need build/linux/out/vmlinux build/linux/out-stock/vmlinux build/qemu/out/qemu-system-x86_64 \
	build/guest/tests/cost build/tools/insns.so

names=('fault of 128 pages' 'mprotect of 128 pages' 'munmap of 128 pages' 'mmap' 'munmap'
	'fork of 512 pages, exit, wait' 'copy on write of 128 pages' 'vfork, exec, exit, wait'
	'fault of a huge page' 'free of a huge page')

# count NAME COMMAND OPTIONS...: into $T/NAME, for each of names[] instructions, these and
# what they repeat, and flushes: the least of all repeats, as an interrupt now and then is
# nothing of theirs
count() {
	local name=$1 command=$2 status=0
	shift 2
	"$TOP/vm/boot" --smp 1 --append 'norandmaps' "$@" --exec "$command" -- \
		-plugin "$TOP/build/tools/insns.so,out=$T/counts" -icount shift=1,sleep=off \
		-seed 1 -rtc base=2020-01-01,clock=vm >"$T/labels" 2>"$T/err" || status=$?
	paste -d ' ' "$T/counts" "$T/labels" | sort -n | awk '{
		n = $6
		for (i = 7; i <= NF; i++)
			n = n " " $i
		if (!(n in seen))
			print $1 "\t" $1 + $2 "\t" $3 "\t" n
		seen[n] = 1
	}' >"$T/$name"
	is "$name: counted" "$status $(wc -l <"$T/labels") $(wc -l <"$T/counts") $(wc -l <"$T/$name")" '0 1010 1010 10'
	diag <"$T/err" >&2
}
count stock cost --no-mktme --kernel "$TOP/build/linux/out-stock/vmlinux"
count without cost --no-mktme
count with cost
# shellcheck disable=SC2016  # in the guest
count encrypted 'cost $(keyctl add mktme k "type=cpu algorithm=aes-xts-128" @u)'

# figure NAME WHAT COLUMN
figure() { awk -F '\t' -v n="$2" -v c="$3" '$4 == n { print $c }' "$T/$1"; }

# Page clearing and copying are REP: with them, and without
for c in 2 1; do
	[ $c = 2 ] && what='instructions' || what='the same, without what REP repeats'
	echo "# | $what | stock | without MKTME | with it | under a key |"
	echo '# |---|---|---|---|---|'
	for n in "${names[@]}"; do
		s=$(figure stock "$n" $c)
		printf '# | %s | %d |' "$n" "$s"
		for k in without with encrypted; do
			v=$(figure $k "$n" $c)
			printf ' %d (%+.2f %%) |' "$v" "$(awk "BEGIN { print ($v - $s) * 100 / $s }")"
		done
		echo
	done
done

for k in 'without 0.001' 'with 0.01'; do
	read -r name limit <<<"$k"
	for n in "${names[@]}"; do
		s=$(figure stock "$n" 2) v=$(figure "$name" "$n" 2)
		ok "$name MKTME: $n: within $limit" awk "BEGIN { exit !($v <= $s * (1 + $limit)) }"
	done
done

# 64 lines a page
is 'flushes of a page that comes under a key' $(($(figure encrypted "${names[0]}" 3) / 128)) 64
is 'flushes of a page that is freed' $(($(figure encrypted "${names[2]}" 3) / 128)) 64
is 'flushes without a key' "$(cut -f 3 "$T/with" | sort -u)" 0
done_testing
