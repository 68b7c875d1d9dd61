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
	mapfile -t known < <(awk -F '\t+' -v tree=$tree '$1 == tree { print $2 "\t" $3 }' "$TOP/tests/checkpatch.list")
	new='' stale=("${known[@]}")
	while IFS=$'\t' read -r where what; do
		for i in "${!known[@]}"; do
			# shellcheck disable=SC2053  # a pattern
			[[ $where != ${known[i]%$'\t'*} || $what != *"${known[i]#*$'\t'}"* ]] || { unset "stale[i]"; continue 2; }
		done
		new+="$where $what"$'\n'
	done <"$T/said"
	is "$tree: checkpatch says nothing that is not explained" "$new" ""
	is "$tree: and every explanation is of something that it says" "${stale[*]}" ""

	section='MULTI-KEY TOTAL MEMORY ENCRYPTION'
	git_ diff --name-only --diff-filter=A "base..$tip" >"$T/new"
	is "$tree: MAINTAINERS covers every new file" \
		"$(cd "$src" && while read -r f; do
			perl scripts/get_maintainer.pl --nogit --nogit-fallback --sections -f "$f" 2>&1 |
				grep -iq "$section" || echo "$f"
		done <"$T/new")" ""
done
done_testing
