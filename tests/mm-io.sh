# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# For tests/mm-io*.t: direct I/O of five kinds of devices, in a guest of their own.
. "$(dirname "${BASH_SOURCE[0]}")/mm.sh"

# By its size in MiB a device is known in the guest.
devices=(virtio virtio-platform nvme ahci ide)
drives() {
	local i
	for i in 0 1 2 3 4; do
		rm -f "$T/${devices[i]}"
		truncate -s $((8 + i))M "$T/${devices[i]}"
		qemu_args+=(-drive "if=none,id=d$i,format=raw,file=$T/${devices[i]}")
	done
	qemu_args+=(-device virtio-blk-pci,drive=d0
		-device virtio-blk-pci,drive=d1,iommu_platform=on,disable-legacy=on
		-device nvme,drive=d2,serial=1
		-device ide-hd,drive=d3,bus=ide.0
		-device piix3-ide,id=piix -device ide-hd,drive=d4,bus=piix.0)
}

perl -e 'open F, "<", $ARGV[0]; read F, $p, 4096; print pack("Q<", $_), substr($p, 8) for 0 .. 1535' \
	"$T/pattern" >"$T/all"
try() { # NAME PARAMETERS QEMU-ARGS...
	local name=$1 params=$2 d
	shift 2
	qemu_args=("$@")
	drives
	mm_guest "$name" --append "$params" -- "
		n=0
		for i in /sys/block/*; do
			case \$(cat \$i/size) in
			16384) d=virtio ;;
			18432) d=virtio-platform ;;
			20480) d=nvme ;;
			22528) d=ahci ;;
			24576) d=ide ;;
			*) continue ;;
			esac
			n=\$((n + 1))
			mm_io \$d /dev/\${i##*/} || exit
		done
		[ \$n = 5 ] && echo ok all devices were tested"
	for d in "${devices[@]}"; do
		ok "$name: $d: what the device has" cmp -n 6291456 "$T/$d" "$T/all"
	done
}
