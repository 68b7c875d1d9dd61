#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Guests of a guest, run by KVM, each with its RAM under a key of its own: the DIMM
# holds what OpenSSL makes of it with that key, and nothing of it in plaintext.
# When one ends its KeyID is free and its key gone; the other does not notice.
. "$(dirname "$0")/kvm.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/secret build/tools/xts
mib=$(ram 448) pages=64

"$TOP/vm/inner.py" "$T/inner" || exit 1
known_key a
known_key b

guest --memory "${mib}M" --smp 1 --cache strict --mktme tme-bypass=on --out "$T" --add "$T/inner:/inner" \
	--add "$T/keys:/keys" --add "$TOP/demo/guests.sh:/guests.sh" -- "mib=$mib pages=$pages sh /guests.sh" >"$T/said" 2>"$T/err"
is "the guest's part" "$?" 0
[ ! -s "$T/err" ] || diag <"$T/err" >&2
echo "# ms to boot: a and b, under keys, $(said a-boot) and $(said b-boot); c, without, $(said c-boot)"

for g in a b; do
	secret_in_dimm $g "$(said $g)" >"$T/$g.wanted"
	ok "guest $g: the DIMM holds what OpenSSL makes of its memory by its key" cmp "$T/$g" "$T/$g.wanted"
done
is "each has a KeyID" "$(said used)" 2
said keyid0 | base64 -d >"$T/keyid0"
ok "KeyID 0, the host's direct map, has a view of the ciphertext" cmp "$T/keyid0" "$T/a"
count() { "$TOP/build/guest/tests/secret" count $pages "$T/$1"; }
is "control: without a key a dump has all of it" "$(count plain)" $pages
is "of two guests' memory it has nothing" "$(count two)" 0
is "guest a goes on after that" "$(said a-kept)" "0 words differ"
is "when a has ended, b's key is left" "$(said left)" '"keyid": 2 '
is "and nothing of a's memory is there in plaintext" "$(count one)" 0
is "guest b goes on" "$(said b-kept)" "0 words differ"
done_testing
