#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A guest that QEMU's TCG runs, not KVM, has its RAM under a key as well: the DIMM
# holds what OpenSSL makes of it with that key, and nothing of it in plaintext.
. "$(dirname "$0")/kvm.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/secret build/tools/xts
mib=$(ram 384) pages=64
"$TOP/vm/inner.py" "$T/inner" || exit 1
known_key g

cat >"$T/script" <<'EOF'
# There is nothing else to measure its clock by than the PIT
ACCEL="-accel tcg -cpu qemu64 -M pit=on"
. /inner/lib.sh
set -e
start g $(keyed_by g)
at=$(keep g $pages)
echo "at $at"
host dump $at 4096 page
host dump 0 $((mib << 20)) all
echo "kept $(kept g)"
stop g
EOF
guest --memory "${mib}M" --smp 1 --cache strict --mktme tme-bypass=on --out "$T" --add "$T/inner:/inner" \
	--add "$T/keys:/keys" --add "$T/script:/script" -- "mib=$mib pages=$pages sh /script" >"$T/said" 2>"$T/err"
is "the guest's part" "$?" 0
[ ! -s "$T/err" ] || diag <"$T/err" >&2
secret_in_dimm g "$(said at)" >"$T/wanted"
ok "the DIMM holds what OpenSSL makes of its memory by its key" cmp "$T/page" "$T/wanted"
is "and nothing of it in plaintext" "$("$TOP/build/guest/tests/secret" count $pages "$T/all")" 0
is "the guest goes on" "$(said kept)" "0 words differ"
done_testing
