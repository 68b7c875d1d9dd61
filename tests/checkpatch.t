#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# checkpatch.pl of each tree, --strict, has no error and no warning for the series but
# those that checkpatch.list explains; and MAINTAINERS covers every new file.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
need build/linux/src/Makefile build/qemu/src/configure
git_() { GIT_CONFIG_GLOBAL=/dev/null git -c safe.directory='*' -C "$src" "$@"; }

# said TREE: WHERE<tab>WHAT, a line for each message; ? where it is of no file
said() {
	local p
	for p in "$T/$1"/*.patch; do
		if [ "$1" = linux ]; then
			perl "$src/scripts/checkpatch.pl" --strict --no-tree --root="$src" --terse --show-types --showfile \
				--no-summary --no-signoff "$p" |
				sed -En "s/^([^:]*):[0-9]+: (ERROR|WARNING|CHECK):([A-Z_]+): .*/\1\t\3/; t said; s/^/?\t/; :said; s/^\t/?\t/; p"
		else
			(cd "$src" && perl scripts/checkpatch.pl --strict --terse --no-summary --no-signoff "$p") |
				sed -E "s,^.*/([^/:]*):[0-9]+: ,\1\t,"
		fi
	done
}

for tree in linux qemu; do
	src=$TOP/build/$tree/src
	tip=$("$TOP/tools/series" tip $tree)
	git_ format-patch -q -o "$T/$tree" "base..$tip"
	is "$tree: all patches" "$(find "$T/$tree" -name '*.patch' | wc -l)" "$(grep -c . "$TOP/$tree/patches/series")"
	(cd "$T" && said $tree) >"$T/said"
	awk -F '\t+' -v tree=$tree '$1 == tree { print $2 "\t" $3 }' "$TOP/tests/checkpatch.list" >"$T/known"
	new='' used=''
	while IFS=$'\t' read -r where what; do
		for ((i = 1; ; i++)); do
			IFS=$'\t' read -r at is <<<"$(sed -n "${i}p" "$T/known")"
			[ "$at" ] || { new+="$where $what"$'\n'; break; }
			# shellcheck disable=SC2053  # a pattern
			[[ $where != $at || $what != *"$is"* ]] || { used+=" $i "; break; }
		done
	done <"$T/said"
	is "$tree: checkpatch says nothing that is not explained" "$new" ""
	for ((i = 1; i <= $(wc -l <"$T/known"); i++)); do
		[[ $used == *" $i "* ]] || echo "$(sed -n "${i}p" "$T/known"): is not said any more"
	done >"$T/stale"
	is "$tree: and no explanation is too many" "$(cat "$T/stale")" ""

	section='MULTI-KEY TOTAL MEMORY ENCRYPTION'
	git_ diff --name-only --diff-filter=A "base..$tip" >"$T/new"
	is "$tree: MAINTAINERS covers every new file" \
		"$(cd "$src" && while read -r f; do
			perl scripts/get_maintainer.pl --nogit --nogit-fallback --sections -f "$f" 2>&1 |
				grep -iq "$section" || echo "$f"
		done <"$T/new")" ""
done
done_testing
