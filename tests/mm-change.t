#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Memory that changes its key, is copied after fork, moved or split keeps its contents
# and has the right key in DRAM, whatever pages it is made of; where a change of key
# fails in the middle, it is as it was.
. "$(dirname "$0")/mm.sh"
for part in huge hugetlb mixed undo; do
	mm_guest $part -- mm_change $part
done
done_testing
