#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The emulator does what the hardware page says: QEMU's own test of it, in which a
# bare-metal guest breaks every rule once.
set -eu
test=${1:-mktme-test}
if ! cd "$(dirname "$0")/../build/qemu/out" 2>/dev/null || [ ! -x "tests/qtest/$test" ]; then
	echo "Bail out! QEMU is not built: run 'make build'"
	exit 1
fi
QTEST_QEMU_BINARY=./qemu-system-x86_64 exec "./tests/qtest/$test" --tap -k 2>/dev/null
