#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Huge pages under a key that move from node to node: what the kernel's selftests
# skip on the machine of one node that tests/selftests.t gives them.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/selftests/mktme_huge

# of WHAT N WANTED OPTIONS...: N subtests pass, and none is skipped
of() {
	local what=$1 n=$2 selected=$3 status=0
	shift 3
	guest --cache strict "$@" -- "/tests/selftests/mktme_huge $selected" >"$T/o" 2>"$T/e" || status=$?
	is "$what" "$status $(grep -c '^ok' "$T/o") $(grep -c 'SKIP' "$T/o")" "0 $n 0"
	{ grep -v '^ok' "$T/o"; cat "$T/e"; } | diag
}
of "between nodes" 2 "-V 1G -t migration" --sockets 2 --memory 2G
done_testing
