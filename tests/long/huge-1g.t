#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Private huge pages of 1G under a key: the selftests that tests/selftests.t skips for
# want of memory.  Not part of "make test": "make huge-check" takes a quarter of an hour.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/selftests/mktme_huge

status=0
guest --cache strict --memory 6G --timeout 5400 -- \
	'/tests/selftests/mktme_huge -V 2M -F thp' >"$T/o" 2>"$T/e" || status=$?
is 'the selftest ends well' $status 0
is 'nothing failed' "$(grep '^not ok' "$T/o")" ''
# A gigabyte that is moved needs a third one
is 'what is skipped' "$(sed -n 's/^ok [0-9]* hugetlb\.1G\.\(.*\) # SKIP.*/\1/p' "$T/o" | sort | xargs)" \
	'migration soft_offline userfaultfd_copy'
is 'what passes' "$(sed '/# SKIP/d' "$T/o" | sed -n 's/^ok [0-9]* hugetlb\.1G\.//p' | sort | xargs)" \
	'contents_are_kept erase fork_and_copy holes_in_the_file mremap new_memory no_page_for_a_copy no_page_for_a_copy_of_a_files no_page_for_the_owners_copy not_counted_as_locked optimized_vmemmap other_mappings_are_refused pinned private_mapping_of_a_file rotate'
{ grep -v '^ok' "$T/o"; cat "$T/e"; } | diag
done_testing
