#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's documentation of it is made without a warning (make htmldocs, kernel-doc),
# and is linked from where one looks. Not part of "make test": "make docs-check" installs
# what it needs, and runs it.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
need build/linux/src/Makefile
src=$TOP/build/linux/src out=$TOP/build/linux/out-docs

make -C "$src" O="$out" SPHINXDIRS=arch/x86/mktme htmldocs >"$T/log" 2>&1
is "make htmldocs" $? 0
# Of that directory alone: what it links to elsewhere is not there
is "without a warning" "$(grep -E 'WARNING|ERROR' "$T/log")" ""
cp "$T/log" "$TOP/build/log/docs.log" 2>/dev/null
for page in index overview keys encrypt_mprotect security admin emulator; do
	ok "$page.html" test -s "$out/Documentation/output/arch/x86/mktme/$page.html" -o \
		-s "$out/Documentation/output/mktme/$page.html"
done
like "the index of arch/x86 has it" "$(cat "$src/Documentation/arch/x86/index.rst")" '^ +mktme/index$'

mapfile -t files < <(sed 's/^[^ ]*//' "$TOP/linux/patches/series" | tr ' ' '\n' | grep '\.[ch]$' | grep -v '^tools/')
is "kernel-doc: no warning in new files" \
	"$(cd "$src" && perl scripts/kernel-doc -none -Wall "${files[@]}" 2>&1)" ""
is "the ABI file is well-formed" \
	"$(cd "$src" && perl scripts/get_abi.pl validate --dir Documentation/ABI 2>&1 | grep mktme)" ""
done_testing
