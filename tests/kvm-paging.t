#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# KVM has a guest's page under the page's key however it maps it: by nested paging in
# 4K and 2M, from hugetlbfs, and by shadow paging; when the host moves the page and when it gives it another key while the
# guest runs; on a host of two CPUs, on one of which the guest may be meanwhile.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/secret build/guest/tests/migrate
"$TOP/vm/inner.py" "$T/inner" || exit 1

cat >"$T/script" <<'EOF'
. /inner/lib.sh
set -e
echo $thp >/sys/kernel/mm/transparent_hugepage/enabled
echo $huge >/proc/sys/vm/nr_hugepages
id=$(keyctl add mktme g "type=cpu algorithm=aes-xts-128" @u)
start g $(keyed source=serial,serial=$id)
keep g 256 >/dev/null
qemu=$(cat /run/g.pid)
# The largest of its mappings is its RAM
echo "keyid $(sed -n '/^Size:/{s/[^0-9]//g;h};/^KeyID:/{s/[^0-9]//g;G;s/\n/ /p}' /proc/$qemu/smaps |
	sort -k2n | tail -n 1 | cut -d' ' -f1)"
mapped() { cat /sys/kernel/debug/kvm/pages_$1; }
echo "mode npt $(cat /sys/module/kvm_amd/parameters/npt), 2M $(($(mapped 2m) > 0))"
echo "from-pool $(sed -n 's/^Private_Hugetlb: *\(.*\) kB/\1/p' /proc/$qemu/smaps | sort -n | tail -n 1)"
echo "first $(kept g)"
# A guest of its own: KVM reads and writes that one's VMCB in the guest's memory
echo "nested $(say g kvmrun)"

# It writes all the time from here on, and looks at what it wrote
say g 'while [ ! -e /tmp/stop ]; do dd if=/dev/urandom of=/tmp/w bs=64k count=8 2>/dev/null; a=$(sha256sum </tmp/w); cp /tmp/w /tmp/v; [ "$(sha256sum </tmp/v)" = "$a" ] || echo bad >>/tmp/bad; done & writer=$!'
# Rotation: its pages are encrypted anew, in place
keyctl update $id "type=cpu algorithm=aes-xts-256"
echo "rotated $(kept g)"
# They are where the CPU was on which the guest touched them first
/tests/migrate $qemu 1 0
before=$(pa g $(cat /run/g.secret))
# A page that is in use at that moment stays
for try in $(seq 30); do
	/tests/migrate $qemu 0 1
	[ $before = $(pa g $(cat /run/g.secret)) ] || break
	sleep 0.2
done
[ $before = $(pa g $(cat /run/g.secret)) ] && echo "moved no" || echo "moved yes"
echo "moved-kept $(kept g)"
echo 1 >/proc/sys/vm/compact_memory
echo "compacted $(kept g)"
echo "written $(say g 'touch /tmp/stop; wait $writer; cat /tmp/bad 2>/dev/null || echo right')"
stop g
EOF

mode() { # NAME WANTED THP [BACKEND HUGE-PAGES]
	local env="thp=$3 INNER_BACKEND=${4:-} huge=${5:-0}" from_pool=0
	[ ! "${5:-}" ] || from_pool=65536
	echo "# $1"
	guest --sockets 2 --smp 2 --memory "$(ram 768)M" --cache strict --append "kvm_amd.npt=${npt:-1}" --add "$T/inner:/inner" --add "$T/script:/script" \
		-- "$env sh /script" >"$T/said" 2>"$T/err"
	is "$1: the guest's part" "$?" 0
	[ ! -s "$T/err" ] || diag <"$T/err" >&2
	is "$1: as meant" "$(said mode)" "$2"
	is "$1: its RAM has the key's KeyID" "$(said keyid)" 1
	is "$1: kB from the pool of huge pages" "$(said from-pool)" "$from_pool"
	is "$1: contents" "$(said first)" "0 words differ"
	is "$1: a guest in the guest" "$(said nested)" "kvmrun: 100"
	is "$1: when all of it gets another key" "$(said rotated)" "0 words differ"
	is "$1: its pages are moved to another node" "$(said moved)" yes
	is "$1: contents then" "$(said moved-kept)" "0 words differ"
	is "$1: after compaction" "$(said compacted)" "0 words differ"
	is "$1: what it wrote meanwhile" "$(said written)" right
}

mode "nested paging, 4K" "npt Y, 2M 0" never
mode "nested paging, 2M" "npt Y, 2M 1" always
# 32 for the guest, on one node or on the other
mode hugetlb "npt Y, 2M 1" never memory-backend-memfd,hugetlb=on,prealloc=on,share=off 80
npt=0
mode "shadow paging, 4K" "npt N, 2M 0" never
mode "shadow paging, 2M" "npt N, 2M 1" always
done_testing
