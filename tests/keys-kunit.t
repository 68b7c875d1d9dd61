#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The KUnit tests: the payload's parser, the allocator of KeyIDs, what PCONFIG is
# given, the page table helpers.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64

# Built in, and run at boot only if asked to
guest --cache strict --sockets 2 --append 'kunit.enable=1' -- '
dmesg | sed "s/^\[[^]]*\] //" | grep -E "^ *(not )?ok |^ *# (mktme|Totals)"
cat /sys/kernel/mm/mktme/keyids_in_use' >"$T/o" 2>"$T/e" || diag <"$T/e"
for suite in mktme mktme_keys; do
	like "suite $suite" "$(cat "$T/o")" "^ok [0-9]+ $suite\$"
done
is "none failed" "$(grep 'not ok' "$T/o")" ""
is "none was skipped" "$(grep -i 'skip:[^0]\|# SKIP' "$T/o")" ""
for t in allocator program_struct page_tables good bad; do
	like "$t" "$(cat "$T/o")" "^ +ok [0-9]+ mktme_test_$t\$"
done
is "no KeyID is left in use" "$(tail -1 "$T/o")" 0
done_testing
