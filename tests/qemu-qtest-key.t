#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Guest memory under a key of the host: what QEMU refuses, and by which words.
exec "$(dirname "$0")/qemu-qtest.t" mktme-key-test
