#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A page that is freed under a key and allocated under it again is not flushed: counted.
# What a CPU keeps for that is bounded, goes with the key, and is nobody else's.
. "$(dirname "$0")/mm.sh"
need build/tools/insns.so
qemu_args=(-plugin "$TOP/build/tools/insns.so,out=$T/counts")
mm_guest kept --smp 1 -- mm_kept

grep '^flushes ' "$T/said" >"$T/wanted-flushes"
is 'all is counted' "$(wc -l <"$T/counts")" "$(wc -l <"$T/wanted-flushes")"
while read -r _ _ flushes _ <&3 && read -r _ wanted what <&4; do
	is "flushes: $what" "$flushes" "$wanted"
done 3<"$T/counts" 4<"$T/wanted-flushes"
done_testing
