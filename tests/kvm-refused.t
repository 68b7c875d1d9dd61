#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Where QEMU can't have memory under a key it says why and does not start: it never
# takes memory without encryption instead.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/linux/out-off/vmlinux build/qemu/out/qemu-system-x86_64
"$TOP/vm/inner.py" "$T/inner" || exit 1

cat >"$T/try.sh" <<'EOF'
try() { # NAME OPTIONS...: it is there, and is told to end, or not; its status, and the line it says
	local name=$1 status=0
	shift
	echo quit | /inner/qemu -L /inner -nodefaults -display none -monitor stdio -S -M none "$@" \
		>"/tmp/out-$name" 2>&1 || status=$?
	echo "$name $status $(grep -v '^$' "/tmp/out-$name" | head -n 1 | sed 's/^[^ ]*qemu: //')"
}
ram=memory-backend-ram,id=m,size=16M,mktme-key=k
cpu=mktme-key,id=k,source=cpu,algorithm=aes-xts-128
EOF
cat >"$T/script" <<'EOF'
. /try.sh
ulimit -l unlimited
id=$(keyctl add mktme k "type=cpu algorithm=aes-xts-128" @u)
try control -object mktme-key,id=k,source=serial,serial=$id -object $ram
try control-found -object mktme-key,id=k,source=description,description=k -object $ram
other=$(keyctl add user k x @u)
try no-key -object mktme-key,id=k,source=serial,serial=123456789 -object $ram
try not-mktme -object mktme-key,id=k,source=serial,serial=$other -object $ram
try not-found -object mktme-key,id=k,source=description,description=other -object $ram
try no-object -object $ram
try shared -object mktme-key,id=k,source=serial,serial=$id -object $ram,share=on
dd if=/dev/zero of=/tmp/file bs=1M count=1 2>/dev/null
try file -object mktme-key,id=k,source=serial,serial=$id -object memory-backend-file,id=m,size=1M,mem-path=/tmp/file,mktme-key=k
try memfd -object mktme-key,id=k,source=serial,serial=$id -object memory-backend-memfd,id=m,size=1M,share=off,mktme-key=k
chmod 755 /root
# In a session of its own: root's keyrings would come with it
nobody() {
	su nobody -c "keyctl session - sh -c '. /try.sh; ulimit -l ${limit:-unlimited}; try $*'" 2>/dev/null
}
nobody no-permission -object mktme-key,id=k,source=serial,serial=$id -object $ram
nobody no-capability -object $cpu -object $ram
keyctl setperm $id 0x3f3f3f3f
ulimit -l 8192
limit=8192 nobody memlock -object mktme-key,id=k,source=serial,serial=$id -object $ram
keyctl revoke $id
try revoked -object mktme-key,id=k,source=serial,serial=$id -object $ram
keyctl clear @u
total=$(cat /sys/kernel/mm/mktme/keyids_total)
until [ "$(cat /sys/kernel/mm/mktme/keyids_in_use)" = 0 ]; do usleep 50000; done
i=0
while [ $((i += 1)) -le $total ]; do keyctl add mktme f$i type=no-encrypt @u >/dev/null; done
try none-left -object $cpu -object $ram
EOF
run() { # OPTIONS -- SCRIPT
	guest --smp 1 --memory "$(ram 512)M" --add "$T/inner:/inner" --add "$T/try.sh:/try.sh" "$@" 2>"$T/err"
	[ ! -s "$T/err" ] || diag <"$T/err"
}
refusal() { like "$1" "$(said "$2")" "^1 (-object [^ ]*: )?$3"; }

run --cache strict --keyid-bits 3 --add "$T/script:/script" -- "sh /script" >"$T/said"
like "control: a key by its serial number" "$(said control)" "^0 QEMU .* monitor"
like "control: a key by its description" "$(said control-found)" "^0 QEMU .* monitor"
refusal "no such key" no-key 'cannot put memory under key 123456789: there is no such key'
refusal "a key of another type" not-mktme "cannot put memory under key [0-9]+: this is no key of type 'mktme'"
refusal "no key is found" not-found "cannot find a key with the description 'other': Required key not available"
refusal "no such object" no-object "Device 'k' not found"
refusal "shared memory" shared "'mktme-key' and 'share=on' are incompatible"
refusal "memory of a file" file "cannot put memory under key [0-9]+: .*the memory is not private, or neither anonymous nor from hugetlbfs"
refusal "memory of a memfd" memfd "cannot put memory under key [0-9]+: .*the memory is not private, or neither anonymous nor from hugetlbfs"
refusal "no permission" no-permission 'cannot put memory under key [0-9]+: no search permission'
refusal "no capability" no-capability 'cannot create a key: that takes CAP_SYS_RESOURCE'
refusal "RLIMIT_MEMLOCK" memlock 'cannot put memory under key [0-9]+: it counts as locked memory'
refusal "a key that was revoked" revoked 'cannot put memory under key [0-9]+: Key has been revoked'
refusal "no KeyID left" none-left 'cannot create a key: all KeyIDs are in use'

none=". /try.sh; try no-create -object \$cpu -object \$ram; try no-serial -object mktme-key,id=k,source=serial,serial=7 -object \$ram"
run --no-mktme -- "$none" >"$T/said"
refusal "a machine without MKTME: a new key" no-create 'cannot create a key: the host.s kernel has no keys of type'
refusal "a machine without MKTME: a serial number" no-serial 'cannot put memory under key 7: the host has no MKTME'
run --kernel "$TOP/build/linux/out-off/vmlinux" -- "$none" >"$T/said"
refusal "a kernel without it: a new key" no-create 'cannot create a key: the host.s kernel has no keys of type'
refusal "a kernel without it: a serial number" no-serial "cannot put memory under key 7: the host's kernel cannot do that"
done_testing
