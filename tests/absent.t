#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Without the hardware, or with the config off, a guest has nothing of the feature:
# no key type, no sysfs, no line in smaps, and the system call says so.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/linux/out-off/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/syscall

look='/tests/syscall
	keyctl add mktme a "type=cpu algorithm=aes-xts-128" @s 2>&1
	ls -d /sys/kernel/mm/mktme 2>/dev/null
	grep -c "^KeyID:" /proc/self/smaps'
is "patched, no hardware" "$(guest --no-mktme -- "$look" | tr '\n' ',')" "EOPNOTSUPP,add_key: No such device,0,"
is "config off, no hardware" "$(guest --no-mktme --kernel "$TOP/build/linux/out-off/vmlinux" -- "$look" | tr '\n' ',')" \
	"ENOSYS,add_key: No such device,0,"
is "config off, with the hardware" "$(guest --kernel "$TOP/build/linux/out-off/vmlinux" -- "$look" | tr '\n' ',')" \
	"ENOSYS,add_key: No such device,0,"
# The control: with both, all of it is there
is "both" "$(guest -- "$look" | sed "s/^[0-9]\{4,\}\$/SERIAL/; s/^[1-9][0-9]*\$/N/" | tr "\n" ",")" "0,SERIAL,/sys/kernel/mm/mktme,N,"
is "config off: not a symbol of it" "$(nm "$TOP/build/linux/out-off/vmlinux" | grep -i mktme)" ""
done_testing
