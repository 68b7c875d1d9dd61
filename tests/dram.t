#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Whichever way memory comes under a key: the DIMM holds what OpenSSL makes of the
# plaintext with that key, at that address, and not what another key makes of it.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/dram build/tools/xts

key128=00112233445566778899aabbccddeeff tweak128=0123456789abcdeffedcba9876543210
key256=${key128}a0a1a2a3a4a5a6a7a8a9aaabacadaeaf tweak256=${tweak128}b0b1b2b3b4b5b6b7b8b9babbbcbdbebf
head -c 4096 /dev/urandom >"$T/pattern"

guest --mktme tme-bypass=on --out "$T" --add "$T/pattern:/pattern" -- "
	a=\$(keyctl add mktme a 'type=user algorithm=aes-xts-128 key=$key128 tweak=$tweak128' @u) &&
	b=\$(keyctl add mktme b 'type=user algorithm=aes-xts-256 key=$key256 tweak=$tweak256' @u) &&
	n=\$(keyctl add mktme n type=no-encrypt @u) &&
	exec /tests/dram /pattern \$a \$b \$n" >"$T/pages" 2>"$T/err"
is "the guest's part" "$? $(cat "$T/err")" "0 "

xts() { "$TOP/build/tools/xts" -e "$@" <"$T/pattern" >"$T/wanted"; }
same() { cmp -s "$T/$1" "$T/$2"; }
while read -r name phys; do
	case $name in
	plain | unkeyed | none)
		ok "$name: plain" same "$name" pattern ;;
	faulted | populated)
		xts aes-xts-128 $key128 $tweak128 "$phys"
		ok "$name: under the 128-bit key" same "$name" wanted ;;
	rekeyed | copied | parent | moved)
		xts aes-xts-256 $key256 $tweak256 "$phys"
		ok "$name: under the 256-bit key" same "$name" wanted
		xts aes-xts-128 $key128 $tweak128 "$phys"
		if same "$name" wanted; then fail "$name: two keys make a difference"
		else pass "$name: two keys make a difference"; fi ;;
	*)
		fail "$name: not known" ;;
	esac
done <"$T/pages"
is "all pages were seen" "$(wc -l <"$T/pages")" 9
done_testing
