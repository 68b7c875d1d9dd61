# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
# Guests inside the guest, for what vm/boot --exec runs with /inner (vm/inner.py):
#	. /inner/lib.sh
#	start NAME [QEMU'S OPTIONS]	a guest, until its shell is there
#	say NAME COMMAND		a command in it, a line: its output, its status
#	stop NAME			its QEMU ends
#	qmp /run/NAME.qmp ...		see tests/guest/qmp.c
# $ACCEL is QEMU's accelerator, with what goes with it; $INNER_RAM the size of its RAM,
# $INNER_BACKEND the backend of that; $DEVICES is set where guests have any: what they
# look for and don't find is most of the time that it takes to boot one.

: "${ACCEL:=-accel kvm -cpu host}" "${INNER_RAM:=64M}" "${INNER_BACKEND:=memory-backend-ram}" "${DEVICES:=}"

# KVM takes the clock rate that was measured before it started for what guests want;
# where a later measurement differs by more than this, it multiplies their TSC by 0,
# and their timers go off late by as much as we are up (set_tsc_khz()).
echo 20000 >/sys/module/kvm/parameters/tsc_tolerance_ppm

# launch NAME [OPTIONS]: QEMU alone
launch() {
	local name=$1 append="console=ttyS0 8250.nr_uarts=1 quiet panic=-1 oops=panic"
	shift
	[ "$DEVICES" ] || append="$append pci=off acpi=off"
	rm -f "/run/$name".*
	mkfifo "/run/$name.in" "/run/$name.out"
	(
		# shellcheck disable=SC2086
		/inner/qemu -L /inner -nodefaults -no-user-config -no-reboot -display none \
			-M q35,sata=off,smbus=off,hpet=off,i8042=off,pit=off $ACCEL -m "$INNER_RAM" \
			-kernel /inner/vmlinux -initrd /inner/initrd -append "$append" \
			-chardev "pipe,id=con,path=/run/$name" -serial chardev:con \
			-qmp "unix:/run/$name.qmp,server=on,wait=off" "$@" 2>"/run/$name.err" &
		echo $! >"/run/$name.pid"
		status=0
		wait $! || status=$?
		# Who reads the guest's console must not wait for more
		echo "@@ gone $status" >"/run/$name.out"
	) &
}

# answer NAME [gone]: its console, up to the end of an answer; fails where QEMU has
# gone, unless that is what one waits for. Nobody polls: there may be one CPU for all.
answer() {
	local line cr
	cr=$(printf '\r')
	while read -r line; do
		line=${line%"$cr"}
		echo "$line" >>"/run/$1.log"
		case $line in
		"@@ gone 0")
			[ "${2:-}" ] && return ;;
		"@@ gone "*)
			;;
		"@@ "*)
			[ "${2:-}" ] && continue
			status=${line#@@ }
			return ;;
		*)
			echo "$line"
			continue ;;
		esac
		echo "guest $1 is gone, QEMU's status was ${line##* }:" >&2
		tail -20 "/run/$1.log" "/run/$1.err" >&2
		return 1
	# For both, as QEMU closes its end a while before it is gone
	done <>"/run/$1.out"
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
	answer "$1" >/dev/null
}

say() {
	local name=$1 status=1
	shift
	echo "$*" >"/run/$name.in"
	answer "$name" || return
	return "$status"
}

stop() {
	qmp "/run/$1.qmp" quit >/dev/null || :
	gone "$1"
}

# gone NAME: until its QEMU has ended, which must be with status 0
gone() {
	answer "$1" gone >/dev/null
}

# keyed [KEY'S PROPERTIES]: options for RAM under a key; a random one by default
keyed() {
	echo "-object mktme-key,id=key0,${1:-source=cpu,algorithm=aes-xts-128}" \
		"-object $INNER_BACKEND,id=ram0,size=$INNER_RAM,mktme-key=key0" \
		"-M memory-backend=ram0"
}

# keyed_by NAME: the same, under the key in /keys/NAME.key and NAME.tweak, in base64
keyed_by() {
	echo "-object secret,id=data,file=/keys/$1.key,format=base64"
	echo "-object secret,id=tweak,file=/keys/$1.tweak,format=base64"
	keyed source=user,algorithm=aes-xts-128,key-secret=data,tweak-secret=tweak
}

# keep NAME [PAGES]: it keeps a secret (tests/guest/secret.c); prints where, in our memory
keep() {
	local gpa
	gpa=$(say "$1" "mkfifo /tmp/ask /tmp/told; secret ${2:-64} </tmp/ask >/tmp/told &" \
		"exec 5>/tmp/ask 6</tmp/told; read -r where <&6; echo \$where") || return
	echo "$gpa" >"/run/$1.secret"
	pa "$1" "$gpa"
}

# kept NAME: is the secret as it was?
kept() {
	say "$1" "echo >&5; read -r told <&6; echo \$told"
}
