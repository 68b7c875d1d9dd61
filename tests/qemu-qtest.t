#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The emulator does what the hardware page says: QEMU's own test of it, in which a
# bare-metal guest breaks every rule once.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top/build/qemu/out" 2>/dev/null || { echo "Bail out! QEMU is not built: run 'make build'"; exit 1; }
ninja tests/qtest/mktme-test >mktme-test.log 2>&1 || { sed 's/^/# /' mktme-test.log; echo "Bail out! it does not build"; exit 1; }
QTEST_QEMU_BINARY=./qemu-system-x86_64 exec ./tests/qtest/mktme-test --tap -k 2>/dev/null
