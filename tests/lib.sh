# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# For the tests: TAP, and what they have in common.  A test is a file that states
# one property, runs alone (tests/NAME.t) or by prove, and starts with
#	. "$(dirname "$0")/lib.sh"
# It has $TOP, the project, and $T, a directory of its own that is removed at its end.
set -u

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
T=$(mktemp -d)
tap_n=0 tap_bad=0 tap_done=
trap tap_exit EXIT

tap_exit() {
	local status=$?
	rm -rf "$T"
	# A test that stops early must not pass
	[ "$tap_done" ] || { echo "Bail out! $0 ended early (status $status)"; exit 1; }
}

pass() { tap_n=$((tap_n + 1)); echo "ok $tap_n - $1"; }
fail() { tap_n=$((tap_n + 1)); tap_bad=$((tap_bad + 1)); echo "not ok $tap_n - $1"; }
skip() { tap_n=$((tap_n + 1)); echo "ok $tap_n - $1 # SKIP $2"; }
# On stderr where it tells of a failure: that prove shows
diag() { sed 's/^/# /'; }
skip_all() { echo "1..0 # SKIP $1"; tap_done=1; exit 0; }

done_testing() {
	echo "1..$tap_n"
	tap_done=1
	exit $((tap_bad > 0))
}

# ok WHAT COMMAND...: it exits with 0
ok() {
	local what=$1 status=0
	shift
	"$@" >"$T/.out" 2>&1 || status=$?
	if [ $status = 0 ]; then pass "$what"; else
		fail "$what"
		{ echo "$* exited with $status"; cat "$T/.out"; } | diag >&2
	fi
}

# is WHAT GOT WANTED
is() {
	if [ "$2" = "$3" ]; then pass "$1"; else
		fail "$1"
		printf '     got: %s\n  wanted: %s\n' "$2" "$3" | diag >&2
	fi
}

# like WHAT GOT REGEX
like() {
	if printf '%s\n' "$2" | grep -Eq -- "$3"; then pass "$1"; else
		fail "$1"
		printf '     got: %s\n  wanted: %s\n' "$2" "$3" | diag >&2
	fi
}

# refused WHAT REGEX COMMAND...: it fails, with one line that matches
refused() {
	local what=$1 re=$2 status=0
	shift 2
	"$@" >"$T/.out" 2>&1 || status=$?
	if [ $status != 0 ] && [ "$(wc -l <"$T/.out")" = 1 ] && grep -Eq -- "$re" "$T/.out"; then
		pass "$what"
	else
		fail "$what"
		{ echo "$* exited with $status; wanted one line: $re"; cat "$T/.out"; } | diag >&2
	fi
}

# need FILE...: what 'make build' makes; without it there is nothing to test
need() {
	local f
	for f; do
		[ -e "$TOP/$f" ] || { echo "Bail out! $f isn't there: run 'make build'"; tap_done=1; exit 1; }
	done
}

# guest [vm/boot's options] -- COMMAND: runs it in a guest, whose kernel is $KERNEL if that is set
guest() {
	local opts=()
	[ -z "${KERNEL:-}" ] || opts=(--kernel "$KERNEL")
	while [ "$1" != -- ]; do opts+=("$1"); shift; done
	shift
	"$TOP/vm/boot" "${opts[@]}" --exec "$*"
}

# ram MIB: so many for the kernel that is tested, more for one with debugging aids
ram() { [ -z "${KERNEL:-}" ] && echo "$1" || echo $(($1 + 1536)); }

# said WHAT: what comes after it on lines of $T/said, where a test has put a guest's output
said() { sed -n "s/^$1 //p" "$T/said"; }
