#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Keys of the type "mktme" by the keyctl command: each of its operations does with
# them what it does with keys of other types, or is refused; who is given a key may
# use it, and nothing more.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/guest/tests/usekey

cat >"$T/script" <<'GUEST'
CPU="type=cpu algorithm=aes-xts-128"
USER="type=user algorithm=aes-xts-256 key=$(printf %064d 1) tweak=$(printf %064d 2)"
is() { # WHAT GOT WANTED
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "no $1: $2, not $3"; fi
}
# The last words of what it says, when it fails
error() { "$@" 2>&1 >/dev/null | sed '$!d; s/.*: //'; }
in_use() { cat /sys/kernel/mm/mktme/keyids_in_use; }
# KeyIDs come back a moment later
falls_to() { for i in $(seq 100); do [ "$(in_use)" -le "$1" ] && break; sleep 0.1; done; in_use; }
shown() { grep -o "$1: .*" /proc/keys; }

# add, padd, update, pupdate
a=$(keyctl add mktme a "$CPU" @u)
is "add" "$(shown a)" "a: cpu aes-xts-128 KeyID 1"
is "add, used" "$(usekey $a)" used
p=$(printf "$USER" | keyctl padd mktme p @u)
is "padd" "$(shown p)" "p: user aes-xts-256 KeyID 2"
is "padd of lines" "$(printf 'type=cpu\nalgorithm=aes-xts-256\n' | keyctl padd mktme p @u)" "$p"
is "the same name is the same key" "$(shown p | sed 's/ KeyID.*//')" "p: cpu aes-xts-256"
is "add of nonsense" "$(error keyctl add mktme n "type=none" @u)" "Invalid argument"
is "update keeps what is there, under another KeyID" \
	"$(usekey $a "keyctl update $a '$USER'" | tr '\n' ' ')" "used kept* "
is "pupdate too" "$(usekey $a "echo $CPU | keyctl pupdate $a" | tr '\n' ' ')" "used kept* "
is "erase" "$(usekey $a "keyctl update $a erase" | tr '\n' ' ')" "used sigbus "
is "an erased key" "$(usekey $a)" ENOKEY
is "shows no KeyID" "$(shown a)" "a: cpu aes-xts-128"
is "until it is updated" "$(keyctl update $a "$CPU"; usekey $a)" used

# read, print, pipe
for c in read print pipe; do
	is "$c is refused" "$(error keyctl $c $a)" "Operation not supported"
done

# describe, list, search, request
is "rdescribe" "$(keyctl rdescribe $a)" "mktme;0;0;3d010000;a"
is "describe" "$(keyctl describe $a | sed 's/^ *[0-9]*: //; s/  */ /g')" "alsw-v-----v------------ 0 0 mktme: a"
is "list" "$(keyctl list @u | grep -c ' mktme: [ap]$')" 2
is "rlist" "$(keyctl rlist @u | tr ' ' '\n' | grep -cx "$a\|$p")" 2
is "show" "$(keyctl show @u | grep -c 'mktme: [ap]$')" 2
is "search" "$(keyctl search @s mktme a)" "$a"
is "search for another" "$(error keyctl search @s mktme b)" "Required key not available"
is "search by another type" "$(error keyctl search @s user a)" "Required key not available"
is "request" "$(keyctl request mktme a)" "$a"
is "request for another" "$(error keyctl request mktme b)" "Required key not available"
is "id" "$(keyctl id %mktme:a)" "$a"
# Root's own rule may make the key that somebody asks for
printf '#!/bin/sh\nkeyctl instantiate $1 "%s" $2\n' "$CPU" >/tmp/make; chmod +x /tmp/make
echo "create mktme auto * /tmp/make %k %S" >/etc/request-key.d/mktme.conf
auto=$(keyctl request2 mktme auto info @u)
is "request with an upcall" "$(usekey $auto) $(shown auto | sed 's/ KeyID.*//')" "used auto: cpu aes-xts-128"
keyctl unlink $auto >/dev/null
is "in /proc/key-users" "$(awk '$1 == "0:" { split($3, n, "/"); print n[1] == n[2] }' /proc/key-users)" 1

# Keyrings: those of the command go with it
is "two in use" "$(falls_to 2)" 2
for ring in @t @p; do
	is "add to $ring" "$(keyctl add mktme in "$CPU" $ring >/dev/null; echo $?)" 0
	is "it goes with $ring" "$(falls_to 2)" 2
