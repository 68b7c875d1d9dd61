# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# For the tests that know the keys of guests in a guest: a random key, and what it
# makes of the guest's secret (tests/guest/secret.c).
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# known_key NAME: raw in $T/NAME.key and .tweak; in base64, for the guest, in $T/keys
known_key() {
	local part
	mkdir -p "$T/keys"
	for part in key tweak; do
		head -c 16 /dev/urandom >"$T/$1.$part"
		base64 "$T/$1.$part" >"$T/keys/$1.$part"
	done
}

# secret_in_dimm NAME PHYS: the secret's first page as it is there, by OpenSSL
secret_in_dimm() {
	"$TOP/build/guest/tests/secret" print 1 |
		"$TOP/build/tools/xts" -e aes-xts-128 "$(xxd -p "$T/$1.key")" "$(xxd -p "$T/$1.tweak")" "$2"
}
