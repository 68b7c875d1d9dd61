#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Memory under a key and the calls that change what memory is: every advice, KSM,
# userfaultfd, locks, seals, moves, huge pages of all sizes and their collapse.
. "$(dirname "$0")/mm.sh"
mm_guest advice -- mm_advice advice locks ksm userfault userfault-hugetlb
mm_guest 'huge pages' -- mm_advice collapse sizes
done_testing
