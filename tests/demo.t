#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What 'make run' shows is so: memory under a key is noise on the DIMM, in no copy
# plain, and is what OpenSSL makes of the plaintext with the same key.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/demo build/tools/xts

ok "the demo" "$TOP/demo/run" "$T/demo" "$T/demo.png"
is "has a picture" "$(identify -format '%m' "$T/demo.png")" PNG

# The judge itself: it must see each thing that could be wrong
key=000102030405060708090a0b0c0d0e0f tweak=f0e0d0c0b0a090807060504030201000
d=$T/d
world() { # a DIMM of 64 pages; the picture's pages backwards, from page 40 on
	rm -rf "$d"; mkdir "$d"
	head -c 8192 "$T/demo/picture" >"$d/picture"; cp "$d/picture" "$d/seen"
	printf '0x29000\n0x28000\n' >"$d/pages"
	head -c 262144 /dev/zero >"$d/before"; cp "$d/before" "$d/after"
	put "$d/before" 41 <"$T/p0"; put "$d/before" 40 <"$T/p1"
	for i in 0 1; do
		"$TOP/build/tools/xts" -e aes-xts-128 $key $tweak $(((41 - i) << 12)) <"$T/p$i" | put "$d/after" $((41 - i))
	done
}
put() { dd of="$1" bs=4096 seek="$2" conv=notrunc status=none; }
judge() { "$TOP/demo/judge" verdict "$d" $key $tweak; }
wrong() { if judge >"$T/.out"; then fail "$1"; else like "$1" "$(grep 'NOT SO' "$T/.out")" "$2"; fi; }

# Random, so that any 8 KiB of it has pieces to look for
head -c 8192 /dev/urandom >"$T/demo/picture"
split -b 4096 -d -a1 "$T/demo/picture" "$T/p"
world; ok "a world as claimed passes" judge
world; printf x | dd of="$d/seen" conv=notrunc status=none; wrong "the program sees another thing" program
world; head -c 4096 /dev/zero | put "$d/before" 41; wrong "a control that finds nothing" before
world; { printf xyz; cat "$T/p1"; } | put "$d/after" 3; wrong "a plain copy somewhere, out of line" nowhere
world; put "$d/after" 41 <"$T/p0"; wrong "pages that are not encrypted" 'nowhere|noise'
world; head -c 4096 /dev/urandom | put "$d/after" 40; wrong "noise that the key does not turn back" OpenSSL
done_testing
