#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Firmware goes by CPUID, where KeyID bits are address bits, and yet no PCI device is
# left where KeyIDs are: OVMF boots from NVMe as it does without MKTME, and the kernel
# reaches all devices, a BAR of 4 GiB too, after OVMF as after SeaBIOS.
# With the system's firmware, and with a newer one where that is too old: SeaBIOS before
# 1.16.3 did not go by CPUID.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/linux/out/arch/x86/boot/bzImage build/qemu/out/qemu-system-x86_64
qemu=$TOP/build/qemu/out/qemu-system-x86_64

# An image with a FAT file system, and a program in it that UEFI starts by itself
cat >"$T/program.S" <<'P'
	.globl	program
program:
	lea	text(%rip), %rsi
	mov	$0x3f8, %edx
1:	lodsb
	test	%al, %al
	jz	2f
	out	%al, (%dx)
	jmp	1b
2:	hlt
	jmp	2b
text:	.asciz	"\r\nstarted from disk\r\n"
	.section .reloc, "a"
	.long	0, 8
P
image() {
	as -o "$T/program.o" "$T/program.S" &&
		ld -m i386pep --subsystem 10 -e program --image-base 0 -o "$T/program.efi" "$T/program.o" &&
		truncate -s 40M "$T/disk" && mformat -i "$T/disk" -F :: &&
		mmd -i "$T/disk" ::/EFI ::/EFI/BOOT &&
		mcopy -i "$T/disk" "$T/program.efi" ::/EFI/BOOT/BOOTX64.EFI
}
ok "a disk to boot from" image

# Runs QEMU until the program says so, or SECONDS are over; then tells where BARs are
cat >"$T/run.py" <<'P'
import json, os, socket, subprocess, sys, time

tmp, seconds, wanted, limit, *cmd = sys.argv[1:]
limit = int(limit, 0)
for name in ("qmp", "serial"):
    if os.path.exists(f"{tmp}/{name}"):
        os.unlink(f"{tmp}/{name}")
qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *cmd, "-display", "none", "-nodefaults",
                         "-no-user-config", "-serial", f"file:{tmp}/serial",
                         "-qmp", f"unix:{tmp}/qmp,server=on,wait=off"], stdin=subprocess.DEVNULL)
end = time.monotonic() + float(seconds)
said = b""
while qemu.poll() is None and wanted.encode() not in said and time.monotonic() < end:
    time.sleep(0.1)
    if os.path.exists(f"{tmp}/serial"):
        said = open(f"{tmp}/serial", "rb").read()
print("said" if wanted.encode() in said else "not said")

sock = socket.socket(socket.AF_UNIX)
while True:
    try:
        sock.connect(f"{tmp}/qmp")
        break
    except OSError:
        if qemu.poll() is not None:
            sys.exit("QEMU is gone")
        time.sleep(0.1)
answers = sock.makefile("r")
answers.readline()

def qmp(command, **arguments):
    sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    while True:
        answer = json.loads(answers.readline())
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            sys.exit(answer["error"]["desc"])

def bars(devices):
    for d in devices:
        yield from (r["address"] for r in d["regions"] if r["type"] == "memory")
        if "pci_bridge" in d:
            yield from bars(d["pci_bridge"].get("devices", []))

qmp("qmp_capabilities")
cpu = qmp("query-cpus-fast")[0]["qom-path"]
print("guest-phys-bits", qmp("qom-get", path=cpu, property="guest-phys-bits"))
mapped = [a for bus in qmp("query-pci") for a in bars(bus["devices"]) if a >= 0]
print("mapped", "high" if any(a >= 1 << 32 for a in mapped) else "low")
print("wrong", *(hex(a) for a in mapped if a >= limit))
qemu.kill()
qemu.wait()
P
# run SECONDS CPU OPTION...: with 6 KeyID bits of 46 if M is set; what it prints goes to $T/said
run() {
	local seconds=$1 cpu=$2
	shift 2
	python3 "$T/run.py" "$T" "$seconds" "started from disk" $((1 << 40)) "$qemu" \
		-L /usr/share/seabios -L /usr/share/qemu \
		${M:+-object x86-mktme,id=m,keyid-bits=6} -M "q35${M:+,mktme=m}" -cpu "$cpu" "$@" \
		>"$T/said" 2>"$T/err" || cat "$T/err" >&2
}

# What firmware is told
M='' run 0 max,phys-bits=46 -S -m 1G
is "without MKTME, nothing is said about address bits" "$(said guest-phys-bits)" 0
M=1 run 0 max,phys-bits=46 -S -m 1G
is "with MKTME, how many there are without KeyID bits" "$(said guest-phys-bits)" 40
M=1 run 0 max,phys-bits=46,guest-phys-bits=42 -S -m 1G
is "but the user's word counts" "$(said guest-phys-bits)" 42
M=1 run 0 max,phys-bits=46,guest-phys-bits=0 -S -m 1G
is "none too" "$(said guest-phys-bits)" 0

