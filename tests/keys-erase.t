#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Erasing a key takes far less than overwriting its memory, and grows far less with
# it: not with the bytes, but with the page table entries.  By counts of instructions,
# not by time; each of them counts as much for the one as for the other, though those
# that overwrite wait for memory.
. "$(dirname "$0")/lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/erasecost

# icount: a nanosecond of the guest's time is an instruction
"$TOP/vm/boot" --kernel "$kernel" --cache report --smp 1 --memory "$(ram 1024)M" --exec '
	# Huge pages while there are some; what was erased is to be free again
	for pages in huge huge huge huge small small; do for mib in 32 128; do
		erasecost $pages $mib
		until [ "$(cat /sys/kernel/mm/mktme/keyids_in_use)" = 0 ]; do sleep 0.1; done
	done; done' \
	-- -icount shift=0,sleep=off >"$T/o" 2>"$T/e" || diag <"$T/e"
diag <"$T/o"
# The least of each: now and then an interrupt's work is counted, too
of() { awk -v p="$1" -v m="$2" -v f="$3" '$1 == p && $2 == m { print $f }' "$T/o" | sort -n | head -1; }

# less WHAT A TIMES B: A, so many times, is still less than B
less() {
	if [ "${2:-0}" -gt 0 ] && [ $(($2 * $3)) -lt "$4" ]; then pass "$1: $2 of $4"; else fail "$1: $2 of $4"; fi
}
for pages in small huge; do
	e=$(of $pages 128 3) o=$(of $pages 128 4)
	de=$((e - $(of $pages 32 3))) do=$((o - $(of $pages 32 4)))
	case $pages in small) times=2 ;; *) times=10 ;; esac
	less "128 MiB in $pages pages" "$e" $times "$o"
	less "and 96 MiB more of it" "$de" $times "$do"
done
done_testing
