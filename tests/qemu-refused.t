#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Whoever would access RAM without going through QEMU is refused where the emulator keeps
# ciphertext in it, whichever is there first: another process, a host device, a dump.
. "$(dirname "$0")/lib.sh"
qemu=$TOP/build/qemu/out/qemu-system-x86_64
need build/qemu/out/qemu-system-x86_64

run() { # OPTION...: with and without MKTME the same
	timeout -k 1 20 "$qemu" -L /usr/share/qemu -L /usr/share/seabios -nodefaults -display none -S \
		-cpu max,phys-bits=46 -m 256 "$@" 2>&1
}
mktme=(-object "x86-mktme,id=m" -machine "q35,mktme=m")
# quits OPTION...: the same, for one that is not refused
quits() { run -monitor stdio "$@" <<<quit >"$T/out"; }

# denied WHAT WHO OPTION...: with MKTME it is, with that message
denied() {
	local what=$1 who=$2 out status=0
	shift 2
	out=$(run "${mktme[@]}" "$@" </dev/null) || status=$?
	is "$what: exit status" "$status" 1
	like "$what: message" "$out" "$who needs guest RAM as it is, but this machine.s memory is encrypted"
}

# A vhost-user backend that says what features it has, for as long as QEMU stays connected
cat >"$T/backend.py" <<'EOF2'
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(1)
while True:
    c = s.accept()[0]
    f = c.makefile("rwb")
    while len(h := f.read(12)) == 12:
        request, flags, size = struct.unpack("<III", h)
        f.read(size)
        if request == 1:    # GET_FEATURES: VIRTIO_F_VERSION_1
            f.write(struct.pack("<IIIQ", request, 5, 8, 1 << 32))
            f.flush()
EOF2
python3 "$T/backend.py" "$T/vhost" &
backend=$!
while [ ! -S "$T/vhost" ]; do sleep 0.1; done
c=(-chardev "socket,id=c,path=$T/vhost")

ok "control: a netdev without MKTME" quits -machine q35 "${c[@]}" -netdev vhost-user,id=n,chardev=c \
	-device virtio-net-pci,netdev=n,romfile=
denied "a netdev, which is there before the board" vhost "${c[@]}" -netdev vhost-user,id=n,chardev=c \
	-device virtio-net-pci,netdev=n,romfile=
for d in blk scsi fs,tag=t gpio i2c rng snd vsock; do
	denied "vhost-user-${d%,*}" vhost "${c[@]}" -object memory-backend-memfd,id=r,size=256M,share=on \
		-machine memory-backend=r -device "vhost-user-${d%,*}-pci,chardev=c${d#"${d%,*}"}"
done
denied "vhost-user-gpu" vhost "${c[@]}" -device vhost-user-gpu-pci,chardev=c
# Added later, it must not wait for another process either
out=$(run "${mktme[@]}" "${c[@]}" -qmp stdio <<<'
{"execute": "qmp_capabilities"}
{"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "n", "chardev": "c"}}
{"execute": "dump-guest-memory", "arguments": {"paging": false, "protocol": "file:/dev/null"}}
{"execute": "quit"}' | head -n 20)
like "a netdev that is added later" "$out" '"error": .*vhost needs guest RAM as it is'
like "a dump of guest memory" "$out" '"error": .*A dump of guest memory needs guest RAM as it is'
# Deleted before the board is there, it is in nobody's way
out=$(timeout -k 1 20 "$qemu" -L /usr/share/qemu -L /usr/share/seabios -nodefaults -display none -S --preconfig \
	-cpu max,phys-bits=46 -m 256 "${mktme[@]}" "${c[@]}" -netdev vhost-user,id=n,chardev=c -qmp stdio 2>&1 <<<'
{"execute": "qmp_capabilities"}
{"execute": "netdev_del", "arguments": {"id": "n"}}
{"execute": "x-exit-preconfig"}
{"execute": "query-status"}
{"execute": "quit"}')
status=$?
is "a netdev that is deleted in time" "$status $(grep -c '"error"' <<<"$out")" "0 0"
kill "$backend"

# On a host with /dev/vhost-net, say: it has to be refused before it is looked for, or there be none
for d in vhost-scsi-pci,wwpn=naa.5001405324af0985 vhost-vsock-pci,guest-cid=3; do
	if [ -e "/dev/${d%%-pci*}" ]; then denied "${d%%,*}" vhost -device "$d"; else
		skip "${d%%,*}" "the host has no /dev/${d%%-pci*}"
	fi
done
if [ -e /dev/vhost-net ] && [ -w /dev/net/tun ]; then
	denied "tap with vhost=on" vhost -netdev tap,id=n,vhost=on,script=no,downscript=no
else
	skip "tap with vhost=on" "the host has no /dev/vhost-net"
fi

# Under TCG it has no chance without MKTME either: it asks KVM for an irqfd
out=$(python3 - "$qemu" <<'EOF2'
import socket, subprocess, sys
a, b = socket.socketpair()
p = subprocess.run([sys.argv[1], "-L", "/usr/share/seabios", "-L", "/usr/share/qemu", "-nodefaults",
    "-display", "none", "-S", "-cpu", "max,phys-bits=46", "-object", "x86-mktme,id=m", "-machine", "q35,mktme=m",
    "-object", "memory-backend-memfd,id=r,size=256M,share=on", "-machine", "memory-backend=r", "-m", "256",
    "-device", f"x-pci-proxy-dev,id=p,fd={b.fileno()}"], pass_fds=[b.fileno()],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=20)
print(p.returncode, p.stderr.decode())
b.close()
print(len(a.recv(1)), "bytes sent")
EOF2
)
like "x-pci-proxy-dev" "$out" "^1 .*x-pci-proxy-dev needs guest RAM as it is, but this machine.s memory is encrypted"
like "it has told the other process nothing" "$out" "^0 bytes sent"

denied "blob resources of virtio-gpu" blob=on -device virtio-gpu-pci,blob=on,hostmem=0 \
	-object memory-backend-memfd,id=r,size=256M,share=on -machine memory-backend=r
# Any device will do, and any group: before it is opened
dev=$(find /sys/bus/pci/devices -mindepth 1 2>/dev/null | head -1)
if [ -e "$dev/iommu_group" ]; then
	denied "vfio-pci" VFIO -device "vfio-pci,sysfsdev=$dev"
else
	skip "vfio-pci" "the host has no device in an IOMMU group"
fi
# A vfio-user server that agrees to what QEMU proposes, and no more
python3 - "$T/vfio-user" <<'EOF2' &
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(1)
while True:
    f = s.accept()[0].makefile("rwb")
    while len(h := f.read(16)) == 16:
        id, command, size, flags, error = struct.unpack("<HHIII", h)
        payload = f.read(size - 16)
        f.write(struct.pack("<HHIII", id, command, size, 1, 0) + payload)
        f.flush()
EOF2
server=$!
while [ ! -S "$T/vfio-user" ]; do sleep 0.1; done
denied "vfio-user-pci" VFIO -device "{\"driver\": \"vfio-user-pci\", \"socket\": {\"path\": \"$T/vfio-user\", \"type\": \"unix\"}}"
kill "$server"
done_testing
