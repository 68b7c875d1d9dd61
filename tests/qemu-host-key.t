#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# QEMU's mktme-key on a host that has such keys (a pretended one): the key is there before
# the memory, and goes after it; what it is does not change.
. "$(dirname "$0")/lib.sh"
need build/qemu/out/qemu-system-x86_64
gcc -std=gnu11 -O2 -Wall -shared -fPIC -o "$T/fakekeys.so" "$TOP/tests/fakekeys.c" -ldl || exit 1
printf 0123456789abcdef >"$T/secret"

# qemu [OPTION...] <QMP commands, a line each: answers into $T/answers, what the host saw into $T/log
qemu() {
	rm -f "$T/log"
	# In one piece, for QEMU to have no time between them
	printf '{"execute": "qmp_capabilities"}\n%s\n{"execute": "quit"}\n' "$(cat)" |
		LD_PRELOAD=$T/fakekeys.so FAKEKEYS_LOG=$T/log timeout -k 1 20 \
		"$TOP/build/qemu/out/qemu-system-x86_64" -L /usr/share/qemu -L /usr/share/seabios \
		-nodefaults -display none -S -qmp stdio "$@" >"$T/answers" 2>"$T/err" || diag <"$T/err" >&2
}
add() { echo "{\"execute\": \"object-add\", \"arguments\": {$1}}"; }
del() { echo "{\"execute\": \"object-del\", \"arguments\": {\"id\": \"$1\"}}"; }
log() { grep -v '^{' "$T/log" | paste -sd, - | sed 's/,/, /g'; }
errors() { sed -n 's/.*"desc": "\(.*\)"}}.*/\1/p' "$T/answers"; }
k='"qom-type": "mktme-key", "id": "k", "source": "cpu", "algorithm": "aes-xts-128"'
m='"qom-type": "memory-backend-ram", "size": 8388608, "mktme-key": "k"'
key=(-object "mktme-key,id=k,source=cpu,algorithm=aes-xts-128")
o=("${key[@]}" -object "memory-backend-ram,id=m,size=8M,mktme-key=k")

qemu -M none "${key[@]}" -object memory-backend-ram,id=m,size=8M,mktme-key=k,prealloc=on <<<''
is "the key, then the memory's key, then the memory" "$(log | sed 's/, unmap.*//')" \
	"add 1000 qemu:k: type=cpu algorithm=aes-xts-128, encrypt 1000 8388608, populate 1000 8388608"

# All at once: the memory is unmapped some time after its backend is deleted
qemu -M none "${o[@]}" < <(del m; del k)
is "backend and key are deleted" "$(errors)" ""
is "the key is invalidated after the memory is unmapped, by the thread that may" "$(log | cut -d, -f3-)" \
	" unmap 1000 8388608, invalidate 1000 with 0 bytes mapped"

qemu -M none "${o[@]}" < <(del m; del k; add "$k"; add "$m, \"id\": \"m\""; del k)
is "a new key by the same name is another one" "$(log | cut -d, -f4-6 | sed 's/:.*//')" \
	" invalidate 1000 with 0 bytes mapped, add 1001 qemu"
is "it can't be deleted while it is used" "$(errors)" "object 'k' is in use, can not be deleted"

qemu -M none "${o[@]}" < <(add "$m, \"id\": \"m2\""; del m; del k; del m2; del k)
is "a key of two backends goes with the second" "$(errors);$(log | cut -d, -f2-)" \
	"object 'k' is in use, can not be deleted; encrypt 1000 8388608, encrypt 1000 8388608, unmap 1000 8388608, unmap 1000 8388608, invalidate 1000 with 0 bytes mapped"

qemu -M q35,memory-backend=m -m 8M "${o[@]}" < <(del m; del k)
is "RAM of the machine: neither is deleted" "$(errors | paste -sd ';')" \
	"object 'm' is in use, can not be deleted;object 'k' is in use, can not be deleted"
is "nor is the key invalidated under it when QEMU ends" "$(grep -c 'with [^0]' "$T/log")" 0

# What does not come about leaves nothing behind
export FAKEKEYS_FAIL=1
qemu -M none "${key[@]}" < <(add "$m, \"id\": \"m\""; del k)
unset FAKEKEYS_FAIL
is "a backend that can't be encrypted: the error" "$(errors)" "cannot put memory under key 1000: it counts as locked memory, of which the process may not have that much (RLIMIT_MEMLOCK)"
is "and its key can be deleted" "$(log | cut -d, -f2-)" " invalidate 1000 with 0 bytes mapped"
qemu -M none "${key[@]}" < <(add "$m, \"id\": \"m\", \"share\": true"; add "$m, \"id\": \"m\", \"host-nodes\": [0]"; del k)
is "a backend that is refused" "$(errors | head -1)" "'mktme-key' and 'share=on' are incompatible"
is "its key can be deleted" "$(log | sed 's/.*, //')" "invalidate 1000 with 0 bytes mapped"

head -c 1M /dev/zero >"$T/rom"
qemu -M none "${key[@]}" < <(add '"qom-type": "memory-backend-file", "id": "m", "size": 1048576, "mem-path": "'"$T/rom"'", "readonly": true, "mktme-key": "k"')
is "read-only memory, which encryption would make writable" "$(errors)" \
	"'mktme-key' and read-only memory are incompatible"

assign() { echo "{\"execute\": \"qom-set\", \"arguments\": {\"path\": \"/objects/$1\", \"property\": \"$2\", \"value\": $3}}"; }
qemu -M none "${o[@]}" < <(assign k serial 7; assign k source '"user"'; assign k description '"d"'; assign k algorithm '"aes-xts-256"'
	assign k key-secret '"s"'; assign k tweak-secret '"s"'; assign m mktme-key '""'; assign m mktme-key '"k"'
	echo '{"execute": "qom-get", "arguments": {"path": "/objects/k", "property": "source"}}'
	echo '{"execute": "query-memdev"}')
is "properties can't be set any more" "$(errors | paste -sd ';')" \
	"cannot change property 'serial';cannot change property 'source';cannot change property 'description';cannot change property 'algorithm';cannot change property 'key-secret';cannot change property 'tweak-secret';cannot change property 'mktme-key';cannot change property 'mktme-key'"
like "and are what they were" "$(cat "$T/answers")" '"return": "cpu"'
like "the monitor shows the key" "$(cat "$T/answers")" '"mktme-key": \{"description": "qemu:k", "serial": 1000, "id": "k"\}'

s="-object secret,id=s,file=$T/secret"
# shellcheck disable=SC2086
qemu -M none $s -object mktme-key,id=k,source=user,algorithm=aes-xts-128,key-secret=s,tweak-secret=s <<<''
is "a key that is given" "$(log | cut -d, -f1)" \
	"add 1000 qemu:k: type=user algorithm=aes-xts-128 key=$(printf 0123456789abcdef | xxd -p) tweak=$(printf 0123456789abcdef | xxd -p)"
qemu -M none -object mktme-key,id=k,source=no-encrypt <<<''
is "none" "$(log | cut -d, -f1)" "add 1000 qemu:k: type=no-encrypt"
# shellcheck disable=SC2086
qemu -M none $s -object mktme-key,id=k,source=cpu,algorithm=aes-xts-128,key-secret=s,tweak-secret=s <<<''
like "a random one with entropy" "$(log)" "^add 1000 qemu:k: type=cpu algorithm=aes-xts-128 key=30.* tweak=30"
done_testing
