#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# PCONFIG that fails: retried with a bound, the other package rolled back, the
# KeyID free again; and what can't be cleared is never used again.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/usekey

guest --sockets 2 -- '
in_use() { cat /sys/kernel/mm/mktme/keyids_in_use; }
fail() { host qmp x-mktme-inject-failure "{\"failure\":\"$1\",\"package\":$2,\"count\":$3}" >/dev/null; }
# KeyIDs come back a moment later
all_back() { for i in $(seq 100); do [ "$(in_use)" = 0 ] && break; sleep 0.1; done; }
add() { keyctl add mktme "$1" "type=cpu algorithm=aes-xts-128" @u 2>&1 >/dev/null | sed "s/.*: //"; }
programmed() { host qmp query-mktme | grep -o "\"keyid\"" | wc -l; }
for f in device-busy entropy-error; do for p in 0 1; do
	fail $f $p 20; echo "$f $p passes: $(add passes) $(in_use)"
	keyctl clear @u; all_back
	fail $f $p 100000; echo "$f $p persists: $(add persists)/$(in_use)/$(programmed)"
	fail $f $p 0; echo "$f $p over: $(add over) $(in_use) $(programmed)"
	keyctl clear @u; all_back
done; done
echo "end: $(in_use) $(programmed)"
add lost; fail device-busy 1 100000; keyctl clear @u; sleep 3; fail device-busy 1 0
echo "lost: $(in_use)"
add other; keyctl show @u >/dev/null; grep -o "other: cpu.*" /proc/keys
k=$(keyctl search @u mktme other)
fail device-busy 0 100000; keyctl update $k erase; echo "erase refused: $?"
echo "its use: $(usekey $k)"
fail device-busy 0 0; keyctl update $k erase; echo "erase again: $?"
sleep 1; echo "erased: $(in_use) $(programmed)"
k=$(keyctl add mktme third "type=cpu algorithm=aes-xts-128" @u)
fail entropy-error 0 100; keyctl update $k erase; echo "erase without entropy: $?"
' >"$T/o" 2>"$T/e" || diag <"$T/e"
for f in "device-busy:Device or resource busy" "entropy-error:Resource temporarily unavailable"; do
	for p in 0 1; do
		n=${f%%:*}
		like "$n on package $p that passes" "$(cat "$T/o")" "^$n $p passes:  1$"
		like "$n on package $p that persists: an error, nothing in use, nothing programmed" \
			"$(cat "$T/o")" "^$n $p persists: ${f#*:}/0/0$"
		like "$n on package $p is over: on both" "$(cat "$T/o")" "^$n $p over:  1 2$"
	done
done
like "nothing is left" "$(cat "$T/o")" "^end: 0 0$"
like "a KeyID that can't be cleared is lost" "$(cat "$T/o")" "^lost: 1$"
like "and no key gets it" "$(cat "$T/o")" "^other: cpu aes-xts-128 KeyID 2$"
like "erase tells when a package refuses" "$(cat "$T/o")" "^erase refused: 1$"
like "nothing comes under the key then" "$(cat "$T/o")" "^its use: ENOKEY$"
like "and can be tried again" "$(cat "$T/o")" "^erase again: 0$"
like "which gives the KeyID back" "$(cat "$T/o")" "^erased: 1 1$"
like "erase without entropy clears the slot" "$(cat "$T/o")" "^erase without entropy: 0$"
done_testing
