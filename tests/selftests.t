#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's own selftests (linux/tools/testing/selftests/x86/mktme) pass in a
# guest with MKTME, and skip, each and all, in one without.  They need no more of the
# machine than they say, one KeyID or an algorithm, and leave its settings as they were.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests

# A selftest's TAP, with the harness' own chatter as diagnostics
run() { # NAME WHAT WANTED-REGEX OPTIONS...
	local name=$1 what=$2 re=$3 status=0
	shift 3
	guest "$@" -- "/tests/selftests/$name" >"$T/o" 2>"$T/e" || status=$?
	# 4 is kselftest's SKIP
	if { [ $status = 0 ] || [ $status = 4 ]; } && ! grep -q '^not ok' "$T/o" && grep -Eq "$re" "$T/o"; then
		pass "$name $what: $(sed -n 's/^# Totals: //p' "$T/o")"
	else
		fail "$name $what: exit status $status"
		{ grep -v '^ok' "$T/o"; cat "$T/e"; } | diag >&2
	fi
}
n=0
for f in "$TOP"/build/guest/tests/selftests/*; do
	[ -x "$f" ] || continue
	n=$((n + 1))
	run "${f##*/}" "with MKTME" 'Totals: pass:[1-9]'
	run "${f##*/}" "without" 'Totals: pass:[0-9]+ fail:0' --no-mktme
done
[ $n -gt 0 ] || fail "there are selftests"

# What makes keys is enough for most of it, and a capability in another namespace is not
guest -- '/tests/ascap 1000 24 /tests/selftests/encrypt_mprotect' >"$T/o" 2>"$T/e" || diag <"$T/e"
like "as a user with CAP_SYS_RESOURCE alone: none fails" "$(grep '^# Totals' "$T/o")" 'pass:[1-9][0-9]* fail:0 .* skip:2 '
guest -- 'for t in /tests/selftests/*; do unshare -Ur $t; done' >"$T/o" 2>"$T/e" || diag <"$T/e"
is "as root of another user namespace: all is skipped" \
	"$(sed -n 's/^# Totals: \(pass:[0-9]* fail:[0-9]*\) .*/\1/p' "$T/o" | sort | uniq -c | sed 's/^ *//')" "$n pass:0 fail:0"

# one_after_the_other NAMES COMMAND OPTIONS...: in one guest, after COMMAND; what they say
# is in $T/o, and settings that are not as they were, in $T/settings
one_after_the_other() {
	local names=$1 command=$2
	shift 2
	guest "$@" -- "$command
		settings() {
			cd /sys/kernel/mm
			grep -H . hugepages/*/nr_hugepages transparent_hugepage/enabled \
				transparent_hugepage/hugepages-*/enabled /sys/fs/cgroup/cgroup.subtree_control \
				/proc/sys/vm/hugetlb_optimize_vmemmap /proc/sys/kernel/hung_task_timeout_secs
			grep HardwareCorrupted /proc/meminfo
			cut -d' ' -f2 /proc/mounts
			ls /tmp
		}
		settings >/before 2>&1
		for t in /tests/selftests/$names; do \$t; done
		settings >/after 2>&1
		diff /before /after | sed 's/^/settings: /'" >"$T/o" 2>"$T/e" || true
	sed -n 's/^settings: //p' "$T/o" >"$T/settings"
}
skipped() { sed -n 's/^ok .* # SKIP //p' "$T/o" | sort -u | tr '\n' ';'; }

one_after_the_other '*' true --mktme aes-xts-128=off
is "with AES-XTS-256 alone: none fails" "$(grep '^not ok' "$T/o")" ""
is "all run" "$(grep -c '^# Totals: pass:[1-9]' "$T/o")" $n
is "but for want of AES-XTS-128, 1G pages, a second node" "$(skipped)" \
	"aes-xts-128 is not enabled;needs two nodes;no huge pages of this size;"
is "settings are as they were" "$(cat "$T/settings")" ""

# few_keyids BITS KEYIDS PROGRAMS SKIPS: of so many programs something passes
few_keyids() {
	one_after_the_other '*' 'cat /sys/kernel/mm/mktme/keyids_total' --keyid-bits "$1"
	is "with KeyIDs: $2" "$(head -n 1 "$T/o")" "$2"
	is "none fails" "$(grep '^not ok' "$T/o")" ""
	is "all programs end" "$(grep -c '^# Totals: ' "$T/o")" $n
	is "and something passes of $3" "$(grep -c '^# Totals: pass:[1-9]' "$T/o")" "$3"
	is "they skip what needs more" "$(skipped)" "$4needs two nodes;no huge pages of this size;"
	is "settings are as they were" "$(cat "$T/settings")" ""
}
# All of mktme_rekey takes two
few_keyids 1 1 $((n - 1)) "needs 16 KeyIDs;needs 2 KeyIDs;needs 3 KeyIDs;needs 4 KeyIDs;"
few_keyids 2 3 $n "needs 16 KeyIDs;needs 4 KeyIDs;"
few_keyids 4 15 $n "needs 16 KeyIDs;"

# shellcheck disable=SC2016  # for the guest
one_after_the_other '*keys' 'keyctl add mktme others "type=cpu algorithm=aes-xts-128" @u >/dev/null' --mktme aes-xts-256=off
is "with AES-XTS-128 alone, and a key of somebody else: none fails" "$(grep '^not ok' "$T/o")" ""
is "those that count KeyIDs say so" "$(skipped)" "KeyIDs are in use by others;"
done_testing
