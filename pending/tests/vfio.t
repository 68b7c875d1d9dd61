#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A device that a user program drives by VFIO sees the plaintext of memory under
# keys: iommu_map() puts the KeyID of each page into its mapping.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/vfio

is "neighbours under different keys, mapped by VFIO" \
	"$("$TOP/vm/boot" --cache strict --append 'intel_iommu=on' --exec /tests/vfio -- \
		-device intel-iommu,caching-mode=on -device edu 2>&1)" "all pages read and written"
done_testing
