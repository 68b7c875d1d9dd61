#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The test suite of Debian's package keyutils has the same outcome on the patched
# kernel, with MKTME and its key type, as on one without.
. "$(dirname "$0")/lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
# The unpatched kernel, or the patched one with the feature configured off
stock=$TOP/build/linux/out-stock/vmlinux
[ -e "$stock" ] || stock=$TOP/build/linux/out-off/vmlinux
need build/linux/out/vmlinux "${stock#"$TOP/"}" build/qemu/out/qemu-system-x86_64 build/keyutils/tests

# What it needs beside bash; the answer of lsb_release has no part in it
mkdir "$T/bin"
printf '#!/bin/sh\necho Debian\n' >"$T/bin/lsb_release"
printf '#!/bin/sh\necho "$2: ELF 64-bit LSB pie executable"\n' >"$T/bin/file"
chmod +x "$T"/bin/*
add=(--add /bin/bash --add "$TOP/build/keyutils/tests:/suite" --add "$T/bin:/usr/bin")
for f in getconf expr tail grep sed; do add+=(--add "$(command -v $f):/usr/bin/$f"); done

suite() { # OUT OPTIONS...: a line for each test: its name, and its status
	local out=$1
	shift
	guest "$@" "${add[@]}" -- '
		ln -s /bin/bash /usr/bin/bash; cd /suite
		for t in $(find . -name runtest.sh | sed "s|^./||; s|/*runtest.sh||" | sort); do
			[ "$t" ] || continue
			cd /suite/$t
			TEST=$t bash ./runtest.sh >/tmp/log 2>&1; s=$?
			grep -q SKIP /tmp/log test.out 2>/dev/null && s="$s, skips: $(grep -h "SKIP" /tmp/log | sed "s/\x1b[^m]*m//g; s/^+++ //" | sort -u | tr "\n" ";")"
			echo "$t: $s"
			[ $? = 0 ] && ! grep -q "FAILED" test.out || { echo "## $t"; cat test.out; } >&2
		done' >"$out" 2>"$out.e" || diag <"$out.e"
}
suite "$T/patched" --kernel "$kernel" --cache strict
suite "$T/stock" --kernel "$stock" --no-mktme
n=$(wc -l <"$T/patched")
diag <"$T/patched"
[ "$n" -gt 80 ] && pass "the suite has run ($n tests)" || fail "the suite has run ($n tests)"
is "the outcome is the stock kernel's" "$(diff "$T/stock" "$T/patched")" ""
is "none fails" "$(grep -v ': 0' "$T/patched")" ""
[ "$tap_bad" = 0 ] || diag <"$T/patched.e"
done_testing
