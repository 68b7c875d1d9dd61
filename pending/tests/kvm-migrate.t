#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A guest under a key is saved to a file while it writes (dirty logging), and goes
# on in a QEMU with another key. The stream is plaintext, as documented.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/secret build/guest/tests/qmp
pages=256
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
touch /tmp/stop; while [ -d /proc/$writer ]; do usleep 10000; done; n=0;
for s in /tmp/*.sum; do
	[ "$(sha256sum <${s%.sum})" = "$(cat $s)" ] || echo bad $s;
	n=$((n + 1));
done;
echo "summed $((n > 0))"
EOF
cat >"$T/script" <<'EOF'
. /inner/lib.sh
set -e
state() { qmp "/run/$1.qmp" query-migrate | grep -o '"status": "[a-z]*"' | tail -n 1; }

start a $(keyed)
keep a $pages >/dev/null
say a "{ $(tr '\n' ' ' </writer); } & writer=\$!"
qmp /run/a.qmp migrate '{"uri": "file:/tmp/state"}' >/dev/null
until state a | grep -qE 'completed|failed'; do usleep 100000; done
echo "saved $(state a)"
qmp /run/a.qmp query-migrate >&2
qmp /run/a.qmp quit >/dev/null || :
wait $(cat /run/a.pid)
until [ "$(cat /sys/kernel/mm/mktme/keyids_in_use)" = 0 ]; do usleep 50000; done

launch b $(keyed key-type=cpu,algorithm=aes-xts-256) -incoming file:/tmp/state
until [ -S /run/b.qmp ] && qmp /run/b.qmp query-status | grep -q '"status": "running"'; do usleep 50000; done
echo "kept $(kept b)"
say b "$(tr '\n' ' ' </check)"
stop b
base64 /tmp/state >/run/port/host.none 2>/dev/null || :
EOF
guest --memory 768M --smp 1 --cache strict --add "$T/inner:/inner" --add "$T/script:/script" \
	--add "$T/writer:/writer" --add "$T/check:/check" -- "pages=$pages sh /script" >"$T/said" 2>"$T/err"
is "the guest's part" "$?" 0
[ ! -s "$T/err" ] || diag <"$T/err"
said() { sed -n "s/^$1 //p" "$T/said"; }
is "saved to a file" "$(said saved)" '"status": "completed"'
is "what it kept is there with the other key" "$(said kept)" "0 words differ"
is "and all that it wrote meanwhile" "$(said summed)$(said bad)" "1"
done_testing
