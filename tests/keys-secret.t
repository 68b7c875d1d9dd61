#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# After add_key, the material of a key is nowhere in the guest's memory, neither
# as bytes nor as the payload's digits, unless mktme_storekeys asks to keep it.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/keysecret

cat >"$T/find" <<'PY'
import sys
memory = open(sys.argv[1], "rb").read()
key = bytes((37 * i + 11) & 255 for i in range(32))
tweak = bytes((91 * i + 5) & 255 for i in range(32))
# Half a key is too much, too
for name, secret in ("key", key), ("tweak", tweak):
    for half in secret[:16], secret[16:]:
        if half in memory:
            print(name, "bytes")
        if half.hex().encode() in memory:
            print(name, "digits")
PY
mib=$(ram 256)	# all of it is dumped
# found COMMAND [OPTIONS]...: what of the key is in memory after the command
found() {
	local command=$1
	shift
	rm -f "$T/memory"
	guest --memory "${mib}M" --mktme tme-bypass=on --out "$T" "$@" -- \
		"$command && sleep 1 && host dump 0x100000 $(((mib - 1) << 20)) memory" >"$T/o" 2>&1 || { cat "$T/o"; return; }
	[ -s "$T/memory" ] || { echo "no dump"; return; }
	python3 "$T/find" "$T/memory" | sort -u | tr '\n' ' '
}
like "control: a program that holds the payload" "$(found '{ /tests/keysecret hold & until keyctl search @u mktme secret; do sleep 0.1; done; }')" '^key digits tweak digits '
is "control: mktme_storekeys keeps the bytes" "$(found '/tests/keysecret' --append mktme_storekeys)" "key bytes tweak bytes "
is "nothing is left after add_key" "$(found '/tests/keysecret')" ""
is "nor after the key is gone, stored or not" \
	"$(found 'keyctl invalidate $(/tests/keysecret) && until [ "$(cat /sys/kernel/mm/mktme/keyids_in_use)" = 0 ]; do sleep 0.1; done' --append mktme_storekeys)" ""
done_testing
