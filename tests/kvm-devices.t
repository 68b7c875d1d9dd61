#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Devices of a guest whose RAM is under a key: a disk by O_DIRECT onto a device of
# the host, and a network by vhost.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64
"$TOP/vm/inner.py" "$T/inner" || exit 1

cat >"$T/fs" <<'EOF'
mke2fs /dev/vda >/dev/null 2>&1;
mount -t ext2 /dev/vda /mnt;
dd if=/dev/urandom of=/mnt/f bs=64k count=100 2>/dev/null; cp /bin/busybox /mnt;
sha256sum /mnt/f /mnt/busybox >/tmp/sums;
umount /mnt; echo 3 >/proc/sys/vm/drop_caches;
mount -t ext2 /dev/vda /mnt;
sha256sum -c /tmp/sums >/dev/null && echo same;
umount /mnt
EOF
cat >"$T/script" <<'EOF'
DEVICES=1
. /inner/lib.sh
set -e
tunctl -t tap0 >/dev/null
ip addr add 10.0.0.1/24 dev tap0
ip link set tap0 up
mkfifo /tmp/hold
for aio in threads io_uring; do
	start $aio $(keyed) -drive "file=/dev/vda,format=raw,if=none,id=d,cache=none,aio=$aio" \
		-device virtio-blk-pci,drive=d \
		-netdev tap,id=n,ifname=tap0,script=no,downscript=no,vhost=on \
		-device virtio-net-pci,netdev=n,romfile=
	echo "$aio fs $(say $aio "$(tr '\n' ' ' </fs)")"
	echo "$aio inner $(say $aio 'echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vda')"
	echo 3 >/proc/sys/vm/drop_caches
	echo "$aio outer $(sha256sum </dev/vda)"

	say $aio 'ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; dd if=/dev/urandom of=/tmp/sent bs=64k count=40 2>/dev/null'
	# Who has no more to send is hung up on: who receives keeps its input open
	say $aio 'mkfifo /tmp/hold; (nc -l -p 5000 </tmp/sent >/dev/null &); ({ nc -l -p 5001 <>/tmp/hold >/tmp/back; : >/tmp/done; } &)'
	until nc 10.0.0.2 5000 <>/tmp/hold >/tmp/got 2>/dev/null; do usleep 100000; done
	until nc 10.0.0.2 5001 </tmp/got 2>/dev/null; do usleep 100000; done
	say $aio 'until [ -e /tmp/done ]; do usleep 100000; done'
	echo "$aio sent $(say $aio 'sha256sum </tmp/sent')"
	echo "$aio got $(sha256sum </tmp/got)"
	echo "$aio under-it $(($(cat /sys/kernel/mm/mktme/keyids/*/bytes) > 16 << 20))"
	echo "$aio vhost $(cat /proc/$(cat /run/$aio.pid)/task/*/comm | grep -c '^vhost-')"
	echo "$aio back $(say $aio 'sha256sum </tmp/back')"
	stop $aio
done
EOF
truncate -s 32M "$T/disk"
"$TOP/vm/boot" --memory "$(ram 512)M" --smp 1 --cache strict --add "$T/inner:/inner" --add "$T/script:/script" --add "$T/fs:/fs" \
	--exec "sh /script" -- -drive "file=$T/disk,format=raw,if=none,id=disk" -device virtio-blk-pci,drive=disk \
	>"$T/said" 2>"$T/err"
is "the guest's part" "$?" 0
[ ! -s "$T/err" ] || diag <"$T/err" >&2
for aio in threads io_uring; do
	is "$aio: its memory is under its key" "$(said "$aio under-it")" 1
	is "$aio: vhost is at work" "$(said "$aio vhost")" 1
	is "$aio: a file system's checksums" "$(said "$aio fs")" same
	is "$aio: the host's disk has what the guest reads" "$(said "$aio outer")" "$(said "$aio inner")"
	is "$aio: vhost: what the guest sends" "$(said "$aio got")" "$(said "$aio sent")"
	is "$aio: vhost: and what it gets back" "$(said "$aio back")" "$(said "$aio sent")"
done
is "the last disk, from outside" "$(sha256sum <"$T/disk")" "$(said "io_uring outer")"
done_testing
