#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's own selftests (linux/tools/testing/selftests/x86/mktme) pass in a
# guest with MKTME, and skip, each and all, in one without.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests

# A selftest's TAP, with the harness' own chatter as diagnostics
run() { # NAME WHAT WANTED-REGEX OPTIONS...
	local name=$1 what=$2 re=$3 status=0
	shift 3
	guest "$@" -- "/tests/selftests/$name" >"$T/o" 2>"$T/e" || status=$?
	# 4 is kselftest's SKIP
	if { [ $status = 0 ] || [ $status = 4 ]; } && ! grep -q '^not ok' "$T/o" && grep -Eq "$re" "$T/o"; then
		pass "$name $what: $(sed -n 's/^# Totals: //p' "$T/o")"
	else
		fail "$name $what: exit status $status"
		{ grep -v '^ok' "$T/o"; cat "$T/e"; } | diag >&2
	fi
}
n=0
for f in "$TOP"/build/guest/tests/selftests/*; do
	[ -x "$f" ] || continue
	n=$((n + 1))
	run "${f##*/}" "with MKTME" 'Totals: pass:[1-9]'
	run "${f##*/}" "without" 'Totals: pass:[0-9]+ fail:0' --no-mktme
done
[ $n -gt 0 ] || fail "there are selftests"
done_testing
