#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The KUnit suites by the kernel's own tool, kunit.py, with the QEMU built here.
# Not part of "make test": "make kunit-check" builds a kernel of its own for it.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
need build/linux/src/tools/testing/kunit/kunit.py build/qemu/out/qemu-system-x86_64

# kunit WHAT OPTIONS...: its output into $T/o
kunit() {
	local what=$1 status=0
	shift
	PATH=$TOP/build/qemu/out:$PATH "$TOP/build/linux/src/tools/testing/kunit/kunit.py" run \
		--arch x86_64 --kunitconfig "$TOP/build/linux/src/arch/x86/mm/.kunitconfig" \
		--build_dir "$TOP/build/linux/out-kunit" --jobs "${JOBS:-$(nproc)}" \
		--qemu_args "-L /usr/share/seabios -L /usr/share/qemu" "$@" >"$T/o" 2>&1 || status=$?
	is "$what: kunit.py's exit status" $status 0
	[ $status = 0 ] || tail -40 "$T/o" | diag >&2
}

kunit 'with MKTME' --qemu_args \
	'-cpu max,phys-bits=46 -object x86-mktme,id=m,cache=strict -machine q35,mktme=m'
for suite in mktme mktme_keys; do
	like "suite $suite passed" "$(cat "$T/o")" "\\[PASSED\\] $suite "
done
like 'nothing was skipped' "$(cat "$T/o")" 'Testing complete. Ran [1-9][0-9]* tests: passed: [1-9][0-9]*$'
kunit 'without'
like 'all is skipped' "$(cat "$T/o")" 'Testing complete. Ran [1-9][0-9]* tests: skipped: [1-9][0-9]*$'
done_testing
