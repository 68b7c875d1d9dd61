#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# With the feature off, a boot executes the same guest instructions as in a QEMU that
# was never patched ('make stock-qemu').
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/qemu/stock/out/qemu-system-x86_64
. "$(dirname "$0")/executed.sh"

boot() { executed "$1" -M q35 -cpu max,phys-bits=46 -m 512 -serial null -append panic=-1; }
stock=$(boot "$TOP/build/qemu/stock/out/qemu-system-x86_64")
like "a boot was seen" "$stock" "^executed [0-9]{8,} "
is "the same instructions" "$(boot "$TOP/build/qemu/out/qemu-system-x86_64")" "$stock"
done_testing
