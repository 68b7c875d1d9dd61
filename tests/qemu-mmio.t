#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A CPU that accesses a device reaches that device, even while another CPU changes what
# is where in physical memory.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/mmio

for mktme in "--cache strict" --no-mktme; do
	status=0
	# shellcheck disable=SC2086  # words
	"$TOP/vm/boot" $mktme --smp 2 --exec 'for d in /sys/bus/pci/devices/*; do
		if [ "$(cat $d/vendor $d/device)" = "0x1234
0x11e8" ]; then /tests/mmio ${d##*/}; fi; done' -- -device edu >"$T/out" 2>"$T/err" || status=$?
	is "$mktme: exit status" "$status" 0
	[ $status = 0 ] || diag <"$T/err"
	like "$mktme: each read reached the HPET" "$(cat "$T/out")" "^period [1-9][0-9]* wrong 0 toggled [1-9][0-9]{3}"
done
done_testing
