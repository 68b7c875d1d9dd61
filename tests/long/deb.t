#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The packages that "make deb" makes, installed into a Debian: the kernel boots from the
# initramfs that its installation makes, MKTME works on it, modules can be built with its
# headers, the packaged QEMU runs, and all of it can be removed.  Not part of "make test":
# "make deb-check" builds what it needs, and runs it.  As root, or with sudo.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
flavour=${FLAVOUR:-cloud-amd64}
debs=$TOP/out/deb
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
need build/qemu/out/qemu-system-x86_64 build/guest/tests/selftests/encrypt_mprotect build/guest/tests/syscall "build/cache/debroot/$codename.tar"
image=$(printf '%s\n' "$debs"/linux-image-*-mktme-"$flavour"_*.deb | tail -1)
qemu=$(printf '%s\n' "$debs"/qemu-system-x86-mktme_*.deb | tail -1)
for f in "$image" "$qemu"; do
	[ -f "$f" ] || { echo "Bail out! $f isn't there: run 'make deb'"; tap_done=1; exit 1; }
done
release=$(basename "$image" | sed 's/^linux-image-//; s/_.*//')
headers=${image/linux-image/linux-headers}
libc=${image/linux-image-$release/linux-libc-dev}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

R=$TOP/build/debroot
as_root rm -rf "$R"
mkdir -p "$R"
as_root tar -C "$R" --numeric-owner -xpf "$TOP/build/cache/debroot/$codename.tar"
# No daemon is to be started there
printf '#!/bin/sh\nexit 101\n' | as_root tee "$R/usr/sbin/policy-rc.d" >/dev/null
as_root chmod +x "$R/usr/sbin/policy-rc.d"
mkdir -p "$TOP/build/cache/debroot/archives/partial"
# Its mounts go with the command
in_root() {
	as_root unshare --mount sh -c 'r=$1 debs=$2 archives=$3; shift 3
		mount -t proc proc "$r/proc" && mount --bind /dev "$r/dev" && mount --bind "$debs" "$r/mnt" &&
		mount --bind "$archives" "$r/var/cache/apt/archives" &&
		DEBIAN_FRONTEND=noninteractive HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin exec chroot "$r" "$@"' \
		- "$R" "$debs" "$TOP/build/cache/debroot/archives" "$@"
}

# What is in the packages
paths() { dpkg-deb --fsys-tarfile "$1" | tar -t | sed 's/^\.//' | grep -v '/$'; }
is "no file of the kernel's or of its headers is another kernel's" \
	"$({ paths "$image"; paths "$headers"; } | grep -vF -- "$release")" ""
is "no key that signs modules is in them" "$(for f in "$image" "$headers"; do paths "$f"; done | grep -E 'signing_key\.pem|\.key$')" ""
is "QEMU's package: a program, and its documentation" "$(paths "$qemu" | grep -v ^/usr/share/doc/qemu-system-x86-mktme/)" \
	/usr/bin/qemu-system-x86_64-mktme

# Installed
start=$SECONDS
ok "the kernel's packages are installed" \
	in_root dpkg -i "/mnt/$(basename "$image")" "/mnt/$(basename "$headers")" "/mnt/$(basename "$libc")"
echo "kernel, headers, initramfs: $((SECONDS - start)) s" | diag
initrd=$R/boot/initrd.img-$release
ok "with an initramfs, which the installation made" test -s "$initrd"
is "libc's headers have what is new" "$(grep -c . "$R/usr/include/linux/mktme.h" >/dev/null 2>&1 && grep -o '__NR_encrypt_mprotect' "$R/usr/include/x86_64-linux-gnu/asm/unistd_64.h")" __NR_encrypt_mprotect
in_root apt-get -q update >"$T/update" 2>&1 || diag <"$T/update"
ok "QEMU's package is installed, with what it depends on" \
	in_root apt-get -qy --no-install-recommends install "/mnt/$(basename "$qemu")"
is "nothing is left half installed" "$(in_root dpkg --audit)" ""

# A module, by the headers
mkdir "$T/module"
cat >"$T/module/hello.c" <<'EOF'
#include <linux/module.h>
static int __init hello(void) { pr_info("hello: loaded\n"); return 0; }
static void __exit bye(void) { }
module_init(hello);
module_exit(bye);
MODULE_LICENSE("GPL");
EOF
echo 'obj-m := hello.o' >"$T/module/Makefile"
ok "a module is built with the headers" make -C "$R/usr/src/linux-headers-$release" M="$T/module" modules

# What is run in there
as_root mkdir "$R/deb"
as_root cp "$TOP/build/guest/sbin/agent" "$TOP/build/guest/tests/selftests/encrypt_mprotect" \
	"$TOP/build/guest/tests/syscall" "$T/module/hello.ko" "$R/deb/"
cat >"$T/init" <<'EOF'
#!/bin/sh
# The first process of the system that the initramfs has found; up to here all is Debian's
read -r up rest </proc/uptime
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root UP=$up
mount -t tmpfs tmp /tmp
for p in /sys/class/virtio-ports/*; do
	[ "$(cat "$p/name")" = exec ] && exec /deb/agent "/dev/${p##*/}" /deb/command
