#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# QEMU's own tests of what the series touches - memory, IOMMUs, devices that do DMA, PCs and
# their CPUs, TCG, the monitor - give the same results as with a QEMU without the series.
. "$(dirname "$0")/lib.sh"
out=$TOP/build/qemu/out stock=$TOP/build/qemu/stock/out
need build/qemu/out/qemu-system-x86_64 build/qemu/stock/out/qemu-system-x86_64 build/qemu/out/tests/qtest/q35-test

tests='amd-iommu-test boot-order-test cpu-plug-test device-plug-test endianness-test fw_cfg-test
	i440fx-test intel-hda-test intel-iommu-test ioh3420-test lpc-ich9-test machine-none-test
	numa-test q35-test qmp-test readconfig-test'

# Debian has them in another package; nobody executes them here
mkdir "$T/roms"
for rom in efi-e1000 efi-e1000e efi-eepro100 efi-ne2k_pci efi-pcnet efi-rtl8139 efi-virtio efi-vmxnet3; do
	head -c 1024 /dev/zero >"$T/roms/$rom.rom"
done

# The tests take a program of that name, and give it no -L
for q in out stock; do
	mkdir "$T/$q"
	printf '#!/bin/sh\nexec %q -L /usr/share/qemu -L /usr/share/seabios -L %q "$@"\n' "${!q}/qemu-system-x86_64" "$T/roms" \
		>"$T/$q/qemu-system-x86_64"
	chmod +x "$T/$q/qemu-system-x86_64"
done

run() { # NAME out|stock: results only, no diagnostics
	local status=0
	(cd "$out" && QTEST_QEMU_BINARY=$T/$2/qemu-system-x86_64 \
		timeout 300 "tests/qtest/$1" --tap -k >"$T/$2.$1" 2>"$T/$2.$1.err" </dev/null) || status=$?
	echo "status $status" >>"$T/$2.$1"
	grep -E '^(ok|not ok|status)' "$T/$2.$1" >"$T/$2.$1.results"
}
for t in $tests; do
	if [ ! -x "$out/tests/qtest/$t" ]; then
		fail "$t: it was not built"
		continue
	fi
	run "$t" out &
	run "$t" stock
	wait $!
	n=$(grep -c '^ok' "$T/out.$t")
	if [ "$n" -gt 0 ] && grep -qx "status 0" "$T/out.$t.results" && cmp -s "$T/out.$t.results" "$T/stock.$t.results"; then
		pass "$t: the same, $n passed, $(grep -c '^not ok' "$T/out.$t") failed"
	else
		fail "$t: not the same"
		{ diff "$T/stock.$t.results" "$T/out.$t.results"; tail -n 5 "$T/out.$t.err"; } | diag
	fi
done
done_testing
