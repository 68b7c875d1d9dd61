#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# KVM has a guest's page under the page's key however it maps it: by nested paging
# and shadow paging, in 4K and 2M, when the host moves the page and when it gives
# it another key while the guest runs.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/secret
"$TOP/vm/inner.py" "$T/inner" || exit 1

cat >"$T/script" <<'EOF'
. /inner/lib.sh
set -e
echo $thp >/sys/kernel/mm/transparent_hugepage/enabled
echo "npt $(cat /sys/module/kvm_amd/parameters/npt)"
id=$(keyctl add mktme g "type=cpu algorithm=aes-xts-128" @u)
start g $(keyed serial=$id)
keep g 256 >/dev/null
echo "huge $(($(sed -n 's/^AnonHugePages: *\([0-9]*\).*/\1/p' /proc/$(cat /run/g.pid)/smaps |
	sort -n | tail -n 1) > 0))"
# The largest of its mappings is its RAM
echo "keyid $(sed -n '/^Size:/{s/[^0-9]//g;h};/^KeyID:/{s/[^0-9]//g;G;s/\n/ /p}' /proc/$(cat /run/g.pid)/smaps |
	sort -k2n | tail -n 1 | cut -d' ' -f1)"
echo "first $(kept g)"

# Rotation: its pages are encrypted anew, in place
keyctl update $id "type=cpu algorithm=aes-xts-256"
echo "rotated $(kept g)"
before=$(pa g $(cat /run/g.secret))
migratepages=$(cat /run/g.pid)
/tests/migrate $migratepages 0 1
after=$(pa g $(cat /run/g.secret))
[ $before = $after ] && echo "moved no" || echo "moved yes"
echo "moved-kept $(kept g)"
echo 1 >/proc/sys/vm/compact_memory
echo "compacted $(kept g)"
# And everything else of it
say g "find / -xdev -type f | xargs cat | sha256sum >/tmp/1; find / -xdev -type f ! -path '/tmp/*' | xargs cat | md5sum"
echo "last $(kept g)"
stop g
EOF

modes() { # NAME THP PARAMETERS...
	local name=$1 thp=$2
	shift 2
	guest --sockets 2 --memory 1G --cache strict --add "$T/inner:/inner" --add "$T/script:/script" --append "$*" \
		-- "thp=$thp sh /script" >"$T/said" 2>"$T/err"
	is "$name: the guest's part" "$?" 0
	[ ! -s "$T/err" ] || diag <"$T/err"
}
said() { sed -n "s/^$1 //p" "$T/said"; }
both() {
	for what in first rotated moved-kept compacted last; do
		is "$1: contents, $what" "$(said $what)" "0 words differ"
	done
	is "$1: its pages have moved" "$(said moved)" yes
}

modes "nested paging, 4K" never
is "nested paging, 4K: as meant" "$(said npt) $(said huge)" "Y 0"
both "nested paging, 4K"
modes "nested paging, 2M" always
is "nested paging, 2M: as meant" "$(said npt) $(said huge)" "Y 1"
both "nested paging, 2M"
modes "shadow paging" always kvm_amd.npt=0
is "shadow paging: as meant" "$(said npt)" "N"
both "shadow paging"
done_testing
