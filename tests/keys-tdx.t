#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Where firmware has given KeyIDs to TDX (IA32_MKTME_KEYID_PARTITIONING), they are left
# alone: the kernel counts, gives out and programs those that are MKTME's, and no other.
. "$(dirname "$0")/lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
qemu=${QEMU:-$TOP/build/qemu/out/qemu-system-x86_64}
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/usekey

# With 4 KeyID bits there are 15; a bit of them for TDX leaves 7 for MKTME
for tdx in 0:15 1:7 2:3; do
	n=${tdx#*:}
	guest --kernel "$kernel" --qemu "$qemu" --cache strict --sockets 2 --keyid-bits 4 \
		--mktme "tdx-keyid-bits=${tdx%:*}" -- '
		add() { keyctl add mktme $1 "type=cpu algorithm=aes-xts-128" @u 2>&1 | sed "s/.*: //"; }
		dmesg | grep -o "x86/mktme: .*"
		cat /sys/kernel/mm/mktme/keyids_total
		sed -n "s/^mktme //p" /sys/fs/cgroup/misc.capacity
		for k in $(seq '"$n"'); do last=$(add k$k); done
		cat /sys/kernel/mm/mktme/keyids_in_use; add more
		usekey $last true
		host qmp query-mktme | grep -o "\"keyid\": [0-9]*" | sort -u | wc -l
		host qmp query-mktme | grep -o "\"keyid\": [0-9]*" | sed "s/.* //" | sort -n | tail -1
		dmesg | grep "refuses KeyID"' >"$T/o" 2>"$T/e" || diag <"$T/e"
	is "${tdx%:*} bits for TDX: $n KeyIDs" "$(cat "$T/o")" "x86/mktme: $n KeyIDs
$n
$n
$n
No space left on device
used
kept
$n
$n"
done
done_testing
