#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's ways to memory of a process see what the process sees, under any key:
# other processes, debuggers, io_uring's buffers and rings, pipes, sockets, crypto.
. "$(dirname "$0")/mm.sh"
# gcm(aes), among others, is not for AF_ALG by default
mm_guest access -- "echo 0 >/proc/sys/crypto/af_alg_restrict; mm_access"
done_testing
