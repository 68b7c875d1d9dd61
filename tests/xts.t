#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# tools/xts is the judge of what the DIMM holds: it agrees with the published
# vectors (IEEE 1619-2007, annex B), and takes a data unit a line.
. "$(dirname "$0")/lib.sh"

xts=$TOP/build/tools/xts
need build/tools/xts
unhex() { printf '%s' "$1" | xxd -r -p; }
tohex() { xxd -p | tr -d '\n'; }
rep() { printf "$1%.0s" $(seq "$2"); }

is "IEEE 1619 vector 2" \
	"$(unhex "$(rep 44 32)" | $xts -u 33333333330000000000000000000000 -e aes-xts-128 "$(rep 11 16)" "$(rep 22 16)" 0 | tohex)" \
	c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0
is "IEEE 1619 vector 3" \
	"$(unhex "$(rep 44 32)" | $xts -u 33333333330000000000000000000000 -e aes-xts-128 fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0 "$(rep 22 16)" 0 | tohex)" \
	af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89
is "IEEE 1619 vector 10 (AES-256), its first 32 bytes" \
	"$(for i in $(seq 0 255) $(seq 0 255); do printf %02x "$i"; done | xxd -r -p |
		$xts -u ff000000000000000000000000000000 -e aes-xts-256 \
		2718281828459045235360287471352662497757247093699959574966967627 \
		3141592653589793238462643383279502884197169399375105820974944592 0 | head -c 32 | tohex)" \
	1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b

k=000102030405060708090a0b0c0d0e0f t=f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff
head -c 8192 /dev/urandom >"$T/plain"
$xts -e aes-xts-128 $k $t 0x12340000 <"$T/plain" >"$T/cipher"
ok "decrypts what it encrypts" cmp "$T/plain" <($xts -d aes-xts-128 $k $t 0x12340000 <"$T/cipher")
is "the fifth line is the data unit of its own address" \
	"$(tail -c +257 "$T/plain" | head -c 64 | $xts -u 00013412000000000000000000000000 -e aes-xts-128 $k $t 0 | tohex)" \
	"$(tail -c +257 "$T/cipher" | head -c 64 | tohex)"
refused "an address within a line" 'multiple of 64' "$xts" -d aes-xts-128 $k $t 0x12340020
refused "a short key" 'key:' "$xts" -d aes-xts-256 $k $t 0
done_testing
