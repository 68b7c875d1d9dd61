#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The comparison of the kernel's selftests (tools/compare-table) tells of a result that
# is not the stock kernel's, whatever it is that differs, and only then.
. "$(dirname "$0")/lib.sh"

# results [SED'S COMMANDS FOR on.1]: three runs that are alike but for that
results() {
	rm -rf "$T/r"
	mkdir "$T/r"
	cat >"$T/r/stock.1" <<'E2'
=== mm 16 ./tap
1..3
ok 1 reads 4096 bytes at 0x7f00
ok 2 # SKIP no such device
not ok 3 is known to fail
=== exit 1
=== mm 16 ./says
took 12.5 ms
[PASS] all of it
=== exit 0
=== guest 0
E2
	cp "$T/r/stock.1" "$T/r/stock.2"
	cp "$T/r/stock.1" "$T/r/off.1"
	sed "${1:-}" "$T/r/stock.1" >"$T/r/on.1"
}
# compare: exit status and the last line
compare() {
	local status=0
	"$TOP/tools/compare-table" "$T/r" >"$T/o" 2>"$T/e" || status=$?
	echo "$status: $(tail -1 "$T/o")"
}
differs() { # WHAT TESTS SED: so many tests are different
	results "$3"
	is "$1" "$(compare)" "1: 2 tests: $((2 - $2)) the same, 0 that vary on the stock kernel, $2 different."
}

results
is "the same" "$(compare)" "0: 2 tests: 2 the same, 0 that vary on the stock kernel, 0 different."
results 's/12.5/99/; s/0x7f00/0x7e00/'
is "addresses and times may differ" "$(compare)" "0: 2 tests: 2 the same, 0 that vary on the stock kernel, 0 different."
differs "a subtest that fails" 1 's/^ok 1/not ok 1/'
like "is named, as it is" "$(cat "$T/e")" '^  only there: not ok 1 reads'
differs "one that passes, and failed" 1 's/^not ok 3/ok 3/'
differs "one that is skipped, and was not" 1 's/^ok 1 .*/ok 1 # SKIP too small/'
differs "one that is not skipped, and was" 1 's/^ok 2.*/ok 2 - is there/'
differs "one that is missing" 1 '/^ok 1/d'
differs "another exit status" 1 's/exit 1/exit 139/'
differs "one without TAP that fails" 1 's/PASS/FAIL/'
differs "a test that was not run" 1 '/says/,/exit 0/d'
results
sed -i 's/^not ok 3/ok 3/' "$T/r/stock.2"
is "what varies on the stock kernel may be either" "$(compare)" \
	"0: 2 tests: 1 the same, 1 that vary on the stock kernel, 0 different."
sed -i 's/^ok 1/not ok 1/' "$T/r/off.1"
is "but nothing else" "$(compare)" "1: 2 tests: 1 the same, 0 that vary on the stock kernel, 1 different."
results 's/guest 0/guest 1/'
like "a guest that failed" "$(compare)" '^1: .*a guest itself failed\.$'
done_testing
