#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What is to be seen of keys from outside: the events of the trace system mktme, in
# their order, and the files of /sys/kernel/mm/mktme/, each described in the ABI's
# documentation, those of each KeyID for root alone.
. "$(dirname "$0")/lib.sh"
abi=$TOP/build/linux/src/Documentation/ABI/testing/sysfs-kernel-mm-mktme
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/usekey

cat >"$T/script" <<'GUEST'
mm=/sys/kernel/mm/mktme
falls_to() { for i in $(seq 300); do [ "$(cat $mm/keyids_in_use)" = $1 ] && break; sleep 0.1; done; }
fail() { host qmp x-mktme-inject-failure "{\"failure\":\"$1\",\"package\":$2,\"count\":$3}" >/dev/null; }
# As a step: KeyIDs come back a moment later
cat >/tmp/one <<'END'
for i in $(seq 300); do [ "$(cat /sys/kernel/mm/mktme/keyids_in_use)" = 1 ] && break; sleep 0.1; done
END
echo 1 >/sys/kernel/tracing/events/mktme/enable
k=$(keyctl add mktme k "type=cpu algorithm=aes-xts-128" @u)
usekey $k "keyctl update $k type=no-encrypt; sh /tmp/one" "cd $mm
	grep . keyids_total keyids_in_use algorithms encrypted_bytes keyids/*/bytes
	asuser 1000 cat keyids_total encrypted_bytes
	asuser 1000 cat keyids/2/bytes 2>&1 | sed 's/.*: //'
	(find . -type f; find keyids -type d | sed 1d) | sed 's/^\.\///; s/keyids\/[0-9]*/keyids\/<N>/; /keyids.<N>$/s/$/\//' | sort -u | sed 's/^/file /'
	keyctl update $k erase >/dev/null" >/tmp/out
falls_to 0
fail device-busy 1 100000; keyctl add mktme b "type=cpu algorithm=aes-xts-256" @u; fail device-busy 1 0
grep -v '^used\|^kept\|^sigbus' /tmp/out
sed -n 's/.* \(mktme_[a-z]*: .*\)/trace \1/p' /sys/kernel/tracing/trace | sed 's/start=[^ ]*/start=X/'
ls $mm/keyids | wc -l
GUEST
guest --cache strict --sockets 2 --add "$T/script:/script" -- 'sh /script' >"$T/o" 2>"$T/e" || diag <"$T/e"
is "the events, of making, using, rotating and erasing a key, and of one that fails" "$(sed -n 's/^trace mktme_//p' "$T/o")" \
"reserve: keyid=1
program: keyid=1 cpu=0 type=cpu ret=0
program: keyid=1 cpu=1 type=cpu ret=0
encrypt: start=X len=0x8000 keyid=1
reserve: keyid=2
program: keyid=2 cpu=0 type=no-encrypt ret=0
program: keyid=2 cpu=1 type=no-encrypt ret=0
clear: keyid=1 cleared=1
release: keyid=1
program: keyid=2 cpu=0 type=cpu ret=0
program: keyid=2 cpu=1 type=cpu ret=0
erase: keyid=2 pages=8 ret=0
clear: keyid=2 cleared=1
release: keyid=2
reserve: keyid=1
program: keyid=1 cpu=0 type=cpu ret=0
program: keyid=1 cpu=1 type=cpu ret=-16
clear: keyid=1 cleared=1
release: keyid=1"
is "the files" "$(grep -v '^trace\|^file' "$T/o")" "keyids_total:63
keyids_in_use:1
algorithms:aes-xts-128 aes-xts-256
encrypted_bytes:32768
keyids/2/bytes:32768
63
32768
Permission denied
0"
is "each is described" "$(sed -n 's/^file //p' "$T/o")" \
	"$(sed -n 's/^What:.*\/mktme\/\(.\)/\1/p' "$abi" | LC_ALL=C sort)"
done_testing
