#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Packages: each is programmed by whichever CPU of it is there, one that comes
# later gets all live keys or stays offline, none is left with keys and no CPU.
. "$(dirname "$0")/lib.sh"
kernel=${KERNEL:-$TOP/build/linux/out/vmlinux}
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64

common='
cpu=/sys/devices/system/cpu
slots() { host qmp query-mktme | grep -o "\"keyid\"" | wc -l; }
in_use() { cat /sys/kernel/mm/mktme/keyids_in_use; }
# KeyIDs come back a moment later
all_back() { for i in $(seq 100); do [ "$(in_use)" = 0 ] && break; sleep 0.1; done; }
add() { keyctl add mktme $1 "${2:-type=cpu algorithm=aes-xts-128}" @u 2>&1 >/dev/null | sed "s/.*: //"; }
USER="type=user algorithm=aes-xts-128 key=000102030405060708090a0b0c0d0e0f tweak=101112131415161718191a1b1c1d1e1f"
'
in_guest() { # OPTIONS... -- COMMAND
	guest "$@" 2>"$T/e" || diag <"$T/e"
}

for s in 1 2 4; do
	is "$s packages: all programmed, all cleared" "$(in_guest --sockets "$s" --smp "$s" -- "$common"'
		add a; echo $(in_use) $(slots); keyctl clear @u; all_back; echo $(in_use) $(slots)' | tr '\n' ' ')" "1 $s 0 0 "
done

out=$(in_guest --sockets 2 --smp 4 -- "$common"'
	add a
	for gone in 1 2 3; do
		echo 0 >$cpu/cpu$gone/online; add b$gone; echo "without $gone: $(slots)"
		echo 1 >$cpu/cpu$gone/online
	done
	echo 0 >$cpu/cpu2/online
	(echo 0 >$cpu/cpu3/online) 2>&1 | sed "s/.*: /last: /"
	keyctl clear @u; all_back
	echo "cleared: $(in_use) $(slots)"
	echo 0 >$cpu/cpu3/online; echo "no keys, last: $?"
	echo "a package is away: $(add c)"
	echo 1 >$cpu/cpu2/online
	echo "back: $(add d) $(slots)"
	dmesg | grep -o "x86/mktme: .*"')
like "by the CPU that is left of a package" "$out" '^without 1: 4$'
like "without the one that programmed the other" "$out" '^without 2: 6$'
like "by whichever" "$out" '^without 3: 8$'
like "the last CPU of a package stays while there are keys" "$out" '^last: Device or resource busy$'
like "with a message" "$out" 'CPU 3 stays online: the last of its package'
like "cleared by whichever is there" "$out" '^cleared: 0 0$'
like "without keys it may go" "$out" '^no keys, last: 0$'
like "no keys while memory is out of reach" "$out" '^a package is away: Operation not supported$'
like "with a message" "$out" 'no keys: node 1 has memory, but no CPU'
like "keys when it is back" "$out" '^back:  2$'

# A package without memory, that keys do not wait for
late() { # PARAMS COMMANDS
	"$TOP/vm/boot" --kernel "$kernel" --smp 1 --append "maxcpus=1 $1" --exec "$common$2; echo \"before: \$(slots)\"
		echo 1 >\$cpu/cpu1/online; echo \"online: \$(cat \$cpu/online)\"
		echo \"after: \$(slots)\"; dmesg | grep -o 'x86/mktme: .*'" -- -smp 2,sockets=2,cores=1,threads=1 -object memory-backend-ram,id=r0,size=1G \
		-numa node,nodeid=0,memdev=r0,cpus=0 -numa node,nodeid=1,cpus=1 2>"$T/e" || diag <"$T/e"
}
out=$(late '' 'add a; add n type=no-encrypt')
like "a package that comes later" "$out" '^before: 2$'
like "gets all keys" "$out" '^after: 4$'
out=$(late '' 'add a; add u "$USER"')
like "without its material" "$out" '^online: 0$'
like "with a message" "$out" 'CPU 1 stays offline: its package lacks the key of KeyID 2'
like "and has no other key either" "$out" '^after: 2$'
out=$(late mktme_storekeys 'add a; add u "$USER"')
like "with mktme_storekeys it comes" "$out" '^after: 4$'
out=$(late '' 'add a; host qmp x-mktme-inject-failure "{\"failure\":\"entropy-error\",\"package\":1,\"count\":100000}"')
like "one that can't be programmed stays away" "$out" '^online: 0$'

# Nodes that are not packages: whose memory is whose nobody can tell
out=$(in_guest --sockets 2 --append "maxcpus=1 numa=off" -- "$common"'
	echo "one: $(add a)"
	echo 1 >$cpu/cpu1/online
	echo "both: $(add b) $(slots)"
	echo 0 >$cpu/cpu1/online; echo "gone: $(cat $cpu/online)"
	dmesg | grep -o "x86/mktme: .*"')
like "no keys while a package has no CPU, and nodes do not tell its memory" "$out" '^one: Operation not supported$'
like "with a message" "$out" 'no keys: nodes are not packages'
like "keys when it has" "$out" '^both:  2$'
like "which it keeps" "$out" '^gone: 0-1$'
done_testing