done
s=$(keyctl add mktme in-session "$CPU" @s)
is "session keyring" "$(usekey $s) $(in_use)" "used 3"
is "not that of another session" \
	"$(error keyctl session - keyctl search @s mktme in-session)" "Required key not available"
is "session that ends" "$(keyctl session - sh -c "keyctl add mktme s2 '$CPU' @s >/dev/null; cat /sys/kernel/mm/mktme/keyids_in_use" 2>/dev/null) $(falls_to 3)" "4 3"
keyctl unlink $s @s
is "unlink" "$(falls_to 2)" 2
us=$(keyctl add mktme in-us "$CPU" @us)
is "user session keyring" "$(usekey $us; keyctl link @us @s; usekey $us; keyctl unlink @us @s)" "EACCES
used"
is "clear" "$(keyctl clear @us; falls_to 2)" 2

# link, move, unlink
r=$(keyctl newring r @u); r2=$(keyctl newring r2 @u)
l=$(keyctl add mktme l "$CPU" $r)
keyctl link $l $r2; keyctl unlink $l $r
is "a link is as good as the first" "$(usekey $l)" used
keyctl move $l $r2 $r
is "moved" "$(keyctl search $r mktme l)" "$l"
is "two of a name" "$(keyctl add mktme l "$CPU" $r2 >/dev/null; in_use)" 4
is "one replaces the other" "$(keyctl link $l $r2; falls_to 3)" 3
keyctl unlink $l $r; keyctl unlink $l $r2
is "the last link" "$(falls_to 2)" 2
keyctl add mktme u1 "$CPU" $r >/dev/null; keyctl add mktme u2 "$CPU" $r >/dev/null
is "keyring that goes" "$(keyctl unlink $r @u; falls_to 2)" 2
is "memory outlives its key" \
	"$(m=$(keyctl add mktme m "$CPU" @u); usekey $m "keyctl unlink $m @u" "sleep 1" "cat /sys/kernel/mm/mktme/keyids_in_use" | tr '\n' ' ') $(falls_to 2)" \
	"used kept kept 3 kept  2"

# restrict_keyring
shut=$(keyctl newring shut @u)
keyctl restrict_keyring $shut
is "restricted keyring: link" "$(error keyctl link $a $shut)" "Operation not permitted"
is "restricted keyring: add" "$(error keyctl add mktme x "$CPU" $shut) $(falls_to 2)" "Operation not permitted 2"
is "no restrictions of its own" "$(error keyctl restrict_keyring $r2 mktme x)" "No such file or directory"

# revoke, invalidate, purge, timeout, gc delay
k=$(keyctl add mktme k "$CPU" @u)
is "revoke" "$(usekey $k "keyctl revoke $k; cat /sys/kernel/mm/mktme/keyids_in_use" | tr '\n' ' ') $(falls_to 2)" "used 3 kept  2"
is "revoked" "$(usekey $k) $(error keyctl update $k erase)" "EKEYREVOKED Key has been revoked"
is "reap" "$(keyctl reap)" "1 keys reaped"
k=$(keyctl add mktme k "$CPU" @u)
is "invalidate" "$(keyctl invalidate $k; falls_to 2) $(usekey $k)" "2 ENOKEY"
keyctl add mktme gone1 "$CPU" @u >/dev/null; keyctl add mktme gone2 "$CPU" @u >/dev/null
is "purge" "$(keyctl purge -i mktme gone1 | tail -1)" "purged 1 keys"
is "purge -p" "$(keyctl purge -p mktme gone >/dev/null; falls_to 2)" 2
gc=/proc/sys/kernel/keys/gc_delay; old=$(cat $gc)
k=$(keyctl add mktme k "$CPU" @u)
is "timeout" "$(usekey $k "keyctl timeout $k 1; sleep 2" | tr '\n' ' ')" "used kept "
is "expired" "$(usekey $k) $(error keyctl update $k erase)" "EKEYEXPIRED Key has expired"
is "it keeps its KeyID for the gc delay" "$(sleep 1; in_use)" 3
keyctl unlink $k @u; falls_to 2 >/dev/null
echo 1 >$gc
k=$(keyctl add mktme k "$CPU" @u); keyctl timeout $k 1
is "which can be short" "$(falls_to 2) $(keyctl list @u | grep -c ': k$')" "2 0"
echo $old >$gc

