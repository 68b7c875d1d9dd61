#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What QEMU can't do it refuses, with a message that says what to change.
. "$(dirname "$0")/lib.sh"
need build/qemu/out/qemu-system-x86_64

# says WHAT REGEX OPTION...: QEMU exits with an error that matches
says() {
	local what=$1 regex=$2 out status=0
	shift 2
	out=$(timeout 20 "$TOP/build/qemu/out/qemu-system-x86_64" -L /usr/share/qemu -L /usr/share/seabios \
		-nodefaults -display none -S "$@" 2>&1 </dev/null) || status=$?
	is "$what: exit status" "$status" 1
	like "$what: message" "$out" "$regex"
}
m=(-machine "q35,mktme=m")
o=-object

says "more memory and holes than fit" "phys-bits=40, keyid-bits=6" \
	"${m[@]}" $o x86-mktme,id=m,keyid-bits=6 -cpu max,phys-bits=40 -m 256
says "and what to do about it" "Increase the CPU's phys-bits .*or decrease" \
	"${m[@]}" $o x86-mktme,id=m,keyid-bits=15 -cpu max,phys-bits=46 -m 256
says "no KeyID bits" "keyid-bits must be in the range 1 to 15" "${m[@]}" $o x86-mktme,id=m,keyid-bits=0
says "too many KeyID bits" "keyid-bits must be in the range 1 to 15" "${m[@]}" $o x86-mktme,id=m,keyid-bits=16
says "more keys than KeyIDs" "max-keys=16 does not fit in keyid-bits=4" \
	"${m[@]}" $o x86-mktme,id=m,keyid-bits=4,max-keys=16
says "all KeyIDs for TDX" "tdx-keyid-bits=4 must be less than keyid-bits=4" \
	"${m[@]}" $o x86-mktme,id=m,keyid-bits=4,tdx-keyid-bits=4
says "no KeyID for TDX" "max-keys=7 leaves no KeyID for tdx-keyid-bits=1" \
	"${m[@]}" $o x86-mktme,id=m,keyid-bits=4,max-keys=7,tdx-keyid-bits=1
says "no algorithm" "At least one of aes-xts-128 and aes-xts-256" \
	"${m[@]}" $o x86-mktme,id=m,aes-xts-128=off,aes-xts-256=off
says "a word that does not exist" "cache.*does not accept value 'maybe'" "${m[@]}" $o x86-mktme,id=m,cache=maybe
says "no such object" "mktme.*m.*not found|Device 'm' not found" "${m[@]}"
says "an object of another type" "Invalid parameter type for .mktme., expected: x86-mktme" "${m[@]}" $o rng-builtin,id=m
says "another machine" "Property 'none-machine.mktme' not found" -machine none,mktme=m $o x86-mktme,id=m
says "another accelerator" "needs the tcg accelerator" \
	"${m[@]}" -accel qtest $o x86-mktme,id=m -cpu max,phys-bits=46

ok=("${m[@]}" "$o" "x86-mktme,id=m" -cpu "max,phys-bits=46")
says "memory that would not be encrypted" "cannot be encrypted: use a pc-dimm" "${ok[@]}" -m 256,maxmem=1G \
	$o memory-backend-ram,id=r,size=256M -device virtio-mem-pci,memdev=r
# Another process that would access memory by itself: the connection is all it gets
python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(1)
c = s.accept()[0]
c.recv(1)' "$T/vhost" &
while [ ! -S "$T/vhost" ]; do sleep 0.1; done
says "vhost" "vhost needs guest RAM as it is, but this machine.s memory is encrypted" "${ok[@]}" \
	-chardev "socket,id=c,path=$T/vhost" -device vhost-user-blk-pci,chardev=c
wait $!

says "a CPU with other physical address bits" "all CPUs must have the same phys-bits: 46, not 45" "${ok[@]}" -m 256 \
	-smp 1,sockets=2,maxcpus=2 -device max-x86_64-cpu,socket-id=1,core-id=0,thread-id=0,phys-bits=45
says "what is migrated into it" "State blocked by non-migratable device 'x86-mktme'" "${ok[@]}" -m 256 \
	-incoming "exec:echo anything"
says "RAM that ends amid a page below 4G" "nodes and the memory below 4G must begin and end at a multiple of 4K" \
	"${ok[@]}" -machine max-ram-below-4g=134217729 -m 256

# bounce OPTION...: how much the PCI device d may bounce
bounce() {
	timeout -k 1 20 "$TOP/build/qemu/out/qemu-system-x86_64" -L /usr/share/qemu -L /usr/share/seabios \
		-nodefaults -display none -S -monitor stdio "$@" <<<'info qtree' 2>/dev/null |
		sed -n '/id "d"/,$s/.*x-max-bounce-buffer-size = \([0-9]*\) .*/\1/p' | head -n 1
}
pci=(-device "pci-testdev,id=d")
is "PCI devices may bounce more with MKTME" "$(bounce -machine q35 "${pci[@]}") $(bounce "${ok[@]}" "${pci[@]}")" \
	"4096 67108864"
is "-global has precedence" "$(bounce "${ok[@]}" "${pci[@]}" -global pci-device.x-max-bounce-buffer-size=8192)" 8192
is "so has a device's own property" "$(bounce "${ok[@]}" -device pci-testdev,id=d,x-max-bounce-buffer-size=8192)" 8192

help=$("$TOP/build/qemu/out/qemu-system-x86_64" -object x86-mktme,help)
for p in activate aes-xts-128 aes-xts-256 cache cache-exact keyid-bits max-keys tdx-keyid-bits tme-bypass; do
	like "help tells of $p" "$help" "^ +$p=<.*> +- .+"
done
is "and of nothing else" "$(grep -c = <<<"$help")" 9
like "the machine's help tells of it" "$("$TOP/build/qemu/out/qemu-system-x86_64" -machine q35,help)" \
	"^ +mktme=<link<x86-mktme>> +- .+"
done_testing