# newer PACKAGE VERSION SUITE: where the package is: / if it is new enough, or else that of
# SUITE, downloaded once
newer() {
	local have dir=$TOP/build/firmware-$1 cache=$TOP/build/cache/firmware deb
	have=$(dpkg-query -W -f '${Version}' "$1")
	if dpkg --compare-versions "$have" ge "$2"; then echo /; return; fi
	mkdir -p "$cache" "$dir"
	# shellcheck disable=SC2144  # one at most
	if ! [ -e "$cache/$1"_*.deb ]; then
		(cd "$cache" && "$TOP/tools/apt" download "$1/$3") >&2 || return
	fi
	deb=$(echo "$cache/$1"_*.deb)
	dpkg-deb -x "$deb" "$dir" && echo "$dir"
}
seabios=$(newer seabios 1.16.3 bookworm-backports)
ok "there is SeaBIOS 1.16.3 or later" [ -e "$seabios/usr/share/seabios/bios-256k.bin" ]
ovmf=$(newer ovmf 2024.05 trixie)
ok "there is OVMF 2024.05 or later" [ -e "$ovmf/usr/share/OVMF/OVMF_CODE_4M.fd" ]
roots=(/)
[ "$ovmf" = / ] || roots+=("$ovmf")

flash() { # ROOT: options for OVMF
	local d=$1/usr/share/OVMF
	echo -drive "if=pflash,format=raw,readonly=on,file=$d/OVMF_CODE_4M.fd" \
		-drive "if=pflash,format=raw,snapshot=on,file=$d/OVMF_VARS_4M.fd"
}
version() { if [ "$1" = / ]; then echo "the system's $2"; else echo "Debian 13's $2"; fi; }
nvme=(-drive "if=none,id=d,format=raw,snapshot=on,file=$T/disk" -device "nvme,drive=d,serial=1")

for root in "${roots[@]}"; do
	cpu=max,phys-bits=46
	# Nothing can tell it; see qemu/docs/system/i386/mktme.rst
	[ "$root" = "$ovmf" ] || cpu+=,pdpe1gb=off
	name=$(version "$root" OVMF)
	for m in '' 1; do
		for memory in 1G 6G; do
			what="$name, $memory, with$([ "$m" ] || echo out) MKTME"
			# shellcheck disable=SC2046  # several words
			M=$m run 90 "$cpu" -m $memory $(flash "$root") "${nvme[@]}"
			is "$what: boots from NVMe" "$(head -1 "$T/said")" said
			is "$what: has BARs above 4 GiB" "$(said mapped)" high
			[ ! "$m" ] || is "$what: no BAR in KeyID bits" "$(said wrong)" ""
		done
	done
done

# The kernel: with a BAR of 4 GiB, and more RAM than fits below 4 GiB.  It reads the
# disk, and writes to that BAR, whose memory is a file.
cat >"$T/look" <<'S'
dmesg | sed -n 's/.* efi: EFI .*/efi/p'
echo disk $(tail -c +4 /dev/nvme0n1 | head -c 8)
for d in /sys/bus/pci/devices/*; do
	while read -r start end flags; do
		[ $((end)) = 0 ] || [ $((end)) -lt $((0x10000000000)) ] || echo wrong ${d##*/} $start
	done <$d/resource
	[ "$(cat $d/vendor $d/device)" = "0x1af4
0x1110" ] || continue
	set -- $(sed -n 3p $d/resource)
	echo size $((1 + $2 - $1))
	echo 1 >$d/enable
	devmem $1 32 0x12345678
	devmem $(printf '0x%x' $(($1 + 0xfffff000))) 32 0x87654321
done
S
printf 'xxxon-disk' | dd of="$T/data" bs=1M conv=sync status=none
looks() { # WHAT KERNEL OPTION...
	local what=$1 kernel=$2 status=0
	shift 2
	rm -f "$T/big"
	"$TOP/vm/boot" --kernel "$TOP/build/linux/out/$kernel" --memory 6G --timeout 120 --add "$T/look:/look" \
		--exec 'sh /look' -- "$@" \
		-object "memory-backend-file,id=big,size=4G,share=on,mem-path=$T/big" -device ivshmem-plain,memdev=big \
		-drive "if=none,id=d,format=raw,snapshot=on,file=$T/data" -device nvme,drive=d,serial=1 \
		>"$T/said" 2>"$T/err" || status=$?
	is "$what: the kernel boots" "$status" 0
	[ $status = 0 ] || diag <"$T/err" >&2
	is "$what: reads from NVMe" "$(said disk)" on-disk
	is "$what: has the BAR of 4 GiB" "$(said size)" $((1 << 32))
	is "$what: and writes to its start" "$(od -An -tx4 -N4 "$T/big")" " 12345678"
	is "$what: and to its end" "$(od -An -tx4 -N4 -j $((0xfffff000)) "$T/big")" " 87654321"
	is "$what: nothing is in KeyID bits" "$(said wrong)" ""
}
bios() { echo -bios "$1/usr/share/seabios/bios-256k.bin"; }
# shellcheck disable=SC2046
{
	looks "SeaBIOS" vmlinux $(bios "$seabios")
	# It put them there, before the kernel took them away
	is "SeaBIOS: QEMU warned of each device once" \
		"$(grep -o 'warning: The guest mapped [^ ]* at 0x[0-9a-f]\{12\}, but KeyIDs take the address bits from 0x10000000000 on' \
			"$T/err" | cut -d' ' -f5 | sort | uniq -c | awk '{ print $1 }' | sort -u | tr '\n' ' ')" "1 "
	[ "$seabios" = / ] || looks "the system's SeaBIOS" vmlinux $(bios /)
	looks "OVMF" arch/x86/boot/bzImage $(flash "$ovmf")
	is "OVMF: it was it" "$(grep -c '^efi$' "$T/said")" 1
	is "OVMF: QEMU has nothing to warn of" "$(grep -c warning: "$T/err")" 0
}
done_testing
