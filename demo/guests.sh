# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2046,SC2086,SC2154
# In the guest of demo/guests and tests/kvm.t: two guests of its own, each with its
# RAM under a key in /keys, keep a secret of $pages pages; one ends, then the other.
# Says what it sees, and has all $mib MiB of DRAM dumped.
. /inner/lib.sh
set -e
used() { cat /sys/kernel/mm/mktme/keyids_in_use; }
ms() { sed 's/\.\([0-9]*\) .*/\10/' /proc/uptime; }
boot() { # NAME OPTIONS...: start, and how long it took, in ms
	local from
	from=$(ms)
	start "$@"
	echo "$1-boot $(($(ms) - from))"
}

boot a $(keyed_by a)
boot b $(keyed_by b)
a=$(keep a $pages); echo "a $a"
b=$(keep b $pages); echo "b $b"
echo "used $(used)"

# All caches are written back when a key is erased, before KeyID 0 has a look
k=$(keyctl add mktme k "type=cpu algorithm=aes-xts-128" @u)
keyctl update $k erase
keyctl unlink $k @u
dd if=/dev/mem bs=4096 skip=$((a >> 12)) count=1 2>/dev/null | base64 | tr -d '\n' | sed 's/^/keyid0 /'; echo
host dump $a 4096 a
host dump $b 4096 b
host dump 0 $((mib << 20)) two
echo "a-kept $(kept a)"

stop a
until [ $(used) = 1 ]; do usleep 50000; done
echo "left $(host qmp query-mktme | grep -o '"keyid": [0-9]*' | tr '\n' ' ')"
host dump 0 $((mib << 20)) one
echo "b-kept $(kept b)"
stop b
until [ $(used) = 0 ]; do usleep 50000; done

# What a dump can see: the same without a key. Last, as it is not wiped
boot c
keep c $pages >/dev/null
host dump 0 $((mib << 20)) plain
stop c