# Quota: counted to the key's owner
maxkeys=/proc/sys/kernel/keys/root_maxkeys; old=$(cat $maxkeys)
echo 1 >$maxkeys
is "quota" "$(error keyctl add mktme q "$CPU" @u) $(in_use)" "Disk quota exceeded 2"
echo $old >$maxkeys
maxbytes=/proc/sys/kernel/keys/maxbytes; old=$(cat $maxbytes)
q=$(keyctl add mktme q "$CPU" @u)
echo 1 >$maxbytes
is "quota of whom it is given to" "$(error keyctl chown $q 1000)" "Disk quota exceeded"
echo $old >$maxbytes

# Handed over: setperm, chown, chgrp, link
is "root's alone" "$(asuser 1000 usekey $q)" EACCES
keyctl setperm $q 0x3f010008
is "setperm: others may search" "$(asuser 1000 usekey $q)" used
keyctl setperm $q 0x3f090000; keyctl chown $q 1000
is "chown: its user" "$(asuser 1000 usekey $q)" used
is "and nobody else" "$(asuser 1001 usekey $q)" EACCES
is "its user may see it" "$(asuser 1000 keyctl rdescribe $q)" "mktme;1000;0;3f090000;q"
for c in "update $q erase" "revoke $q" "invalidate $q" "setperm $q 0x3f3f3f3f" "chown $q 1001" \
	"timeout $q 1" "link $q @u" "read $q"; do
	is "its user may not: ${c%% *}" "$(error asuser 1000 keyctl $c)" "Permission denied"
done
keyctl setperm $q 0x3f3f0000
is "with all rights: to use it no more" "$(error asuser 1000 keyctl update $q erase)" "Operation not permitted"
is "nor to make one" "$(error asuser 1000 keyctl add mktme mine "$CPU" @u)" "Operation not permitted"
is "nor in the request's place" "$(error asuser 1000 keyctl request2 mktme mine info @u)" "Required key not available"
keyctl chown $q 0; keyctl chgrp $q 1000; keyctl setperm $q 0x3f010900
is "chgrp: its group" "$(asuser 1000 usekey $q) $(asuser 1001 usekey $q)" "used EACCES"
# By a link in a keyring that was given to them, they possess it
h=$(keyctl newring given @u); keyctl link $q $h; keyctl setperm $q 0x08200000
keyctl setperm $h 0x3f3f0000; keyctl chown $h 1000
is "possessors may search: it takes the keyring" "$(asuser 1000 usekey $q)" EACCES
is "link" "$(asuser 1000 sh -c "keyctl link $h @s; usekey $q; keyctl update $q erase 2>&1; keyctl rdescribe $q 2>&1" |
	sed 's/.*: //' | tr '\n' ' ')" "used Permission denied Permission denied "
keyctl unlink $h @u

# Across user namespaces nothing is gained
keyctl setperm $q 0x3f3f0000
is "root of a user namespace" "$(error asuser 1000 unshare -Ur keyctl add mktme ns "$CPU" @u)" "Operation not permitted"
is "has no access" "$(asuser 1000 unshare -Ur usekey $q)" EACCES
is "root that became one" "$(error unshare -U keyctl add mktme ns "$CPU" @u) $(error unshare -Ur keyctl update $q erase)" \
	"Operation not permitted Operation not permitted"
keyctl chown $q 1000; keyctl setperm $q 0x3f090000
is "who was given it may use it there" "$(asuser 1000 unshare -Ur usekey $q)" used
is "and nothing more" "$(error asuser 1000 unshare -Ur keyctl update $q erase)" "Permission denied"

keyctl clear @u
is "all KeyIDs are back" "$(falls_to 0)" 0
is "the emulator has none" "$(host qmp query-mktme | grep -c '"keyid"')" 0
GUEST
guest --cache strict --add "$T/script:/script" -- 'sh /script' >"$T/o" 2>"$T/e" || diag <"$T/e"
while read -r how what; do
	case $how in
	ok) pass "$what" ;;
	no) fail "$what" ;;
	*) echo "$how $what" | diag ;;
	esac
done <"$T/o"
# shellcheck disable=SC2154  # lib.sh's
is "all of it ran" "$tap_n" 87
done_testing
