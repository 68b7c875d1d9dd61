#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The test suite of Debian's package keyutils has the same outcome on the patched
# kernel, with MKTME and its key type, as on the stock one.  Not part of "make test":
# "make keyutils-check" builds what it needs, and runs it.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
stock=$TOP/build/linux/out-stock/vmlinux
need build/linux/out/vmlinux build/linux/out-stock/vmlinux build/qemu/out/qemu-system-x86_64 build/keyutils/keyctl

# What it calls beside bash, and busybox has not, or not as it wants it
mkdir "$T/bin"
printf '#!/bin/sh\necho Debian\n' >"$T/bin/lsb_release"
# Of a shell's executable, to know its endianness
printf '#!/bin/sh\necho "$2: ELF 64-bit LSB pie executable"\n' >"$T/bin/file"
chmod +x "$T"/bin/*
cp -r "$TOP/build/keyutils/tests" "$T/suite"
# For each test it makes strings of up to 4095 letters by as many echos: that takes
# longer than most of the tests do
sed -i 's/`for ((i=0; i<\(.*\); i++)); do echo -n a; done`/`printf %0*d \1 0 | tr 0 a`/' "$T/suite/toolbox.inc.sh"
is "there are no other of them" "$(grep -c "printf %0\*d" "$T/suite/toolbox.inc.sh") $(grep -c 'echo -n a; done' "$T/suite/toolbox.inc.sh")" "3 0"
# keyctl calls it otherwise: without this, the tests of "keyctl move" are skipped
sed -i 's/eval `keyctl supports`/&; have_move_keys=${have_move_key:-0}/' "$T/suite/prepare.inc.sh"
# See tools/keyutils
sed -i 's/keyctl --test limits2/keyctl-limits --test limits2/' "$T/suite/features/limits/runtest.sh"
add=(--add /bin/bash --add "$T/suite:/suite" --add "$T/bin:/usr/bin"
	--add "$TOP/build/keyutils/keyctl:/usr/bin/keyctl-limits")
for f in getconf nice; do add+=(--add "$(command -v $f):/usr/local/bin/$f"); done

# Every other test in each of two guests
part() { # OUT FIRST OPTIONS...: a line for each test: its name, and its status
	local out=$1 first=$2
	shift 2
	guest --smp 1 --timeout 3000 --log "$out.log" "${add[@]}" "$@" -- '
		export PATH=/usr/local/bin:$PATH
		ln -s /bin/bash /usr/bin/bash; cd /suite
		for t in $(find . -mindepth 2 -name runtest.sh | sed "s|^./||; s|/*runtest.sh||" | sort | awk "NR % 2 == '"$first"'"); do
			cd /suite/$t
			TEST=$t bash ./runtest.sh >/tmp/log 2>&1 </dev/null; s=$?
			[ $s = 0 ] && ! grep -q FAILED test.out || { s="$s, failed"; echo "## $t"; cat /tmp/log test.out; } >&2
			! grep -q SKIP /tmp/log test.out || s="$s, $(grep -h SKIP /tmp/log test.out | sed "s/$(printf "\033")\[[0-9]*m//g; s/^+* *//" | sort -u | tr "\n" ";")"
			echo "$t: $s"
		done' >"$out" 2>"$out.e" || echo "vm/boot: $?" >>"$out"
}
suite() { # OUT OPTIONS...
	local out=$1 start=$SECONDS
	shift
	part "$out.1" 1 "$@" &
	part "$out.2" 0 "$@"
	wait
	sort "$out.1" "$out.2" >"$out"
	echo "${out##*/}: $(grep -c ': 0' "$out") of $(wc -l <"$out") tests pass, in $((SECONDS - start)) s" | diag
	grep -v ': 0$' "$out" | diag
}
suite "$T/patched" --kernel "$kernel" --cache strict
suite "$T/stock" --kernel "$stock" --no-mktme
# The suite's own script is one of those that are found, in its top directory
is "the suite has run" "$(grep -c : "$T/patched")" "$(find "$T/suite" -mindepth 2 -name runtest.sh | wc -l)"
is "the outcome is the stock kernel's" "$(diff "$T/stock" "$T/patched")" ""
[ "$tap_bad" = 0 ] || cat "$T"/patched.?.e "$T"/stock.?.e | head -300 | diag
done_testing
