#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# kexec and reboot leave no key in the hardware and no dirty line in a cache: the
# kernel that comes next starts from nothing, and works.  CPUs that firmware has set
# up differently: no keys; one that comes later stays offline.
. "$(dirname "$0")/lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/usekey

strip -o "$T/vmlinux" "$kernel" || exit
common='
slots() { host qmp query-mktme | grep -o "\"keyid\"" | wc -l; }
in_use() { cat /sys/kernel/mm/mktme/keyids_in_use; }
add() { keyctl add mktme $1 "type=cpu algorithm=aes-xts-128" @u; }
# The same guest once more, by a kernel that the word "next" on its command line tells apart
next() { # PARAMETERS
	# Without checksums, which take the emulator longest
	(cd / && find . -xdev ! -path ./vmlinux ! -path "./tests/selftests/*" | cpio -o -H newc) >/tmp/initrd 2>/dev/null
	kexec -l --no-checks /vmlinux --args-linux --initrd=/tmp/initrd --command-line="$(cat /proc/cmdline) next $1" && kexec -e
	echo "no kexec"
}
'
boot() { # OPTIONS... -- FIRST NEXT [PARAMETERS OF THE NEXT]
	local opts=()
	while [ "$1" != -- ]; do opts+=("$1"); shift; done
	"$TOP/vm/boot" --kernel "$kernel" --cache strict --add "$T/vmlinux:/vmlinux" --add /usr/sbin/kexec \
		"${opts[@]}" --exec "$common
		if grep -qw next /proc/cmdline; then $3
		else $2
		next '${4:-}'; fi" -- "${extra[@]}" >"$T/o" 2>"$T/e" || { echo "status $?" >>"$T/o"; diag <"$T/e"; }
	cat "$T/o"
}

extra=()
for s in 1 2; do
	out=$(boot --sockets $s -- '
		for k in 1 2 3; do usekey $(add k$k) "sleep 1000" >/dev/null & done
		until [ "$(in_use)" = 3 ] && [ "$(cat /sys/kernel/mm/mktme/encrypted_bytes)" = 98304 ]; do sleep 0.1; done
		echo "before: $(in_use) $(slots)"' '
		echo "after: $(in_use) $(slots)"
		usekey $(add k) true
		echo "works: $(in_use) $(slots)"')
	like "kexec with $s packages: keys in use before" "$out" "^before: 3 $((3 * s))\$"
	like "none programmed afterwards" "$out" "^after: 0 0\$"
	like "and the next kernel has its own" "$out" "^works: 1 $s\$"
	like "whose memory is right" "$out" "^kept\$"
	is "no complaint" "$(grep status "$T/o")" ""
done

# Keys are made and used until the end
out=$(boot --sockets 2 --smp 2 -- '
	for n in 1 2 3; do while :; do keyctl add mktme n$n.$((i += 1)) "type=cpu algorithm=aes-xts-128" @u; done >/dev/null 2>&1 & done
	for k in 1 2; do (while :; do usekey $(add k$k) true; done) >/dev/null 2>&1 & done
	until [ "$(in_use)" -gt 10 ]; do sleep 0.1; done
	echo "before: $(($(slots) > 5))"' '
	echo "after: $(in_use) $(slots)"')
like "kexec while keys are made: there are some" "$out" "^before: 1\$"
like "none afterwards" "$out" "^after: 0 0\$"
is "no complaint" "$(grep status "$T/o")" ""

# Reboot, in the emulator's own words
status=0
"$TOP/vm/boot" --kernel "$kernel" --cache strict --sockets 2 --exec "$common"'
	for k in 1 2; do usekey $(add k$k) "sleep 1000" >/dev/null & done
	until [ "$(cat /sys/kernel/mm/mktme/encrypted_bytes)" = 65536 ]; do sleep 0.1; done
	echo rebooting; reboot -f; sleep 100' \
	-- -trace mktme_program -trace mktme_violation -D "$T/trace" >"$T/o" 2>"$T/e" || status=$?
is "reboot" "$status $(cat "$T/o")" "125 rebooting"
like "which is a reset" "$(cat "$T/e")" 'QEMU ended before the command did'
is "clears the keys on all packages" "$(grep -c 'KeyID [12] is aes' "$T/trace") $(
	tail -4 "$T/trace" | grep -o 'package.*is [^,]*' | sort | tr '\n' ' ')" \
	"4 package 0 KeyID 1 is tme package 0 KeyID 2 is tme package 1 KeyID 1 is tme package 1 KeyID 2 is tme "
is "leaves no dirty line" "$(grep -c 'mktme_violation' "$T/trace")" 0

# Firmware that has set up packages differently: by MSR writes in a kernel that
# finds no MKTME, before the one that does
on=0x0005000600000002		# both algorithms, 6 KeyID bits, enable
other=0x0001000600000002	# AES-XTS-128 only
says='dmesg | sed -n "s/.*x86.mktme: //p"; ls -d /sys/kernel/mm/mktme; keyctl add mktme k "type=cpu algorithm=aes-xts-128" @u 2>&1 | sed "s/.*: //"'
out=$(boot --sockets 2 --mktme activate=off -- "wrmsr 0 0x982 $on; wrmsr 1 0x982 $on" "$says")
like "all CPUs alike" "$out" "^63 KeyIDs\$"
like "keys" "$out" "^[0-9]+\$"
out=$(boot --sockets 2 --mktme activate=off -- "wrmsr 0 0x982 $on; wrmsr 1 0x982 $other" "$says")
like "one differently: told" "$out" "^not usable: not set up alike on all CPUs\$"
like "no keys" "$out" "^No such device\$"
out=$(boot --sockets 2 --mktme activate=off -- "wrmsr 0 0x982 $on" "$says")
like "one not at all: told" "$out" "^not usable: not set up alike on all CPUs\$"
# It comes later: without memory of its own, so that keys do not wait for it
extra=(-smp "2,sockets=2,cores=1,threads=1")
later='add k; echo 1 >/sys/devices/system/cpu/cpu1/online; echo "online: $(cat /sys/devices/system/cpu/online)"; '
out=$(boot --smp 1 --mktme activate=off -- "wrmsr 0 0x982 $on; wrmsr 1 0x982 $other" "$later $says" maxcpus=1)
like "one that comes later" "$out" "^online: 0\$"
like "is told" "$out" "^CPU 1 stays offline: firmware has set it up differently\$"
out=$(boot --smp 1 --mktme activate=off -- "wrmsr 0 0x982 $on; wrmsr 1 0x982 $on" "$later" maxcpus=1)
like "alike it may come" "$out" "^online: 0-1\$"
done_testing
