# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# For the scripts that fetch and build: what they say, and where their logs go.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$TOP/build
CACHE=$BUILD/cache
LOGS=$BUILD/log
mkdir -p "$LOGS" "$CACHE"
export LC_ALL=C.UTF-8

die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

[[ $TOP != *[[:space:]:]* ]] ||
	die "$TOP: the kernel can't be built below a path with a space or a colon in it: move this project elsewhere"

# A path as one would type it here
rel() { realpath -m --relative-to="$TOP" "$1"; }

# step LOG WHAT COMMAND...: runs it with its output in build/log/LOG.log, and
# tells how far it is: by progress_LOG, if there is such a function, which prints
# a few words from the log.  On failure the last lines of the log, and false.
step() {
	local log=$LOGS/$1.log progress=progress_$1 what=$2 start=$SECONDS pid said=0 now status=0
	shift 2
	declare -F "$progress" >/dev/null || progress=:
	echo "+ $*" >"$log"
	if [ -t 1 ]; then printf '%-34s …' "$what"; else printf '%s …\n' "$what"; fi
	"$@" >>"$log" 2>&1 </dev/null &
	pid=$!
	# shellcheck disable=SC2064  # the pid of now
	trap "kill $pid 2>/dev/null; exit 130" INT TERM
	while kill -0 $pid 2>/dev/null; do
		# Now and then only where nobody watches: to look costs a few processes
		if [ -t 1 ]; then sleep 0.2; else sleep 1; fi
		now=$((SECONDS - start))
		if [ -t 1 ] && [ $now -gt $said ]; then
			printf '\r\033[K%-34s %4d s  %s' "$what" $now "$($progress "$log" || true)"
			said=$now
		elif [ ! -t 1 ] && [ $now -ge $((said + 30)) ]; then
			printf '%s: %d s  %s\n' "$what" $now "$($progress "$log" || true)"
			said=$now
		fi
	done
	wait $pid || status=$?
	trap - INT TERM
	now=$((SECONDS - start))
	[ -t 1 ] && printf '\r\033[K'
	if [ $status != 0 ]; then
		printf '%-34s failed after %d s\n' "$what" $now
		{ grep -v '^  [A-Z]' "$log" | grep -E 'error|Error|^E:|undefined|fatal|No space' || cat "$log"; } | tail -5 >&2
		return 1
	fi
	printf '%-34s %4d s\n' "$what" $now
}

# Only one at a time may fetch or build a tree
lock() {
	exec 9>"$BUILD/.lock-$1"
	flock -n 9 || { echo "waiting for another build of $1"; flock 9; }
}

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# src_state SRC [FILES]: of the source as it stands, local edits included
src_state() {
	local git=(env GIT_CONFIG_GLOBAL=/dev/null git -c safe.directory='*' -C "$1") files=${2:-.}
	{
		"${git[@]}" ls-files -s -- "$files"
		"${git[@]}" diff --no-ext-diff HEAD -- "$files"
		"${git[@]}" ls-files -o --exclude-standard -z -- "$files" | (cd "$1" && xargs -0r sha256sum --)
	} | sha256sum
}

# made FILE KEY: it was built from KEY, and nobody has built it anew since
made() { [ -f "$1" ] && [ "$(cat "$1.made" 2>/dev/null)" = "$2 $(stat -c '%s %y' "$1")" ]; }
mark() { echo "$2 $(stat -c '%s %y' "$1")" >"$1.made.new" && mv "$1.made.new" "$1.made"; }

# The mirrors that the system takes its own release of Debian from
mirrors() {
	apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
		awk -F '|' -v codename="$(. /etc/os-release; echo "${VERSION_CODENAME:-}")" \
			'$1 == "Debian" && $2 == codename && $3 == "main" && !seen[$4]++ { print $4 }'
}

# release linux|qemu: what tools/releases says of it, and $line, which the series is for: 7.3
# shellcheck disable=SC2034  # for who calls it
release() {
	read -r _ version url signature keys < <(grep "^$1[[:space:]]" "$TOP/tools/releases")
	line=${version%.*}
}

# The newest of the files there are, or nothing
newest() {
	local file
	for file; do [ ! -f "$file" ] || echo "$file"; done | sort -V | tail -1
}

# candidates Packages|Sources PACKAGE LINE: "VERSION SUITE" for each version of LINE (for 7.3:
# 7.3-1, 7.3.4-1, no 7.3~rc7-1) that the lists have of this package, the newest first
candidates() {
	"$TOP/tools/apt" madison "$2" | awk -F ' *[|] *' -v kind="$1" -v package="$2" -v line="$3" '
		{ sub(/^ */, "", $1); n = split($3, where, " "); version = $2; sub(/^[0-9]+:/, "", version) }
		$1 != package || where[n] != kind || index(version, line) != 1 { next }
		substr(version, length(line) + 1) ~ /^(\.[0-9]+)*([-+]|$)/ && !seen[$2]++ {
			sub(/\/.*/, "", where[2])
			print $2, where[2]
		}' | sort -Vr
}

# fetch Packages|Sources PACKAGE LINE DIR: the newest version of LINE into DIR; what it is
# goes into DIR.from.  What a list has can be gone from the mirror: then an older one, and
# if there is none, once more with new lists.
fetch() {
	local package=$2 dir=$4 get=(download) lists found
	[ "$1" = Packages ] || get=(source --download-only --only-source)
	for lists in old new; do
		[ $lists = old ] || "$TOP/tools/apt" update || return
		mapfile -t found < <(candidates "${@:1:3}")
		for found in "${found[@]}"; do
			rm -rf "$dir"
			mkdir -p "$dir"
			(cd "$dir" && "$TOP/tools/apt" "${get[@]}" "$package=${found% *}") || continue
			echo "${found#* }, $package ${found% *}" >"$dir.from"
			return
		done
	done
	rm -rf "$dir"
	return 1
}

# A meson for QEMU, in PATH.  It wants 1.5, Debian 12 has 1.0; it is all Python, and
# needs no installing.
meson() {
	local deb
	if dpkg --compare-versions "$(command meson --version 2>/dev/null || echo 0)" ge 1.5; then
		return
	fi
	if [ ! -x "$BUILD/meson/usr/bin/meson" ]; then
		deb=$(printf '%s\n' "$CACHE"/meson_*_all.deb | sort -V | tail -1)
		if [ ! -f "$deb" ]; then
			mkdir -p "$CACHE/part-meson"
			step download-meson "meson: download" sh -c \
				'cd "$1" && "$2" download -t "$(. /etc/os-release; echo "$VERSION_CODENAME")-backports" meson' \
				- "$CACHE/part-meson" "$TOP/tools/apt" ||
				die "meson 1.5 or newer could not be downloaded (log: $(rel "$LOGS/download-meson.log")): is there a network?"
			mv "$CACHE"/part-meson/*.deb "$CACHE/"
			rmdir "$CACHE/part-meson"
			deb=$(printf '%s\n' "$CACHE"/meson_*_all.deb | sort -V | tail -1)
		fi
		rm -rf "$BUILD/meson" "$BUILD/meson.new"
		dpkg-deb -x "$deb" "$BUILD/meson.new"
		mv "$BUILD/meson.new" "$BUILD/meson"
	fi
	export PATH="$BUILD/meson/usr/bin:$PATH" PYTHONPATH="$BUILD/meson/usr/lib/python3/dist-packages"
}
