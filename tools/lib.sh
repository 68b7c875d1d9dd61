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
