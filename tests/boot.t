#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# vm/boot --exec: the command's output and status come out as they are, what was
# asked for is in the guest, and a guest that dies or warns is a failure.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64

status() { "$@" >"$T/o" 2>"$T/e"; echo $?; }

for s in 0 1 125 255; do
	is "exit status $s" "$(status guest -- "exit $s")" $s
done
is "killed by a signal" "$(status guest -- 'kill -9 $$')" 137

head -c 300000 /dev/urandom >"$T/bytes"
guest --add "$T/bytes:/some/dir/bytes" -- 'cat /some/dir/bytes; echo problem >&2; echo too >/dev/stderr' >"$T/o" 2>"$T/e"
ok "stdout is the command's, byte for byte" cmp "$T/o" "$T/bytes"
is "stderr is the command's alone" "$(cat "$T/e")" $'problem\ntoo'
is "a command that leaves something behind ends all the same" "$(guest -- 'sleep 1000 & echo done')" "done"

mkdir -p "$T/d/sub"; echo inside >"$T/d/sub/f"; ln -s sub/f "$T/d/link"
is "--add of a directory, with a link" "$(guest --add "$T/d:/d" -- 'cat /d/link')" inside
is "--add of a program with its libraries" \
	"$(guest --add /usr/bin/openssl -- 'echo -n abc | openssl dgst -sha256 -provider default' | sed 's/.*= //')" \
	ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad

like "--sockets, --smp, --memory, --append" \
	"$(guest --sockets 2 --smp 4 --memory 512M --append 'hello=world' -- '
		sort -u /sys/devices/system/cpu/cpu*/topology/physical_package_id | wc -l
		nproc; ls -d /sys/devices/system/node/node* | wc -l; cat /proc/cmdline' | tr '\n' ' ')" \
	'^2 4 2 .*hello=world'
like "what a guest has" "$(guest -- '
	mount | cut -d" " -f3 | tr "\n" " "; ip addr show lo | grep -c LOOPBACK,UP
	keyctl add user a b @s >/dev/null && keyctl print %user:a')" '/proc .*/sys/fs/cgroup .*/sys/kernel/tracing '
is "two at once" "$(guest -- 'sleep 1; echo a' & guest -- 'sleep 1; echo a'; wait)" $'a\na'
like "--keyid-bits" "$(guest --keyid-bits 4 --verbose -- true 2>&1)" 'mktme.* 15 KeyIDs'
is "--no-mktme" "$(guest --no-mktme --verbose -- 'ls /sys/kernel/mm' 2>&1 | grep -ci '^mktme$')" 0
like "extra QEMU options" "$("$TOP/vm/boot" --exec 'ls /sys/bus/pci/drivers/nvme' -- \
	-drive file=/dev/null,if=none,id=d,format=raw -device virtio-balloon-pci 2>&1; "$TOP/vm/boot" --print -- -foo)" '-foo$'

# Failures
failure() { # WHAT STATUS REGEX OPTIONS... -- COMMAND
	local what=$1 want=$2 re=$3
	shift 3
	is "$what: status" "$(status guest "$@")" "$want"
	like "$what: one line tells" "$(tail -1 "$T/e")" "$re"
}
failure "a panic" 125 'vm/boot: the guest.s kernel says: .*(sysrq|Kernel panic)' -- 'echo c >/proc/sysrq-trigger'
failure "a hang" 124 'had not ended after 8 s' --timeout 8 -- 'sleep 1000'
failure "a guest that goes off" 125 'before the command did' -- 'poweroff -f; sleep 10'
failure "a kernel that warns" 125 'kernel says: WARNING: ' -- 'echo "WARNING: CPU: 0 PID: 1 at here" >/dev/kmsg'
failure "a rule for caches that is broken" 125 'caches were not written back .*: [1-9][0-9]* violations' --cache strict -- '/tests/views; exit 0'
failure "QEMU's own refusal" 125 'QEMU ended with status 1' --keyid-bits 99 -- true
refused "--add of nothing" 'no such file' "$TOP/vm/boot" --add "$T/nothing" --exec true
refused "--add to where the guest mounts something" 'another path' "$TOP/vm/boot" --add /bin/true:/tmp/true --exec true
refused "an uneven --smp" "can't be shared evenly" "$TOP/vm/boot" --sockets 2 --smp 3 --exec true
refused "a kernel that isn't there" "no such file" "$TOP/vm/boot" --kernel "$T/none" --exec true

TMPDIR=$T "$TOP/vm/boot" --exec 'echo up; sleep 1000' >"$T/o" 2>/dev/null &
pid=$!
until grep -q up "$T/o" || ! kill -0 $pid; do sleep 0.2; done
qemu=$(pgrep -P $pid)
kill -INT $pid; wait $pid
is "interrupted, it leaves no QEMU" "$(ps -o pid= -p "$qemu")" ""
is "and no files" "$(find "$T" -name 'vm-*')" ""
done_testing
