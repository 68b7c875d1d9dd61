#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Direct I/O from and to memory under keys: the device gets and gives plaintext,
# whether it takes KeyIDs in its addresses or its IOMMU's, or is bounced.
. "$(dirname "$0")/mm-io.sh"
try IOMMU intel_iommu=on -device intel-iommu,aw-bits=48,intremap=off
try bounced swiotlb=force
done_testing
