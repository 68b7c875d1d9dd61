#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Memory under a key costs the emulator nothing once it is in view.  Counted, not timed:
# switches of views while a program works in it, and stores to it that QEMU has to look at.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/viewcost

# shellcheck disable=SC2016
switches='n() { host qmp query-mktme | sed "s/.*\"view-switches\": \([0-9]*\).*/\1/"; }; n'
for cache in off strict; do
	out=$(guest --cache $cache --smp 1 -- "cat >/n <<'E'
$switches
E
		/tests/viewcost work 'sh /n'" 2>"$T/err")
	is "cache=$cache: the guest's part" "$? $(cat "$T/err")" "0 "
	{ read -r before && read -r after; } <<<"$out" || before=0 after=
	if [ "$before" -ge 2048 ]; then
		pass "cache=$cache: 8 MiB came into view ($before switches)"
	else
		fail "cache=$cache: 8 MiB came into view (switches: $out)"
	fi
	is "cache=$cache: and then stays there" "$after" "$before"
done

# slow MKTME-PROPERTIES: how many of 300000 stores to two lines of a page QEMU looked at
slow() {
	guest --smp 1 --mktme "$1" -- "cat >/t <<'E'
v=true; [ \$1 = 0 ] || v=false
host qmp trace-event-set-state '{\"name\": \"memory_notdirty_write_access\", \"enable\": '\$v'}'
E
		/tests/viewcost hot 'sh /t'" 2>"$T/trace" >"$T/out" || { tail -n 5 "$T/trace" | diag; return 1; }
	grep -c memory_notdirty_write_access "$T/trace"
}
n=$(slow cache=off)
if [ "$n" -lt 300 ]; then
	pass "with cache=off QEMU looks at no store ($n seen)"
else
	fail "with cache=off QEMU looks at no store ($n seen)"
fi
n=$(slow cache-exact=off)
if [ "$n" -gt 0 ] && [ "$n" -lt 75000 ]; then
	pass "a page that is stored to often gets the fast path ($n seen)"
else
	fail "a page that is stored to often gets the fast path ($n seen)"
fi
n=$(slow cache-exact=on)
if [ "$n" -ge 300000 ]; then
	pass "not so with cache-exact=on ($n seen)"
else
	fail "not so with cache-exact=on ($n seen)"
fi
done_testing
