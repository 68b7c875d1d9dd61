#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Trees that are not what the series is for are refused by a line that says what to
# do; a user's own tree is copied and left as it is; nothing half done is taken for done.
# Without a tree of the user's, what was downloaded once is taken, then Debian's suites are
# looked at, then upstream's archive, whose releases must be signed by the keys that are known.
. "$(dirname "$0")/lib.sh"

# The project, without what it built; and an apt that has its lists in $T/lists and its mirror
# in $T/pool, once there is $T/network
p=$T/project
mkdir -p "$p" "$T/bin" "$T/lists" "$T/pool" "$T/archive"
cp -r "$TOP/tools" "$TOP/linux" "$TOP/qemu" "$p/"
cat >"$T/bin/apt-get" <<-E
	#!/bin/bash
	[ -e "$T/network" ] || { echo "E: no network" >&2; exit 100; }
	echo "\$*" >>"$T/asked"
	what=\${!#}
	case \$* in
	*indextargets*) echo "Debian|\$(. /etc/os-release; echo "\$VERSION_CODENAME")|main|http://mirror.invalid/debian/" ;;
	*madison*) cat "$T/lists/\$what" 2>/dev/null || echo "N: Unable to locate package \$what" >&2 ;;
	*=*-1) file=\${what##*[=:]}; cp "$T/pool/\${what%%=*}_\${file%-*}"* . || { echo "E: 404 Not Found"; exit 100; } ;;
	esac
E
chmod +x "$T/bin/apt-get"
ln -s apt-get "$T/bin/apt-cache"
export PATH=$T/bin:$PATH LINUX_ARCHIVE=file://$T/archive QEMU_ARCHIVE=file://$T/archive

tree() { # a tree as Linux is, as far as one looks
	rm -rf "$T/tree"
	mkdir -p "$T/tree/arch/x86"
	printf 'VERSION = 7\nPATCHLEVEL = %s\nSUBLEVEL = 99\n' "$1" >"$T/tree/Makefile"
	touch "$T/tree/Kbuild"; git -C "$T/tree" init -q sub; touch "$T/tree/sub/file"; echo '*.o' >"$T/tree/.gitignore"; echo ignored >"$T/tree/x.o"
}
get() { (cd "$p" && LINUX_SRC=$1 tools/source linux); }

refused "a directory that isn't there" 'LINUX_SRC=.*: no such directory' get "$T/none"
mkdir "$T/empty"
refused "a directory that is no such tree" 'is not a source tree of Linux' get "$T/empty"
tree 2
refused "another version" 'is Linux 7\.2\.99, and the series is for Linux 7\.3' get "$T/tree"
tree 3; mkdir -p "$T/tree/arch/x86/mm"; touch "$T/tree/arch/x86/mm/mktme.c"
refused "a patched tree" 'has arch/x86/mm/mktme.c already' get "$T/tree"
tree 3; touch "$T/tree/.config"
refused "a tree that was built in" 'make mrproper' get "$T/tree"
refused "and as for QEMU" 'QEMU_SRC=.* is not a source tree of QEMU' \
	env QEMU_SRC="$T/tree" "$p/tools/source" qemu
ok "none of which left anything" test ! -e "$p/build/linux/src"

tree 3
cp -a "$T/tree" "$T/before"
mkdir -p "$p/build/linux/src.new/half"
is "a tree of the right version is taken" "$(get "$T/tree" | tail -1)" "Linux 7.3.99, from LINUX_SRC=$T/tree"
ok "and left as it is" diff -r "$T/tree" "$T/before"
is "all of it, over what an interruption left" "$(git -C "$p/build/linux/src" ls-tree -r --name-only base | tr '\n' ' ')" \
	".gitignore Kbuild Makefile sub/file x.o "
is "the second time there is nothing to do" "$(get "$T/tree" 2>&1)" ""
refused "another tree, when one stands there" 'was made from .*: remove it' get "$T/before"
# On stdout it says that it begins
apply() { "$p/tools/series" apply linux >/dev/null; }
refused "a series that does not fit" 'linux/patches/0001-.* does not apply to this Linux.*remove .*build/linux/src' apply
is "and does not half" "$(git -C "$p/build/linux/src" log --oneline | wc -l)" 1

# From elsewhere
empty() { rm -rf "$p/build/linux" "$p/build/qemu" "$p/build/cache"; rm -f "$T/asked"; }
# The last line of what tools/source says of TREE; all of it is in $T/o
source_of() { LINUX_SRC='' QEMU_SRC='' "$p/tools/source" "$1" >"$T/o" 2>&1; tail -1 "$T/o"; }
# not_taken WHAT TREE REGEX: the last line says what to do, one before it why; nothing is left
not_taken() {
	like "$1: not taken" "$(source_of "$2")" "^source: .*log: build/log/download-$2.log.*${2^^}_SRC=DIR"
	like "$1: says why" "$(cat "$T/o")" "$3"
	is "$1: leaves nothing" "$(ls -A "$p/build/cache/$2" 2>&1; ls -d "$p/build/$2/src" 2>/dev/null)" ""
}
made=$T/made
upstream() { # TREE VERSION: what upstream's tar has, in $made
	local dir=$made/$1-$2 a b c
	rm -rf "$made"
	if [ "$1" = linux ]; then
		mkdir -p "$dir/arch/x86"
		IFS=. read -r a b c <<<"$2"
		printf 'VERSION = %s\nPATCHLEVEL = %s\nSUBLEVEL = %s\n' "$a" "$b" "$c" >"$dir/Makefile"
		touch "$dir/Kbuild"
	else
		mkdir -p "$dir/target/i386"
		echo "$2" >"$dir/VERSION"
		touch "$dir/target/i386/cpu.c"
	fi
}
source_package() { # TREE VERSION SUFFIX: into the pool
	local dir=$made/$1-$2
	upstream "$1" "$2"
	tar -C "$made" -cJf "$made/$1_$2$3.orig.tar.xz" "$1-$2"
	mkdir -p "$dir/debian/source"
	echo '3.0 (quilt)' >"$dir/debian/source/format"
	printf 'Source: %s\nMaintainer: A <a@example.org>\n\nPackage: %s\nArchitecture: any\n' "$1" "$1" >"$dir/debian/control"
	printf '%s (%s-1) sid; urgency=low\n\n  * New.\n\n -- A <a@example.org>  Tue, 01 Dec 2026 00:00:00 +0000\n' \
		"$1" "$2$3" >"$dir/debian/changelog"
	(cd "$made" && dpkg-source -b "$1-$2") >/dev/null 2>&1
	mv "$made"/*.dsc "$made"/*.tar.xz "$T/pool/"
}
listed() { # PACKAGE VERSION SUITE KIND: as apt-cache madison tells it
	printf '%9s | %9s | http://mirror.invalid/debian %s/main %s\n' "$@" >>"$T/lists/$1"
}

empty
not_taken "without a network, QEMU" qemu '^apt: apt knows no mirror|^E: no network'
not_taken "without a network, Linux" linux '^apt: apt knows no mirror|^E: no network'
touch "$T/network"
listed qemu 1:11.1.3+ds-1 sid Sources
listed qemu 1:10.20.1+ds-1 sid Sources
listed qemu 1:10.2.4~rc1+ds-1 experimental Sources
listed qemu 1:10.2.1+ds-1 forky Sources
listed qemu 1:10.2.2+ds-1 sid Sources
listed qemu 1:10.2.3+ds-1 trixie-backports Sources
rm -f "$T/asked"
not_taken "what lists have and the mirror has not" qemu '^E: 404 Not Found'
is "the versions of the line are asked for, the newest first, and again with new lists" \
	"$(grep -Eo 'qemu=.*|update$' "$T/asked" | tail -7 | sed 's/qemu=1:\(.*\)+ds-1/\1/' | tr '\n' ' ')" \
	"10.2.3 10.2.2 10.2.1 update 10.2.3 10.2.2 10.2.1 "
source_package qemu 10.2.1 +ds; source_package qemu 10.2.2 +ds; source_package qemu 11.1.3 +ds
is "of what the mirror has, the newest of the line" "$(source_of qemu)" "QEMU 10.2.2, from sid, qemu 1:10.2.2+ds-1"
is "without what Debian adds" "$(cd "$p/build/qemu/src" && echo .g* *)" ".git VERSION target"
rm -r "$p/build/qemu" "$T/asked"
is "what was downloaded once is taken again" "$(source_of qemu)" "QEMU 10.2.2, from build/cache/qemu/qemu_10.2.2+ds-1.dsc"
ok "and nobody is asked" test ! -e "$T/asked"
rm -r "$p/build/qemu" "$p/build/cache/qemu"/*.debian.tar.xz
like "a download that was damaged since is named" "$(source_of qemu)" '^source: .* could not be unpacked: remove build/cache/qemu'
ok "and not taken" test ! -e "$p/build/qemu/src"

empty
upstream linux 7.3.2
mkdir -p "$made/deb/usr/src" "$made/deb/DEBIAN"
tar -C "$made" -cJf "$made/deb/usr/src/linux-source-7.3.tar.xz" linux-7.3.2
printf 'Package: linux-source-7.3\nVersion: 7.3.2-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: a\n' \
	>"$made/deb/DEBIAN/control"
dpkg-deb -b "$made/deb" "$T/pool/linux-source-7.3_7.3.2-1_all.deb" >/dev/null
listed linux-source-7.3 7.3~rc7-1 experimental 'amd64 Packages'
listed linux-source-7.3 7.3.2-1 sid 'amd64 Packages'
listed linux 7.3.3-1 sid Sources
is "Linux is Debian's package of its source" "$(source_of linux)" "Linux 7.3.2, from sid, linux-source-7.3 7.3.2-1"
empty
rm "$T/pool"/linux-source*
source_package linux 7.3.3 ''
is "where that is gone, the source package" "$(source_of linux)" "Linux 7.3.3, from sid, linux 7.3.3-1"
is "without what Debian adds" "$(cd "$p/build/linux/src" && echo .g* *)" ".git Kbuild Makefile arch"

# From upstream's archive
gpg() { command gpg --homedir "$T/gpg" --batch --no-tty -q --passphrase '' "$@" 2>/dev/null; }
fingerprint() { gpg --with-colons "$@" | awk -F: '/^pub/ { primary = 1 } primary && /^fpr/ { print $10; primary = 0 }'; }
pinned() { awk -v tree="$1" '$1 == tree { print $2 }' "$TOP/tools/releases"; }
mkdir -m 700 "$T/gpg"
mapfile -t keys < <(grep -oE '\b[0-9A-F]{40}\b' "$TOP/tools/releases")
ok "there are keys" test ${#keys[@]} -gt 1
for key in "${keys[@]}"; do
	is "tools/keys/$key.asc is that key" "$(fingerprint --show-keys "$TOP/tools/keys/$key.asc")" "$key"
done
for who in right wrong; do gpg --quick-generate-key "$who@example.org" ed25519 sign never; done
right=$(fingerprint --list-keys right@example.org)
sed -i -E "s/\b[0-9A-F]{40}\b/$right/g" "$p/tools/releases"
gpg --armor --export "$right" >"$p/tools/keys/$right.asc"
released() { # TREE WHO [VERSION]: as upstream's archive has it, signed by WHO; of VERSION, by the other's name
	local version is
	version=$(pinned "$1") is=${3:-$version}
	upstream "$1" "$is"
	tar -C "$made" -cf "$made/tar" "$1-$is"
	rm -f "$T/archive/$1"*
	xz -c "$made/tar" >"$T/archive/$1-$version.tar.xz"
	case $1 in
	linux) gpg -u "$2@example.org" --armor -o "$T/archive/linux-$version.tar.sign" --detach-sign "$made/tar" ;;
	qemu) gpg -u "$2@example.org" -o "$T/archive/qemu-$version.tar.xz.sig" --detach-sign "$T/archive/qemu-$version.tar.xz" ;;
	esac
}
rm "$T/pool"/*
for tree in linux qemu; do
	empty
	version=$(pinned $tree)
	name=${tree/linux/Linux} name=${name/qemu/QEMU} tar=$T/archive/$tree-$version.tar.xz
	not_taken "$name: a release that is not there" $tree "^E: Failed to fetch"
	released $tree wrong
	not_taken "$name: signed by another key" $tree "^E: .*$tree-$version.tar.xz is not signed by $right"
	released $tree right
	cp "$tar" "$T/whole"
	tar -C "$T" -rf "$made/tar" whole
	xz -c "$made/tar" >"$tar"
	not_taken "$name: changed after it was signed" $tree 'is not signed by'
	released $tree right "${version%.*}.1"
	not_taken "$name: an older release by its name" $tree 'is another release'
	if [ $tree = linux ]; then	# the same for QEMU
		released $tree right
		head -c -20 "$tar" >"$T/short" && mv "$T/short" "$tar"
		not_taken "$name: cut short" $tree 'is not signed by'
		released $tree right
		: >"$(ls "$T/archive/$tree"*.si*)"
		not_taken "$name: with an empty signature" $tree 'is not signed by'
		rm "$T/archive/$tree"*.si*
		not_taken "$name: without a signature" $tree '^E: Failed to fetch'
		released $tree wrong
		mv "$p/tools/keys/$right.asc" "$T/right.asc"
		gpg --armor --export wrong@example.org >"$p/tools/keys/$right.asc"
		not_taken "$name: by another key under the right one's name" $tree 'is not signed by'
		mv "$T/right.asc" "$p/tools/keys/$right.asc"
	fi
	released $tree right
	is "$name: as it was released" "$(source_of $tree)" "$name $version, from file://$tar, signed by $right"
	rm -r "${p:?}/build/$tree" "$T/archive/$tree"*
	is "$name: the release is kept" "$(source_of $tree)" "$name $version, from build/cache/$tree/$tree-$version.tar.xz"
	is "$name: and nothing beside it" "$(ls -A "$p/build/cache/$tree")" "$tree-$version.tar.xz"
done
gpgconf --homedir "$T/gpg" --kill gpg-agent
rm "$T/network"

empty
need build/cache/qemu
mkdir -p "$p/build/cache"
ln -s "$TOP/build/cache/qemu" "$p/build/cache/qemu"
ok "what this project has downloaded is taken" "$p/tools/source" qemu
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
