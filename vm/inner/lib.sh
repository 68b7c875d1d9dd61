# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
# Guests inside the guest, for what vm/boot --exec runs with /inner (vm/inner.py):
#	. /inner/lib.sh
#	start NAME [QEMU'S OPTIONS]	a guest, until its shell is there
#	say NAME COMMAND		a command in it, a line: its output, its status
#	stop NAME			it is powered off, and QEMU gone
#	qmp /run/NAME.qmp ...		see tests/guest/qmp.c
# $ACCEL is QEMU's accelerator, with what goes with it; $INNER_RAM its RAM.

: "${ACCEL:=-accel kvm -cpu host}" "${INNER_RAM:=96M}"

# launch NAME [OPTIONS]: QEMU alone, as background job $!
launch() {
	local name=$1
	shift
	rm -f "/run/$name".*
	mkfifo "/run/$name.in" "/run/$name.out"
	: >"/run/$name.log"
	cat "/run/$name.out" >"/run/$name.log" &
	# shellcheck disable=SC2086
	/inner/qemu -L /inner -nodefaults -no-user-config -no-reboot -display none \
		$ACCEL -m "$INNER_RAM" -kernel /inner/vmlinux -initrd /inner/initrd \
		-append "console=ttyS0 quiet panic=-1 oops=panic" \
		-chardev "pipe,id=con,path=/run/$name" -serial chardev:con \
		-qmp "unix:/run/$name.qmp,server=on,wait=off" "$@" 2>"/run/$name.err" &
	echo $! >"/run/$name.pid"
}

# answered NAME LINES: its log has more than LINES lines, the last of them an answer
answered() {
	until tail -n +$(($2 + 1)) "/run/$1.log" | grep -q "^@@ "; do
		if ! kill -0 "$(cat "/run/$1.pid")" 2>/dev/null; then
			echo "guest $1 is gone:" >&2
			tail -20 "/run/$1.log" "/run/$1.err" >&2
			return 1
		fi
		usleep 50000
	done
}

# hva NAME GPA: where the guest's memory is in its QEMU; pa NAME GPA: and in ours
hva() {
	qmp "/run/$1.qmp" human-monitor-command "{\"command-line\": \"gpa2hva $2\"}" |
		sed -n 's/.* is \(0x[0-9a-f]*\).*/\1/p'
}

pa() {
	local addr entry
	addr=$(hva "$1" "$2")
	entry=$(dd if="/proc/$(cat "/run/$1.pid")/pagemap" bs=8 skip=$((addr >> 12)) count=1 2>/dev/null |
		od -A n -t x8 | tr -d ' ')
	printf '0x%x\n' $(((0x$entry & 0x7fffffffffffff) << 12 | addr & 4095))
}

start() {
	launch "$@"
	answered "$1" 0
}

say() {
	local name=$1 before
	shift
	before=$(wc -l <"/run/$name.log")
	echo "$*" >"/run/$name.in"
	answered "$name" "$before" || return
	tail -n +$((before + 1)) "/run/$name.log" | tr -d '\r' | sed '/^@@ /,$d'
	return "$(tail -n +$((before + 1)) "/run/$name.log" | tr -d '\r' | sed -n 's/^@@ //p')"
}

stop() {
	local pid
	pid=$(cat "/run/$1.pid")
	echo poweroff -f >"/run/$1.in"
	wait "$pid"
}

# keyed [KEY'S PROPERTIES]: options for RAM under a key; a random one by default
keyed() {
	echo "-object mktme-key,id=key0,${1:-key-type=cpu,algorithm=aes-xts-128}" \
		"-object memory-backend-ram,id=ram0,size=$INNER_RAM,mktme-key=key0" \
		"-M q35,memory-backend=ram0"
}

# keep NAME [PAGES]: it keeps a secret (tests/guest/secret.c); prints where, in our memory
keep() {
	local gpa
	gpa=$(say "$1" "mkfifo /tmp/ask; secret ${2:-64} </tmp/ask >/tmp/told & exec 5>/tmp/ask;" \
		"until [ -s /tmp/told ]; do usleep 10000; done; cat /tmp/told") || return
	echo "$gpa" >"/run/$1.secret"
	pa "$1" "$gpa"
}

# kept NAME: is the secret as it was?
kept() {
	say "$1" "n=\$(wc -l </tmp/told); echo >&5;" \
		"until [ \$(wc -l </tmp/told) -gt \$n ]; do usleep 10000; done; tail -n 1 /tmp/told"
}
