#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Direct I/O from and to memory under keys: the device gets and gives plaintext,
# whether it takes KeyIDs in its addresses or is bounced by its mask.
. "$(dirname "$0")/mm-io.sh"
try direct ''
done_testing