done
EOF
cat >"$T/command" <<'EOF'
echo "up $UP"
echo "release $(uname -r)"
echo "root $(grep ' / ' /proc/mounts | cut -d' ' -f1,3)"
echo "sysfs $(cat /sys/kernel/mm/mktme/keyids_total 2>&1) $(cat /sys/kernel/mm/mktme/algorithms 2>&1)"
key=$(keyctl add mktme k "type=cpu algorithm=aes-xts-128" @u 2>&1)
echo "key $key"
echo "in-use $(cat /sys/kernel/mm/mktme/keyids_in_use 2>&1)"
grep -q "mktme  *k" /proc/keys && echo "proc-keys yes"
keyctl clear @u
echo "cgroup $(mount -t cgroup2 none /sys/fs/cgroup && cat /sys/fs/cgroup/misc.capacity)"
echo "syscall $(/deb/syscall)"
/deb/encrypt_mprotect 2>&1 | sed 's/^/selftest /'
insmod /deb/hello.ko && echo "module $(lsmod | grep -o ^hello)"
modprobe kvm_amd && echo "kvm $(ls /dev/kvm)"
echo 20000 >/sys/module/kvm/parameters/tsc_tolerance_ppm
ulimit -l unlimited
printf '%s\n' '{"execute":"qmp_capabilities"}' '{"execute":"query-memdev"}' '{"execute":"quit"}' |
	qemu-system-x86_64-mktme -accel kvm -nodefaults -display none -S -qmp stdio \
	-object mktme-key,id=k,source=cpu,algorithm=aes-xts-128 \
	-object memory-backend-ram,id=m,size=64M,mktme-key=k -M q35,memory-backend=m -m 64M 2>&1 | sed 's/^/qemu /'
EOF
as_root cp "$T/init" "$T/command" "$R/deb/"
as_root chmod +x "$R/deb/init"
truncate -s 3G "$T/disk"
as_root mke2fs -q -t ext4 -d "$R" "$T/disk" || exit 1

debian() { # OPTIONS...: boots it, what it writes into $T/said
	local start=$SECONDS
	"$TOP/vm/boot" --exec '' --timeout 900 --log "$TOP/build/log/deb.log" --append 'root=/dev/vda rw init=/deb/init' \
		--kernel "$R/boot/vmlinuz-$release" "$@" -- -initrd "$initrd" \
		-drive "file=$T/disk,format=raw,if=virtio,snapshot=on" >"$T/said" 2>"$T/err"
	is "$what: it runs, and goes off" "$? $(cat "$T/err")" "0 "
	echo "$what: $(said up) s to init, $((SECONDS - start)) s in all; initramfs of $(du -k "$initrd" | cut -f1) KiB" | diag
	is "$what: the release" "$(said release)" "$release"
	is "$what: the root" "$(said root)" "/dev/vda ext4"
	is "$what: a module of one's own" "$(said module)" hello
}
with() { # OPTIONS...
	debian "$@"
	like "$what: KeyIDs, and algorithms" "$(said sysfs)" '^63 .*aes-xts-128'
	like "$what: a key" "$(said key)" '^[0-9]+$'
	is "$what: it has a KeyID, and is in /proc/keys" "$(said in-use) $(said proc-keys)" "1 yes"
	like "$what: KeyIDs are charged to cgroups" "$(said cgroup)" '^mktme 63'
	like "$what: a selftest passes" "$(said selftest)" 'Totals: pass:[1-9][0-9]* fail:0'
	is "$what: KVM" "$(said kvm)" /dev/kvm
	like "$what: QEMU from the package gives RAM a key" "$(said qemu)" '"mktme-key": .*"keyid": [1-9]'
}
what="with MKTME" with
what="without" debian --no-mktme
like "without: QEMU refuses to start with a key" "$(said qemu)" '^qemu-system-x86_64-mktme: cannot create a key'
like "without: no sysfs" "$(said sysfs)" 'No such file'
is "without: no key" "$(said key)" "add_key: No such device"
is "without: the system call" "$(said syscall)" EOPNOTSUPP

# The packaged QEMU as the emulator, in its own root, with its own libraries and firmware
cat >"$T/qemu" <<EOF
#!/bin/sh
$([ "$(id -u)" = 0 ] && echo exec || echo exec sudo) unshare --mount sh -c 'for d in "${T%/*}" "$TOP/build"; do
	mkdir -p "$R\$d" && mount --bind "\$d" "$R\$d" || exit; done
	mount -t proc proc "$R/proc" && mount --bind /dev "$R/dev" && exec chroot --userspec=$(id -u):$(id -g) "$R" qemu-system-x86_64-mktme "\$@"' - "\$@"
EOF
chmod +x "$T/qemu"
ok "packaged QEMU: it starts with the firmware of Debian's packages" \
	in_root sh -c 'echo quit | qemu-system-x86_64-mktme -display none -S -M q35 -monitor stdio'
what="packaged QEMU" with --qemu "$T/qemu"

# And back
ok "the packages are removed" in_root dpkg --purge "linux-image-$release" "linux-headers-$release" linux-libc-dev qemu-system-x86-mktme
is "nothing of them is left" "$(cd "$R" && as_root find boot lib/modules usr/src usr/bin usr/lib/modules -name '*mktme*' 2>/dev/null)" ""
[ "$tap_bad" != 0 ] || as_root rm -rf "$R"
done_testing
