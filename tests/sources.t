#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Trees that are not what the series is for are refused by a line that says what to
# do; a user's own tree is copied and left as it is; nothing half done is taken for done.
. "$(dirname "$0")/lib.sh"

# The project, without what it built, and without a network
p=$T/project
mkdir -p "$p" "$T/bin"
cp -r "$TOP/tools" "$TOP/linux" "$TOP/qemu" "$p/"
printf '#!/bin/sh\necho "E: no network" >&2; exit 100\n' >"$T/bin/apt-get"
chmod +x "$T/bin/apt-get"
export PATH=$T/bin:$PATH

tree() { # a tree as Linux is, as far as one looks
	rm -rf "$T/tree"
	mkdir -p "$T/tree/arch/x86"
	printf 'VERSION = 6\nPATCHLEVEL = %s\nSUBLEVEL = 99\n' "$1" >"$T/tree/Makefile"
	touch "$T/tree/Kbuild"; git -C "$T/tree" init -q sub; touch "$T/tree/sub/file"; echo '*.o' >"$T/tree/.gitignore"; echo ignored >"$T/tree/x.o"
}
get() { (cd "$p" && LINUX_SRC=$1 tools/source linux); }

refused "a directory that isn't there" 'LINUX_SRC=.*: no such directory' get "$T/none"
mkdir "$T/empty"
refused "a directory that is no such tree" 'is not a source tree of Linux' get "$T/empty"
tree 11
refused "another version" 'is Linux 6\.11\.99, and the series is for Linux 6\.12' get "$T/tree"
tree 12; mkdir -p "$T/tree/arch/x86/mm"; touch "$T/tree/arch/x86/mm/mktme.c"
refused "a patched tree" 'has arch/x86/mm/mktme.c already' get "$T/tree"
tree 12; touch "$T/tree/.config"
refused "a tree that was built in" 'make mrproper' get "$T/tree"
refused "and as for QEMU" 'QEMU_SRC=.* is not a source tree of QEMU' \
	env QEMU_SRC="$T/tree" "$p/tools/source" qemu
ok "none of which left anything" test ! -e "$p/build/linux/src"

tree 12
cp -a "$T/tree" "$T/before"
mkdir -p "$p/build/linux/src.new/half"
ok "a tree of the right version is taken" get "$T/tree"
ok "and left as it is" diff -r "$T/tree" "$T/before"
is "all of it, over what an interruption left" "$(git -C "$p/build/linux/src" ls-tree -r --name-only base | tr '\n' ' ')" \
	".gitignore Kbuild Makefile sub/file x.o "
is "the second time there is nothing to do" "$(get "$T/tree" 2>&1)" ""
refused "another tree, when one stands there" 'was made from .*: remove it' get "$T/before"
# On stdout it says that it begins
apply() { "$p/tools/series" apply linux >/dev/null; }
refused "a series that does not fit" 'linux/patches/0001-.* does not apply to this Linux.*remove .*build/linux/src' apply
is "and does not half" "$(git -C "$p/build/linux/src" log --oneline | wc -l)" 1

ok "without a network, QEMU can't be had" eval '! "$p/tools/source" qemu >"$T/o" 2>&1'
like "the last line says what to do" "$(tail -1 "$T/o")" '^source: .*log: build/log/download-qemu.log.*QEMU_SRC=DIR'
ok "and nothing is left" test ! -e "$p/build/qemu/src"
need build/cache/qemu
rm -r "$p/build/cache/qemu"; ln -s "$TOP/build/cache/qemu" "$p/build/cache/qemu"
ok "with what was downloaded once it can" "$p/tools/source" qemu
ok "all of it" git -C "$p/build/qemu/src" rev-parse -q --verify base:target/i386/cpu.c

mkdir "$T/a b"; cp -r "$p/tools" "$T/a b/"
refused "a place where the kernel can't be built" "can't be built below a path with a space" "$T/a b/tools/deps"

# Packages: none is missing, or a line says which
printf 'sources.t-no-such-package\n' >"$p/tools/packages"
printf '#!/bin/sh\necho 1000\n' >"$T/bin/id"; chmod +x "$T/bin/id"
mkdir "$T/nosudo"
for f in basename bash sh cat sed grep dirname mktemp rm mkdir dpkg-query env; do ln -s "$(type -P "$f")" "$T/nosudo/$f"; done
ln -s "$T/bin/id" "$T/bin/apt-get" "$T/nosudo/"
refused "a missing package, and nobody to install it" 'apt-get install sources.t-no-such-package' \
	env PATH="$T/nosudo" "$p/tools/deps"
printf 'bash\n' >"$p/tools/packages"
# shellcheck disable=SC2013  # words
for f in $(sed -n 's/^for tool in \(.*\); do$/\1/p' "$p/tools/deps"); do ln -s "$(type -P "$f")" "$T/nosudo/$f"; done
is "without one missing, apt isn't asked" "$(PATH=$T/nosudo "$p/tools/deps" 2>&1)" ""
rm "$T/nosudo/flex"
refused "a tool that PATH does not have" 'flex is not in PATH' env PATH="$T/nosudo" "$p/tools/deps"
done_testing
