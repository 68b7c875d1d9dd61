#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's ways to memory of a process see what the process sees, under any key:
# other processes, debuggers, io_uring's buffers and rings, pipes, sockets, crypto.
. "$(dirname "$0")/mm.sh"
mm_guest access -- mm_access
done_testing
