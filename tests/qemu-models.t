#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# CPU models do not matter to memory encryption: the kernel finds and uses it on an Intel
# server model, and on `max', which has SVM, so that KVM runs guests on it as well.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/kvmrun

on() { # MODEL COMMAND: in a guest with that CPU; its output is in $T/out
	local status=0
	"$TOP/vm/boot" --cache strict --exec "$2" -- -cpu "$1,phys-bits=46" >"$T/out" 2>"$T/err" || status=$?
	is "$1: exit status" "$status" 0
	[ $status = 0 ] || diag <"$T/err"
}

use='grep -m2 -E "vendor_id|model name" /proc/cpuinfo; cat /sys/kernel/mm/mktme/keyids_total;
	k=$(keyctl add mktme k "type=cpu algorithm=aes-xts-256" @u) && /tests/selftests/encrypt_mprotect | tail -n 1'
on SapphireRapids "$use"
like "SapphireRapids: Intel" "$(cat "$T/out")" "vendor_id.*GenuineIntel"
like "SapphireRapids: the model" "$(cat "$T/out")" "model name.*SapphireRapids"
like "SapphireRapids: the selftest" "$(cat "$T/out")" "Totals: pass:[1-9][0-9]* fail:0"
on max "$use; grep -c -w svm /proc/cpuinfo; /tests/kvmrun"
like "max: the selftest" "$(cat "$T/out")" "Totals: pass:[1-9][0-9]* fail:0"
like "max: a guest of KVM beside it" "$(cat "$T/out")" "^kvmrun: 100"
done_testing
