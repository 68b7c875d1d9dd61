#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The emulator does what the hardware page says: QEMU's own tests of it, in which a
# bare-metal guest breaks every rule once.
# tests/qemu-qtest.t [TEST...]: all but that of the host's keys, or these
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
tests=("$@")
if [ $# = 0 ]; then
	for f in "$top"/build/qemu/src/tests/qtest/mktme-*-test.c; do
		f=$(basename "$f" .c)
		[ "$f" = mktme-key-test ] || tests+=("$f")
	done
fi
cd "$top/build/qemu/out" 2>/dev/null || { echo "Bail out! QEMU is not built: run 'make build'"; exit 1; }
for t in "${tests[@]}"; do
	[ -x "tests/qtest/$t" ] || { echo "Bail out! $t is not built: run 'make build'"; exit 1; }
done

n=0 bad=0
for t in "${tests[@]}"; do
	planned=0 seen=0
	while IFS= read -r line; do
		case $line in
		1..*) planned=${line#1..} planned=${planned%% *} ;;
		"ok "* | "not ok "*)
			n=$((n + 1)) seen=$((seen + 1))
			[[ $line =~ ^((not )?ok)\ [0-9]+(.*)$ ]]
			[ "${BASH_REMATCH[1]}" = ok ] || bad=1
			echo "${BASH_REMATCH[1]} $n${BASH_REMATCH[3]}"
			;;
		"# starting QEMU"*) ;;
		"# "*) echo "$line" ;;
		esac
	done < <(QTEST_QEMU_BINARY=./qemu-system-x86_64 "./tests/qtest/$t" --tap -k 2>/dev/null)
	# One that dies, or has nothing to test, has not passed
	if [ "$seen" = 0 ] || [ "$seen" != "$planned" ]; then
		n=$((n + 1)) bad=1
		echo "not ok $n $t: $seen of $planned tests"
	fi
done
echo "1..$n"
exit $bad
