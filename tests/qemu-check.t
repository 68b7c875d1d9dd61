#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# QEMU's own tests of what the series touches - memory, IOMMUs, devices that do DMA, PCs and
# their CPUs, TCG, the monitor - give the same results as with a QEMU without the series.
# qemu-check.list: those that run with the devices that are built, and end soon; after
# qos-test, which of its devices.
. "$(dirname "$0")/lib.sh"
out=$TOP/build/qemu/out
declare -A binary=([out]=$out/qemu-system-x86_64 [stock]=$TOP/build/qemu/stock/out/qemu-system-x86_64)
need build/qemu/out/qemu-system-x86_64 build/qemu/out/tests/qtest/q35-test
"$TOP/tools/build" stock_qemu 2>&1 | diag
need build/qemu/stock/out/qemu-system-x86_64

# Debian has them in another package; nobody executes them here
mkdir "$T/roms"
for rom in efi-e1000 efi-e1000e efi-eepro100 efi-ne2k_pci efi-pcnet efi-rtl8139 efi-virtio efi-vmxnet3; do
	head -c 1024 /dev/zero >"$T/roms/$rom.rom"
done

# The tests take a program of that name, and give it no -L
for q in out stock; do
	mkdir "$T/$q"
	printf '#!/bin/sh\nexec %q -L /usr/share/qemu -L /usr/share/seabios -L %q "$@"\n' "${binary[$q]}" "$T/roms" \
		>"$T/$q/qemu-system-x86_64"
	chmod +x "$T/$q/qemu-system-x86_64"
done

qtest() { # out|stock TEST [OPTION...]
	local qemu=$1 test=$2
	shift 2
	(cd "$out" && QTEST_QEMU_BINARY=$T/$qemu/qemu-system-x86_64 exec timeout 300 "tests/qtest/$test" --tap "$@" </dev/null)
}

run() { # out|stock TEST [OPTION...]: results only, no diagnostics
	local status=0
	qtest "$1" "$2" -k "${@:3}" >"$T/$1.$2" 2>"$T/$1.$2.err" || status=$?
	# Without numbers, and what only the series has
	{ grep -E '^(ok|not ok)' "$T/$1.$2" | sed 's/ [0-9]* / /; /mktme/d'; echo "status $status"; } >"$T/$1.$2.results"
}

while read -r -u 3 t devices; do
	if [ ! -x "$out/tests/qtest/$t" ]; then
		fail "$t: it was not built"
		continue
	fi
	args=()
	if [ "$devices" ]; then
		mapfile -t paths < <(qtest out "$t" -l 2>"$T/err" | grep -E "/pci-bus/($devices)/")
		for path in "${paths[@]}"; do args+=(-p "$path"); done
		[ ${#args[@]} != 0 ] || args=(-p /none)
	fi
	run out "$t" "${args[@]}" &
	run stock "$t" "${args[@]}"
	wait $!
	n=$(grep -c '^ok' "$T/out.$t.results")
	if [ "$n" -gt 0 ] && grep -qx "status 0" "$T/out.$t.results" &&
	   cmp -s "$T/out.$t.results" "$T/stock.$t.results"; then
		pass "$t: the same, $n passed"
	else
		fail "$t: not the same, or not all passed"
		{ diff "$T/stock.$t.results" "$T/out.$t.results"; tail -n 5 "$T/out.$t.err"; } | diag
	fi
done 3<"$TOP/tests/qemu-check.list"
done_testing
