#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Memory of a guest under keys, in the ways in which QEMU has memory: a key for each
# NUMA node, preallocated, ballooned out and back, plugged in. The monitor shows it.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/qmp build/guest/tests/secret
"$TOP/vm/inner.py" "$T/inner" || exit 1

cat >"$T/script" <<'EOF'
INNER_RAM="128M,slots=2,maxmem=512M" DEVICES=1
. /inner/lib.sh
set -e
mib() { echo $(($(cat /sys/kernel/mm/mktme/keyids/$1/bytes) >> 20)); } # KEYID
monitor() { qmp /run/g.qmp "$@" >/dev/null; }
# until_ COMMAND...: what comes to be; a guest that never gets there is ended by vm/boot
until_() { until "$@"; do usleep 50000; done; }
total() { echo $(($(cat /sys/kernel/mm/mktme/encrypted_bytes) >> 20)); }
less() { [ "$(total)" -lt "$1" ]; }

start g -smp 2,sockets=2 \
	-object mktme-key,id=k0,source=cpu,algorithm=aes-xts-128 \
	-object mktme-key,id=k1,source=cpu,algorithm=aes-xts-256 \
	-object memory-backend-ram,id=m0,size=96M,mktme-key=k0,prealloc=on \
	-object memory-backend-ram,id=m1,size=32M,mktme-key=k1,prealloc=on \
	-numa node,nodeid=0,cpus=0,memdev=m0 -numa node,nodeid=1,cpus=1,memdev=m1 \
	-device virtio-balloon-pci
echo "memdev $(qmp /run/g.qmp query-memdev)"
qmp /run/g.qmp human-monitor-command '{"command-line": "info memdev"}' | sed 's/\\r\\n/\n/g' |
	sed -n 's/^ *mktme key: /hmp /p'
echo "prealloc $(mib 1) $(mib 2)"
echo "nodes $(say g 'ls -d /sys/devices/system/node/node? | wc -l')"
keep g 512 >/dev/null
echo "start $(kept g)"

monitor balloon '{"value": 100663296}'
until_ less 112
echo "out $(kept g)"
monitor balloon '{"value": 134217728}'
# The guest takes pages back one after the other, and those it writes to need not be among them
back() {
	say g 'mount -t tmpfs -o size=90% big /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=30 2>/dev/null; umount /mnt'
	! less 113
}
until_ back
echo "back $(kept g) $(($(total) > 112))"

monitor object-add '{"qom-type": "memory-backend-ram", "id": "m2", "size": 134217728, "mktme-key": "k1"}'
monitor device_add '{"driver": "pc-dimm", "id": "d2", "memdev": "m2", "node": 1}'
before=$(say g 'sed -n "s/^MemTotal: *//p" /proc/meminfo')
echo "had $before"
until_ say g '[ -e /sys/devices/system/memory/memory32 ]'
say g 'for m in /sys/devices/system/memory/memory*; do grep -q offline $m/state && echo online >$m/state; done; :'
say g 'mount -t tmpfs -o size=80% big /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=100 2>/dev/null; umount /mnt'
echo "dimm $(($(mib 2) > 64)) $(kept g)"

# A key goes with its object, when its memory is unmapped
in_use() { cat /sys/kernel/mm/mktme/keyids_in_use; }
none_more() { [ "$(in_use)" = 2 ]; }
monitor object-add '{"qom-type": "mktme-key", "id": "k2", "source": "cpu", "algorithm": "aes-xts-128"}'
monitor object-add '{"qom-type": "memory-backend-ram", "id": "m3", "size": 4194304, "mktme-key": "k2", "prealloc": true}'
echo "third $(in_use)"
monitor object-del '{"id": "m3"}'
monitor object-del '{"id": "k2"}'
until_ none_more
echo "third $(in_use)"

# As long as there is memory under it, the key's object stays
echo "delete $(qmp /run/g.qmp object-del '{"id": "k1"}' 2>&1)"
echo "again $(qmp /run/g.qmp object-add '{"qom-type": "mktme-key", "id": "k1", "source": "no-encrypt"}' 2>&1)"
echo "stays $(($(mib 2) > 64)) $(kept g)"
stop g
until [ "$(cat /sys/kernel/mm/mktme/keyids_in_use)" = 0 ]; do usleep 50000; done
echo "end 0"
EOF
guest --memory "$(ram 768)M" --smp 1 --cache strict --add "$T/inner:/inner" --add "$T/script:/script" -- "sh /script" \
	>"$T/said" 2>"$T/err"
is "the guest's part" "$?" 0
[ ! -s "$T/err" ] || diag <"$T/err" >&2
is "query-memdev" "$(said memdev | python3 -c '
import json, sys
for m in sorted(json.load(sys.stdin), key=lambda m: m["id"]):
    k = m["mktme-key"]
    print(m["id"], k["id"], k["keyid"], k["description"], k["serial"] > 0)')" "m0 k0 1 qemu:k0 True
m1 k1 2 qemu:k1 True"
for n in 0 1; do
	like "info memdev: node $n" "$(said hmp)" "^k$n, serial [0-9]+, KeyID $((n + 1)), description 'qemu:k$n'"
done
is "both are preallocated under their keys" "$(said prealloc)" "96 32"
is "the guest has two nodes" "$(said nodes)" 2
is "its memory is right" "$(said start)" "0 words differ"
is "with the balloon out" "$(said out)" "0 words differ"
is "with the balloon in, and what it gave back is under the key" "$(said back)" "0 words differ 1"
is "with a DIMM plugged in, which is under the key" "$(said dimm)" "1 0 words differ"
is "a key that is added with memory, and deleted" "$(said third | paste -sd' ')" "3 2"
like "a key's object that is in use is not deleted" "$(said delete)" "object 'k1' is in use"
like "and there is no other of its name" "$(said again)" "duplicate property 'k1'"
is "its memory stays under the key" "$(said stays)" "1 0 words differ"
is "when QEMU has ended no KeyID is in use" "$(said end)" 0
done_testing
