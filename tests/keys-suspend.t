#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Suspend to RAM powers the keys down: it is refused while there are any, with a
# message, and goes on where there are none.  Suspend to idle does not, and is not.
. "$(dirname "$0")/lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/usekey

# pm_test: all but the last step, then back after 5 seconds
guest --kernel "$kernel" --cache strict -- '
power=/sys/power
add() { keyctl add mktme $1 "type=cpu algorithm=aes-xts-128" @u; }
sleeps() { (echo $1 >$power/state) 2>&1 | sed "s/.*: //"; echo "$1 is over, CPUs $(cat /sys/devices/system/cpu/online)"; }
grep -o deep $power/mem_sleep
k=$(add k)
usekey $k "echo core >$power/pm_test; (echo mem >$power/state) 2>&1 | sed \"s/.*: /refused: /\"; reconnect" \
	"echo platform >$power/pm_test; echo freeze >$power/state; echo idle: \$?; reconnect"
dmesg | grep -o "x86/mktme: .*suspend.*"
echo "slots $(host qmp query-mktme | grep -o "\"keyid\"" | wc -l)"
keyctl unlink $k @u
until [ "$(cat /sys/kernel/mm/mktme/keyids_in_use)" = 0 ]; do sleep 0.1; done
echo core >$power/pm_test
echo mem >$power/state; echo "without keys: $? CPUs $(cat /sys/devices/system/cpu/online)"
reconnect
usekey $(add k2) true
' >"$T/o" 2>"$T/e" || diag <"$T/e"
out=$(cat "$T/o")
like "the machine has suspend to RAM" "$out" '^deep$'
like "refused while a key is in use" "$out" '^refused: Device or resource busy$'
like "with a message" "$out" '^x86/mktme: no suspend to RAM while keys are in use$'
like "suspend to idle works" "$out" '^idle: 0$'
is "memory under the key is as before, each time" "$(sed '/^x86/q' "$T/o" | grep -c '^kept$')" 2
like "the key is in its slot" "$out" '^slots 1$'
like "without keys it suspends, and all CPUs come back" "$out" '^without keys: 0 CPUs 0-1$'
is "and keys work afterwards" "$(tail -2 "$T/o" | tr '\n' ' ')" "used kept "
done_testing
