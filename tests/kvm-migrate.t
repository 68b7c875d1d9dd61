#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A guest under a key is saved to a file while it writes (dirty logging), and goes
# on in a QEMU with another key. The stream is plaintext, as documented.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/secret build/guest/tests/qmp
"$TOP/vm/inner.py" "$T/inner" || exit 1

# For the guest's shell, which takes a line
cat >"$T/writer" <<'EOF'
i=0;
while [ ! -e /tmp/stop ]; do
	i=$((i + 1)); f=/tmp/f$((i % 20));
	dd if=/dev/urandom of=/tmp/new bs=64k count=4 2>/dev/null;
	sha256sum </tmp/new >/tmp/sum;
	rm -f $f.sum; mv /tmp/new $f; mv /tmp/sum $f.sum;
done
EOF
cat >"$T/check" <<'EOF'
touch /tmp/stop; wait $writer; n=0;
for s in /tmp/*.sum; do
	[ "$(sha256sum <${s%.sum})" = "$(cat $s)" ] || echo bad $s;
	n=$((n + 1));
done;
echo "summed $((n > 0))"
EOF
cat >"$T/script" <<'EOF'
. /inner/lib.sh
set -e
pages=256
state() { qmp /run/a.qmp query-migrate | grep -o '"status": "[a-z]*"' | tail -n 1; }

start a $(keyed)
keep a $pages >/dev/null
say a "{ $(tr '\n' ' ' </writer); } & writer=\$!"
say a 'until [ -e /tmp/f3.sum ]; do usleep 10000; done'
qmp /run/a.qmp migrate '{"uri": "file:/tmp/state"}' >/dev/null
until state | grep -qE 'completed|failed'; do usleep 100000; done
echo "saved $(state)"
stop a
echo "plain $(/tests/secret count $pages /tmp/state)"
until [ "$(cat /sys/kernel/mm/mktme/keyids_in_use)" = 0 ]; do usleep 50000; done

launch b $(keyed source=cpu,algorithm=aes-xts-256) -incoming file:/tmp/state
until qmp /run/b.qmp query-status 2>/dev/null | grep -q '"status": "running"'; do usleep 100000; done
echo "used $(cat /sys/kernel/mm/mktme/keyids_in_use)"
echo "under-it $(($(cat /sys/kernel/mm/mktme/keyids/*/bytes) > 16 << 20))"
echo "kept $(kept b)"
say b "$(tr '\n' ' ' </check)"
stop b
EOF
guest --memory "$(ram 512)M" --smp 1 --cache strict --add "$T/inner:/inner" --add "$T/script:/script" \
	--add "$T/writer:/writer" --add "$T/check:/check" -- "sh /script" >"$T/said" 2>"$T/err"
is "the guest's part" "$?" 0
[ ! -s "$T/err" ] || diag <"$T/err" >&2
is "saved to a file" "$(said saved)" '"status": "completed"'
is "which has its memory in plaintext" "$(said plain)" 256
is "the other QEMU has a key" "$(said used)" 1
is "and its memory is under it" "$(said under-it)" 1
is "what it kept is there with that key" "$(said kept)" "0 words differ"
is "and all that it wrote meanwhile" "$(said summed)$(said bad)" "1"
done_testing
