#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A KeyID is in use as long as a key, a mapping or a pinned page needs it, in whatever
# order they go; memory under a key is charged, forked and freed as any memory.
. "$(dirname "$0")/mm.sh"
mm_guest life -- mm_life
done_testing
