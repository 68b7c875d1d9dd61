#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# With -icount the emulator is deterministic: two runs of the same guest, which uses
# memory under keys, execute the same instructions and switch the same views at the same
# places, late write-backs of a rule breaker included.  On one CPU: with two, QEMU 10.2 as
# it comes ends turns at places that differ from run to run, without MKTME as well.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/views
. "$(dirname "$0")/executed.sh"

ok "an initramfs" python3 - "$TOP" "$T/initrd" <<'P'
import sys
sys.path.insert(0, sys.argv[1] + "/vm")
import initramfs
c = initramfs.Cpio()
c.file(sys.argv[1] + "/build/guest/tests/views", "init")
c.dir("dev")
c.dir("proc")
open(sys.argv[2], "wb").write(c.bytes())
P

run() { # NAME
	executed "$TOP/build/qemu/out/qemu-system-x86_64" -M q35,mktme=m -object x86-mktme,id=m,cache=strict \
		-cpu max,phys-bits=46 -smp 1 -m 512 -initrd "$T/initrd" -serial "file:$T/$1.console" \
		-trace 'mktme_*' -D "$T/$1.trace" -append 'console=ttyS0 panic=-1 quiet init=/init rdinit=/init'
}
one=$(run one)
two=$(run two)
like "a run was seen" "$one" "^executed [0-9]{8,} "
is "the same instructions" "$two" "$one"
is "the guest came to its end" "$(grep -ao 'views: done' "$T/one.console")" "views: done"
for event in mktme_program mktme_view mktme_violation mktme_late_write; do
	like "there was $event" "$(grep -c "^$event" "$T/one.trace")" "^[1-9]"
done
ok "the same trace" cmp "$T/one.trace" "$T/two.trace"
done_testing
