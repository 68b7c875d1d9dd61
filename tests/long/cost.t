#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the series costs those who don't use it, counted in instructions against the
# stock kernel: on a machine without MKTME within 0.1 %, on one with it within 1 %.
# And how often the lines of a page under a key are flushed: once into it, once out, and
# not at all where it returns to its key.
# Not part of "make test": "make cost-check" builds what it needs, and runs it.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
need build/linux/out/vmlinux build/linux/out-stock/vmlinux build/qemu/out/qemu-system-x86_64 \
	build/guest/tests/cost build/tools/insns.so

names=('fault of 128 pages' 'mprotect of 128 pages' 'munmap of 128 pages' 'mmap' 'munmap'
	'fork of 512 pages, exit, wait' 'copy on write of 128 pages' 'vfork, exec, exit, wait'
	'fault of a huge page' 'free of a huge page')

# count NAME COMMAND OPTIONS...: into $T/NAME, for each of names[]: instructions, the lower
# quartile and the median of all repeats (interrupts come now and then, and now and then
# less is to be done), these with what REP repeats, and flushes, least and most
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
		insns[n, ++times[n]] = $1
		all[n, times[n]] = $1 + $2
		if (times[n] == 1 || $3 < least[n]) least[n] = $3
		if (times[n] == 1 || $3 > most[n]) most[n] = $3
	} END {
		for (n in times)
			print insns[n, int((times[n] + 3) / 4)] "\t" insns[n, int((times[n] + 1) / 2)] \
				"\t" all[n, int((times[n] + 3) / 4)] "\t" least[n] "\t" most[n] "\t" n
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
figure() { awk -F '\t' -v n="$2" -v c="$3" '$6 == n { print $c }' "$T/$1"; }

table() { # WHAT COLUMN
	local n k s v
	echo "# | $1 | stock | without MKTME | with it | under a key |"
	echo '# |---|---|---|---|---|'
	for n in "${names[@]}"; do
		s=$(figure stock "$n" "$2")
		printf '# | %s | %d |' "$n" "$s"
		for k in without with encrypted; do
			v=$(figure $k "$n" "$2")
			printf ' %d (%+.2f %%) |' "$v" "$(awk "BEGIN { print ($v - $s) * 100 / $s }")"
		done
		echo
	done
}
table 'instructions, without what REP repeats' 1
table 'the same, median' 2
table 'with what REP repeats' 3

for k in 'without 0.001' 'with 0.01'; do
	read -r name limit <<<"$k"
	for n in "${names[@]}"; do
		s=$(figure stock "$n" 1) v=$(figure "$name" "$n" 1)
		ok "$name MKTME: $n: within $limit" awk "BEGIN { exit !($v <= $s * (1 + $limit)) }"
	done
done

# 64 lines a page.  Those that return to their key are not flushed: see mm-kept.t.
flushes() { echo "$(figure encrypted "$1" 4) to $(figure encrypted "$1" 5)"; }
is 'flushes of 128 pages that come under a key, or return to it' "$(flushes "${names[0]}")" '0 to 8192'
is 'flushes of 128 pages that are kept for it' "$(flushes "${names[2]}")" '0 to 0'
is 'flushes of a huge page that comes under a key' "$(flushes "${names[8]}")" '32768 to 32768'
is 'flushes of a huge page that is freed' "$(flushes "${names[9]}")" '32768 to 32768'
is 'flushes without a key, at most' "$(cut -f 5 "$T/with" | sort -u)" 0
done_testing
