#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Memory under a key does not leave DRAM: not to a swap device, not to zswap, not in a
# core dump; and there is no hibernation.
. "$(dirname "$0")/mm.sh"

# How often a word is in a file
count() { grep -aoF "$2" "$1" | wc -l; }
secret='tOp-SeCrEt-dAtA!' public='pUbLiC-nO-hArM!!'

# So that the next test does not find the last one's
disks() {
	rm -f "$T/swap" "$T/fs"
	truncate -s 64M "$T/swap"
	truncate -s 16M "$T/fs"
	# shellcheck disable=SC2054  # QEMU's commas
	qemu_args=(-drive "if=none,id=swap,format=raw,file=$T/swap"
		-device virtio-blk-pci,drive=swap
		-drive "if=none,id=fs,format=raw,file=$T/fs"
		-device virtio-blk-pci,drive=fs)
}
pressure="mkswap /dev/vda >/dev/null && swapon /dev/vda &&
	mkdir /sys/fs/cgroup/small && echo 16M >/sys/fs/cgroup/small/memory.high &&
	echo 32M >/sys/fs/cgroup/small/memory.max &&
	echo \$\$ >/sys/fs/cgroup/small/cgroup.procs &&
	mm_stay pressure 16777216 || exit"

disks
mm_guest swap -- "$pressure"
is 'swap: secrets on the device' "$(count "$T/swap" "$secret")" 0
ok 'swap: what is no secret is there' [ "$(count "$T/swap" "$public")" -gt 10000 ]

# zswap keeps its pages in DRAM, compressed, under no key: that none of the key's comes
# there is told by smaps, in mm_stay
disks
mm_guest zswap --memory 512M -- "
	echo Y >/sys/module/zswap/parameters/enabled || exit
	$pressure
	n=\$(cat /sys/kernel/debug/zswap/stored_pages)
	echo \"# zswap: \$n pages, \$(cat /sys/kernel/debug/zswap/written_back_pages) written back\"
	grep zswpin /sys/fs/cgroup/small/memory.stat
	[ \$(grep zswpout /sys/fs/cgroup/small/memory.stat | cut -d' ' -f2) -gt 1000 ] &&
		echo ok zswap was used || echo not ok zswap was used"
is 'zswap: secrets on the device' "$(count "$T/swap" "$secret")" 0

disks
mm_guest 'core dump' -- "
	mke2fs /dev/vdb >/dev/null 2>&1 && mount /dev/vdb /mnt && cd /mnt &&
	echo /mnt/core.%p >/proc/sys/kernel/core_pattern &&
	{ mm_stay crash; [ \$(ls core.* | wc -l) = 2 ] && echo ok two core files ||
	  echo not ok two core files; ls -l core.* | sed 's/^/# /'; cd /; umount /mnt; sync; }"
is 'core dump: secrets in it' "$(count "$T/fs" "$secret")" 0
ok 'core dump: what is no secret is there' [ "$(count "$T/fs" "$public")" -gt 4096 ]

qemu_args=()
mm_guest hibernation -- "mm_stay hibernate"
done_testing
