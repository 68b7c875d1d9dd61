#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What sparse, and gcc with W=1, say of the C files that the series touches is what they
# say of them without it.  Not part of "make test": "make sparse-check" installs sparse,
# and runs it.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
need build/linux/src/Makefile build/linux/stock-src/Makefile
src=$TOP/build/linux/src stock=$TOP/build/linux/stock-src

# The tests of KUnit are a part of the file that they test
mapfile -t files < <(git -c safe.directory='*' -C "$src" diff --name-only base -- '*.c' ':!tools' | grep -v '_test\.c$')

# check SRC NAME: of those files that are there; the log is $T/NAME
# shellcheck disable=SC2317  # called by ok
check() {
	local from=$1 out=$TOP/build/linux/out-sparse/$2 f objs=()
	# mm/page_ext.c, which the series selects
	echo CONFIG_PAGE_OWNER=y >"$T/page_owner.config"
	"$TOP/tools/kconfig" "$from" "$out-config" "$TOP/vm/kernel.config" "$T/page_owner.config" || return
	mkdir -p "$out"
	cmp -s "$out-config/.config" "$out/.config" || cp "$out-config/.config" "$out/.config"
	for f in "${files[@]}"; do
		[ ! -f "$from/$f" ] || objs+=("${f%.c}.o")
	done
	make -C "$from" O="$out" -j"$(nproc)" prepare >"$T/$2" 2>&1 || return
	# What is up to date is not compiled, and says nothing
	(cd "$out" && rm -f "${objs[@]}")
	make -C "$from" O="$out" -j"$(nproc)" C=2 W=1 "${objs[@]}" >"$T/$2" 2>&1
}

# warnings NAME: without line numbers, each as often as it is said
warnings() { grep -E '(warning|error): ' "$T/$1" | sed -E "s,^.*/(stock-)?src/,,; s/:[0-9]+:[0-9]+:/:/" | sort; }

# sparse doesn't follow the locks of functions that return them, as pte_offset_map_lock(),
# and says so of each caller in Linux
known="mm/encrypt_mprotect.c: warning: context imbalance in 'rekey_pmd' - unexpected unlock
mm/encrypt_mprotect.c: warning: context imbalance in 'rekey_ptes' - unexpected unlock"

ok "sparse is there" sparse --version
ok "the files as Linux has them" check "$stock" stock
ok "the files of the series" check "$src" series
is "each of these went through sparse" \
	"$(for f in "${files[@]}"; do grep -q "^  CHECK .*/src/$f\$" "$T/series" || echo "$f"; done)" ""
is "nothing is said that is not said without the series" \
	"$(diff <(warnings stock) <(warnings series) | sed -n 's/^> //p')" "$known"
cp "$T/stock" "$TOP/build/log/sparse-stock.log"
cp "$T/series" "$TOP/build/log/sparse.log"
done_testing
