#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Pages under a key that move keep contents and KeyID: on demand, by compaction and
# NUMA balancing, when memory goes offline, when it is broken.
. "$(dirname "$0")/mm.sh"
mm_guest 'two nodes' --sockets 2 -- mm_move demand balancing
mm_guest 'one node' -- mm_move compaction broken
qemu_args=(-m "1024M,slots=2,maxmem=4G")
mm_guest hotplug -- mm_move hotplug
done_testing
