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
m=(-machine q35,mktme=m)
o=-object

says "more memory and holes than fit" "phys-bits=40, keyid-bits=6" \
	"${m[@]}" $o x86-mktme,id=m,keyid-bits=6 -cpu max,phys-bits=40 -m 256
says "and what to do about it" "Increase the CPU's phys-bits .*or decrease" \
	"${m[@]}" $o x86-mktme,id=m,keyid-bits=15 -cpu max,phys-bits=46 -m 256
says "no KeyID bits" "keyid-bits must be in the range 1 to 15" "${m[@]}" $o x86-mktme,id=m,keyid-bits=0
says "too many KeyID bits" "keyid-bits must be in the range 1 to 15" "${m[@]}" $o x86-mktme,id=m,keyid-bits=16
says "more keys than KeyIDs" "max-keys=16 does not fit in keyid-bits=4" \
	"${m[@]}" $o x86-mktme,id=m,keyid-bits=4,max-keys=16
says "no algorithm" "At least one of aes-xts-128 and aes-xts-256" \
	"${m[@]}" $o x86-mktme,id=m,aes-xts-128=off,aes-xts-256=off
says "a word that does not exist" "cache.*does not accept value 'maybe'" "${m[@]}" $o x86-mktme,id=m,cache=maybe
says "no such object" "mktme.*m.*not found|Device 'm' not found" "${m[@]}"
says "an object of another type" "Invalid parameter type for .mktme., expected: x86-mktme" "${m[@]}" $o rng-builtin,id=m
says "another machine" "Property 'none-machine.mktme' not found" -machine none,mktme=m $o x86-mktme,id=m
says "another accelerator" "needs the tcg accelerator" \
	"${m[@]}" -accel qtest $o x86-mktme,id=m -cpu max,phys-bits=46
done_testing
