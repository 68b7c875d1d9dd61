#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The manual pages are well-formed, tell the errors that the kernel's documentation tells,
# and their examples do what they say.
. "$(dirname "$0")/lib.sh"
need build/linux/out/vmlinux build/qemu/out/qemu-system-x86_64 build/linux/headers/include/linux/mktme.h

for f in "$TOP"/docs/man/*.[1-9]; do
	name=${f##*/}
	# Of style it says "lower case character in document title", of a name that is in lower
	# case: the man-pages project has titles as the names are written, and so has this
	is "$name: mandoc" "$(mandoc -T lint -W warning "$f" 2>&1)" ""
	is "$name: man" "$(LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l -Tutf8 -Z "$f" 2>&1 >/dev/null)" ""
done

# The errors
in_page() { sed -n '/^\.SH ERRORS/,/^\.SH [^E]/p' "$TOP/docs/man/$1" | grep -oE '^\.B E[A-Z]+$' | sed 's/^\.B //' | sort -u; }
in_rst() { grep -oE '^``E[A-Z]+``(, ``E[A-Z]+``)*' "$TOP/linux/Documentation/arch/x86/mktme/$1" | grep -oE 'E[A-Z]+' | sort -u; }
errors=$(in_page encrypt_mprotect.2)
like "encrypt_mprotect.2: errors" "$errors" '^EACCES'
is "those of encrypt_mprotect.rst" "$(in_rst encrypt_mprotect.rst)" "$errors"
is "and of the function's comment" "$(sed -n '/^ \* sys_encrypt_mprotect/,/^ \*\//p' "$TOP/linux/mm/encrypt_mprotect.c" |
	grep -oE -- '-E[A-Z]+' | tr -d - | sort -u)" "$errors"
errors=$(in_page mktme.7)
like "mktme.7: errors" "$errors" '^EACCES'
is "those of keys.rst" "$(in_rst keys.rst)" "$errors"

# The example as one who reads the page would type it in
MANWIDTH=200 man -P cat -l "$TOP/docs/man/encrypt_mprotect.2" 2>/dev/null | col -b |
	sed -n '/^EXAMPLES/,/^SEE ALSO/{s/^       //;/^EXAMPLES\|^SEE ALSO/d;p}' >"$T/example.c"
ok "encrypt_mprotect.2: the example compiles" gcc -static -Wall -Werror -isystem "$TOP/build/linux/headers/include" \
	-o "$T/example" "$T/example.c" -lkeyutils
is "and runs" "$(guest --cache strict --add "$T/example:/example" -- '/example && echo done')" "done"
is "without the hardware it says so" "$(guest --no-mktme --add "$T/example:/example" -- /example 2>&1)" "example: add_key: No such device"

# The keyctl lines, in their order
sed -n '/^\.EX/,/^\.EE/{s/^# //p}' "$TOP/docs/man/mktme.7" | sed 's/\\-/-/g' >"$T/lines"
is "mktme.7: keyctl lines" "$(wc -l <"$T/lines")" 3
is "run as written" "$(guest --cache strict --add "$T/lines:/lines" -- '
	sed -i "s/274713372/\$key/; 1s/\(.*\)/key=\$(\1)/; s/\$/ || exit 1/" /lines; . /lines; echo done' 2>&1)" "done"

# The administrator's guide: its lines, in their order
sed -n 's/^  # //p' "$TOP/linux/Documentation/arch/x86/mktme/admin.rst" | sed 's,/proc/1234/,/proc/$tenant/,' >"$T/admin"
is "admin.rst: lines" "$(wc -l <"$T/admin")" 9
like "run as written" "$(guest --cache strict --add "$T/admin:/admin" -- '
	mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; mkdir /sys/fs/cgroup/tenant
	sed -i "s/\$/ || exit 1/; s/\(#.*\)\( || exit 1\)/\2/" /admin
	sleep 1000 & tenant=$!
	# Nothing of that is under a key
	sed -i "/smaps/s/|| exit 1/\&\& exit 1/" /admin
	. /admin; echo done; cat /sys/fs/cgroup/tenant/misc.max; keyctl describe $key' 2>&1 | tail -3 | tr '\n' ' ')" \
	'^done mktme 8 +[0-9]+: alswrv--s--v-+  1000 +0 mktme: vm1 $'
done_testing
