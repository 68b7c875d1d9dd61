#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Many threads make, use, rotate, erase and drop keys at random, and KeyIDs run out all
# the time: memory is what was written to it or erased, what sysfs, /proc/keys and the
# cgroup say is what the emulator has, on each package, and in the end nothing is left.
# SOAK=SECONDS runs it for longer than the 30 that are enough to see it all.
. "$(dirname "$0")/lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/keysoak
seconds=${SOAK:-30}

cat >"$T/compare" <<'GUEST'
# What the kernel has in use, and what the emulator has programmed, on each of 2 packages
mm=/sys/kernel/mm/mktme
kernel() { ls $mm/keyids | sort -n; }
# {"keyid": 1, "state": "aes-xts-128", ...: a line each
emulator() { host qmp query-mktme | tr '{}' '\n\n' | sed -n 's/.*"keyid": \([0-9]*\).*/\1/p' | sort -n; }
state() { host qmp query-mktme | tr '{}' '\n\n' | grep "\"keyid\": $1\>" | sed 's/.*"state": "\([^"]*\)".*/\1/' | sort -u; }
counts() { echo "$(kernel | wc -l) $(cat $mm/keyids_in_use) $(sed -n 's/^mktme //p' /sys/fs/cgroup/misc.current)"; }
agree() {
	k=$(kernel) e=$(emulator) c=$(counts)
	why="differ: kernel $k; emulator $e; counts $c"
	[ "$e" = "$(for n in $k; do echo "$n"; echo "$n"; done)" ] && set -- $c && [ "$1 $2" = "$2 $3" ] || return
	# What each key is said to be, it is
	sed -n 's/.* mktme .*: \(.*\) KeyID \([0-9]*\)$/\2 \1/p' /proc/keys >/tmp/keys
	while read -r id type alg; do
		is=$(state "$id")
		why="KeyID $id is $is, not $type $alg"
		[ "$is" = "${alg:-$type}" ] || return
	done </tmp/keys
	sum=$(cat $mm/keyids/*/bytes 2>/dev/null | awk '{ s += $1 } END { print s + 0 }')
	all=$(cat $mm/encrypted_bytes)
	why="bytes: $sum, of all $all, $(grep Encrypted /proc/meminfo)"
	[ "$sum" = "$all" ] && [ "$(sed -n 's/^Encrypted: *\([0-9]*\) kB/\1/p' /proc/meminfo)" = $((all >> 10)) ]
}
# Some are on their way back, so that what is asked one after the other may differ
for i in $(seq 300); do
	agree && { echo "agree: $c, $(wc -l </tmp/keys) keys, $all bytes"; exit 0; }
	sleep 0.1
done
echo "$why"
exit 1
GUEST
# 31 KeyIDs; keys that have expired are collected at once
guest --kernel "$kernel" --cache strict --sockets 2 --keyid-bits 5 --timeout $((seconds * 10 + 600)) \
	--add "$T/compare:/compare" -- "echo 0 >/proc/sys/kernel/keys/gc_delay
	keysoak $seconds 'sh /compare'; echo \"status \$?\"
	in_use() { cat /sys/kernel/mm/mktme/keyids_in_use; }
	for i in \$(seq 300); do [ \"\$(in_use)\" = 0 ] && break; sleep 0.1; done
	echo \"end: \$(in_use) \$(cat /sys/kernel/mm/mktme/encrypted_bytes) \$(host qmp query-mktme | grep -c keyid\\\")\"
	grep Encrypted /proc/meminfo" >"$T/o" 2>"$T/e" || :
out=$(cat "$T/o")
if grep -q '^status 0$' "$T/o"; then diag <"$T/o"; else cat "$T/e" "$T/o" | diag >&2; fi
like "keysoak found nothing wrong" "$out" '^status 0$'
like "KeyIDs ran out" "$out" '^keys: .* full [1-9]'
like "keys were made, used, rotated, erased and dropped" "$out" \
	'^keys: made [1-9][0-9]+ .* used [1-9][0-9]+ rotated [1-9][0-9]* erased [1-9][0-9]* dropped [1-9][0-9]*'
like "with keys in use, kernel and emulator agreed" "$out" '^agree: [1-9][0-9]* [1-9]'
is "each time" "$(grep -c '^differ\|^KeyID\|^bytes' "$T/o")" 0
like "in the end no KeyID and no byte is in use, nor programmed" "$out" '^end: 0 0 0$'
like "nor in meminfo" "$out" '^Encrypted: +0 kB$'
done_testing
