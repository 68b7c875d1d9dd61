#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's selftests are built and run as those of Linux are, by
# make -C tools/testing/selftests TARGETS=x86/mktme, without a warning; and where there is
# no MKTME they are skipped.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
need build/linux/headers/include/linux/mktme.h build/guest/tests/selftests
dir=$TOP/build/linux/src/tools/testing/selftests

kselftest() {
	make -C "$dir" TARGETS=x86/mktme O="$T/out" KHDR_INCLUDES="-isystem $TOP/build/linux/headers/include" "$@"
}
kselftest >"$T/log" 2>&1
is "make" $? 0
is "without a warning" "$(grep -E 'warning|error' "$T/log")" ""
made=$(cd "$T/out/kselftest/x86/mktme" && printf '%s\n' * | sort)
is "the programs that selftests.t runs in guests" "$made" "$(cd "$TOP/build/guest/tests/selftests" && printf '%s\n' * | sort)"
is "git ignores each of them" "$made" "$(grep -v '^#' "$dir/x86/mktme/.gitignore" | sort)"
is "and the target is named in the Makefile of all" "$(grep -cx 'TARGETS += x86/mktme' "$dir/Makefile")" 1

if [ ! -d /sys/kernel/mm/mktme ]; then
	kselftest run_tests >"$T/run" 2>&1
	is "make run_tests, here without MKTME" $? 0
	is "all are run, and none fails" "$(grep -c '^ok ' "$T/run") $(grep -c '^not ok' "$T/run")" "$(wc -l <<<"$made") 0"
	like "tests are skipped" "$(cat "$T/run")" '# ok .* # SKIP no MKTME here'
	is "all for that" "$(grep '# ok ' "$T/run" | grep -v '# SKIP no MKTME here')" ""
fi

# Another compiler has other warnings; one for another machine makes nothing
if command -v clang >/dev/null; then
	kselftest LLVM=1 clean all >"$T/log" 2>&1
	is "make LLVM=1" $? 0
	is "without a warning" "$(grep -E 'warning|error' "$T/log")" ""
fi
kselftest CC=false O="$T/none" >"$T/log" 2>&1
is "a compiler that is not for x86-64: nothing is made" "$? $(find "$T/none" -type f 2>/dev/null | wc -l)" "0 0"
done_testing
