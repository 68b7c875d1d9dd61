#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Memory that comes and goes: what a package with a CPU has can be used under keys
# at once; memory of a node without CPUs can't come while keys are in use, and no key
# is made while it is there.
. "$(dirname "$0")/lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/usekey

common='
add() { keyctl add mktme $1 "type=cpu algorithm=aes-xts-128" @u 2>&1 >/dev/null | sed "s/.*: //"; }
in_use() { cat /sys/kernel/mm/mktme/keyids_in_use; }
plug() { # NODE: 256 MiB there
	host qmp object-add "{\"qom-type\":\"memory-backend-ram\",\"id\":\"m$1\",\"size\":268435456}" &&
	host qmp device_add "{\"driver\":\"pc-dimm\",\"id\":\"d$1\",\"memdev\":\"m$1\",\"node\":$1}"
	for i in $(seq 50); do grep -q 0 /sys/devices/system/node/node$1/memory*/removable 2>/dev/null; [ -d /sys/devices/system/node/node$1 ] && break; sleep 0.1; done
	sleep 0.5
}
online() { # NODE: what of it is or comes online, or the error
	for m in /sys/devices/system/node/node$1/memory*/state; do
		[ "$(cat $m)" = offline ] || continue
		(echo online >$m) 2>&1 | sed "s/.*: //"
	done | sort | uniq -c | sed "s/^ *//"
	echo "node $1: $(cat /sys/devices/system/node/node$1/memory*/state | sort | uniq -c | tr -s " ")"
}
says() { dmesg | sed -n "s/.*x86.mktme: //p" | tail -1; }
'
# Node 1 has no CPU; slots for memory on both
m=$(ram 256)M
nodes=(-m "$m,slots=2,maxmem=4G" -object "memory-backend-ram,id=r0,size=$m"
	-numa "node,nodeid=0,memdev=r0,cpus=0-1" -numa "node,nodeid=1")
boot() { "$TOP/vm/boot" --kernel "$kernel" --cache strict --memory "$(ram 512)M" --exec "$common$1" -- "${nodes[@]}" >"$T/o" 2>"$T/e" || diag <"$T/e"; cat "$T/o"; }

out=$(boot 'add k; plug 0; online 0; add k2; echo "in use: $(in_use)"
	hog $((270 << 20)) $(keyctl search @u mktme k)
	plug 1; online 1; says; keyctl clear @u; until [ "$(in_use)" = 0 ]; do sleep 0.1; done
	online 1; echo "no keys: $(add late)"; says')
like "memory that comes to a node with CPUs" "$out" '^node 0: .*online$'
like "with keys in use, before and after" "$out" '^in use: 2$'
like "memory comes under the key there, too" "$out" '^hog: right$'
like "memory of a node without CPUs is refused while keys are in use" "$out" '^[0-9]+ Device or resource busy$'
like "it stays offline" "$out" '^node 1: [0-9 ]+ offline$'
like "with a message" "$out" '^memory of node 1 stays offline: no CPU of its package is online, and keys are in use$'
like "without keys it comes" "$out" '^node 1: [0-9 ]+ online$'
like "but then no key" "$out" '^no keys: Operation not supported$'
like "with a message" "$out" '^no keys: node 1 has memory, but no CPU of its package is online$'

# There from the start
nodes=(-object "memory-backend-ram,id=r0,size=$m" -object "memory-backend-ram,id=r1,size=256M"
	-numa "node,nodeid=0,memdev=r0,cpus=0-1" -numa "node,nodeid=1,memdev=r1")
out=$(boot 'add k; says')
like "a node without CPUs: no key" "$out" '^Operation not supported$'
like "with a message" "$out" '^no keys: node 1 has memory, but no CPU of its package is online$'
done_testing
