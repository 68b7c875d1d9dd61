# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# For the tests of memory management (tests/mm-*.t): runs a program of tests/guest/
# that includes mm.h, and makes TAP of what it says.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

key_a=00112233445566778899aabbccddeeff tweak_a=0123456789abcdeffedcba9876543210
key_b=${key_a}a0a1a2a3a4a5a6a7a8a9aaabacadaeaf tweak_b=${tweak_a}b0b1b2b3b4b5b6b7b8b9babbbcbdbebf
head -c 4096 /dev/urandom >"$T/pattern"

# page N >FILE: as put_page() fills it
page() {
	perl -e 'print pack("Q<", $ARGV[0])' "$1"
	tail -c +9 "$T/pattern"
}

# in_dram FILE PHYS N KEY: the page is that, under that key
in_dram() {
	page "$3" >"$T/plain"
	case $4 in
	0) cp "$T/plain" "$T/wanted" ;;
	1) "$TOP/build/tools/xts" -e aes-xts-128 $key_a $tweak_a "$2" <"$T/plain" >"$T/wanted" ;;
	2) "$TOP/build/tools/xts" -e aes-xts-256 $key_b $tweak_b "$2" <"$T/plain" >"$T/wanted" ;;
	esac
	cmp "$T/$1" "$T/wanted"
}

# mm_guest WHAT [vm/boot's options] -- COMMAND: with the keys $A and $B; the array
# qemu_args is passed to QEMU
qemu_args=()
mm_guest() {
	local what=$1 opts=() status=0 line
	shift
	while [ "$1" != -- ]; do opts+=("$1"); shift; done
	shift
	need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/tools/xts
	"$TOP/vm/boot" ${KERNEL:+--kernel "$KERNEL"} --cache strict --mktme tme-bypass=on --out "$T" --add "$T/pattern:/pattern" "${opts[@]}" --exec "
		A=\$(keyctl add mktme a 'type=user algorithm=aes-xts-128 key=$key_a tweak=$tweak_a' @u) &&
		B=\$(keyctl add mktme b 'type=user algorithm=aes-xts-256 key=$key_b tweak=$tweak_b' @u) &&
		export A B || exit
		$*" -- "${qemu_args[@]}" >"$T/said" 2>"$T/err" || status=$?
	is "$what: it runs to its end" "$status" 0
	while read -r line; do
		# shellcheck disable=SC2086  # words
		case $line in
		'ok '*) pass "$what: ${line#ok }" ;;
		'not ok '*) fail "$what: ${line#not ok }" ;;
		'dram '*)
			set -- $line
			ok "$what: ${*:6}: in DRAM" in_dram "$2" "$3" "$4" "$5" ;;
		*) echo "$line" | diag ;;
		esac
	done <"$T/said"
	if [ $status = 0 ]; then diag <"$T/err"; else diag <"$T/err" >&2; fi
	[ -s "$T/said" ] || fail "$what: it says something"
}
