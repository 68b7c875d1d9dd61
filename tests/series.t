#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The series survives the way from files to commits and back, and work that is
# nowhere else is never destroyed by it.
. "$(dirname "$0")/lib.sh"

src=$T/src files=$T/toy
series() { "$TOP/tools/series" "$1" toy "${@:2}" --src "$src" --files "$files"; }
# On stdout it says that it begins
apply() { series apply >/dev/null; }
g() { git -C "$src" -c user.name='Jörg Müller' -c user.email=j@example.org "$@"; }

mkdir -p "$src/mm" "$src/tools"
seq 100 >"$src/mm/a.c"
echo '#!/bin/sh' >"$src/tools/b"; chmod +x "$src/tools/b"
g init -q; g add .; g commit -qm base; g tag base

# Two commits: edits with new files; new files alone, one executable, one changed later
sed -i 's/^50$/fifty/' "$src/mm/a.c"; echo new >"$src/mm/new.c"
g add .; g commit -qm "mm: fifty

Says why, with a line of --- dashes and ünicode.

Signed-off-by: Jörg Müller <j@example.org>"
echo '#!/bin/sh' >"$src/tools/run"; chmod +x "$src/tools/run"; ln -s run "$src/tools/link"
g add .; g commit -qm "tools: only new files"
sed -i 's/^90$/ninety/' "$src/mm/a.c"; echo newer >>"$src/mm/new.c"
g add .; g commit -qm "mm: ninety"
want=$(g rev-parse 'HEAD^{tree}')

ok "refresh writes the series" series refresh
is "the patches, and what comes with them" "$(cat "$files/patches/series")" \
"0001-mm-fifty.patch
0002-tools-only-new-files.patch tools/link tools/run
0003-mm-ninety.patch mm/new.c"
is "a new file is its last version" "$(cat "$files/mm/new.c")" $'new\nnewer'
ok "the executable bit is kept" test -x "$files/tools/run"
ok "a link stays a link" test -L "$files/tools/link"
cp -a "$files" "$T/first"
ok "check agrees" series check

g reset -q --hard base
refused "refresh does not empty the series when nothing is applied" 'no commits' series refresh
ok "apply" series apply
is "gives the very tree" "$(g rev-parse 'HEAD^{tree}')" "$want"
is "as a commit each" "$(g log --reverse --format='%an %s' base..)" \
"Jörg Müller mm: fifty
Jörg Müller tools: only new files
Jörg Müller mm: ninety"
is "each with its part of a new file" "$(g show HEAD~2:mm/new.c | tr '\n' ' '; g show HEAD:mm/new.c | tr '\n' ' ')" "new new newer "
is "with the whole message" "$(g log -1 --format=%b HEAD~2)" \
"Says why, with a line of --- dashes and ünicode.

Signed-off-by: Jörg Müller <j@example.org>"
g commit -q --allow-empty -m "fixup! mm: fifty"
refused "refresh wants commits as they are to be mailed" 'still to be squashed' series refresh
g reset -q --hard HEAD~1
ok "refresh again" series refresh
ok "changes nothing" diff -r --no-dereference "$T/first" "$files"
touch -d '2001-01-01' "$src/mm/a.c"; was=$(stat -c %y "$src/mm/a.c")
is "apply again does nothing" "$(series apply)" ""
is "and touches no file" "$(stat -c %y "$src/mm/a.c")" "$was"

# An edit in src is refused once the series changes, and left alone
echo more >>"$files/mm/new.c"
echo mine >>"$src/tools/b"
refused "edits are not destroyed" 'has edits \(tools/b\)' apply
is "the edit is still there" "$(tail -1 "$src/tools/b")" mine
refused "nor exported half" 'commit them' series refresh
g commit -qam mine
refused "nor commits" 'has commits' apply
is "the commit is still there" "$(g log -1 --format=%s)" mine
refused "refresh does not write over files that changed meanwhile" 'changed since' series refresh
g reset -q --hard HEAD~1
ok "once they are gone, apply" series apply
is "brings the change" "$(tail -1 "$src/mm/new.c")" more

# What does not fit
sed -i 's/^-50$/-49/' "$files/patches/0001-mm-fifty.patch"
refused "a patch that does not apply" '0001-mm-fifty.patch does not apply' apply
cp "$T/first/patches/0001-mm-fifty.patch" "$files/patches/"
echo x >"$files/mm/stray.c"
refused "a file of no patch" 'mm/stray.c belongs to no patch' apply
rm "$files/mm/stray.c"
mv "$files/mm/new.c" "$T/"
refused "a file that is missing" 'mm/new.c is missing' apply
mv "$T/new.c" "$files/mm/"
ok "mended, it applies" series apply

g rm -q tools/run tools/link; g commit -qm "tools: no"
ok "refresh after removal" series refresh
is "has both patches, and no file" "$(cat "$files/patches/series"; [ -e "$files/tools" ] && echo tools)" \
"0001-mm-fifty.patch
0002-tools-only-new-files.patch
0003-mm-ninety.patch mm/new.c
0004-tools-no.patch"
ok "which check agrees with" series check
g reset -q --hard HEAD~1; g rebase -q --onto HEAD~2 HEAD~1
ok "refresh without the commit" series refresh
ok "removes the files" test ! -e "$files/tools"
is "and the patch" "$(cat "$files/patches/series")" \
"0001-mm-fifty.patch
0002-mm-ninety.patch mm/new.c"

# As mail
export HOME=$T/home; mkdir "$HOME"; unset EMAIL
refused "mail without a sender" "git config --global user.name" series export "$T/mail"
git config --global user.name Sender; git config --global user.email s@example.org
refused "without a cover letter" "patches/cover-letter is missing" series export "$T/mail"
printf 'mm: numbers\n\nWhy.\nHow.\n' >"$files/patches/cover-letter"
mkdir "$src/scripts"
cat >"$src/scripts/get_maintainer.pl" <<'E'
#!/bin/sh
for mail; do :; done
case $*$mail in
*--nom*) echo l@example.org ;;
*fifty*) echo 'Jörg Müller <j@example.org>' ;;
*) echo 'Someone <x@example.org>' ;;
esac
E
chmod +x "$src/scripts/get_maintainer.pl"
ok "export" series export "$T/mail"
is "the mails" "$(cd "$T/mail" && echo *)" "0000-cover-letter.patch 0001-mm-fifty.patch 0002-mm-ninety.patch"
like "the cover letter: subject" "$(cat "$T"/mail/0000*)" '^Subject: \[PATCH 0/2\] mm: numbers$'
like "its text" "$(tr '\n' ' ' <"$T/mail/0000-cover-letter.patch")" ' Why. How.  '
like "to all" "$(grep -A1 ^To: "$T"/mail/0000* | tr -d '\n')" '^To: Someone <x@.*>, .*<j@example.org>$'
like "a patch to its maintainers" "$(grep ^To: "$T"/mail/0001*)" '^To: =\?utf-8\?.*\?= <j@example.org>$'
is "and to the list" "$(grep ^Cc: "$T"/mail/0002*)" "Cc: l@example.org"
is "signed off by the author and the sender" "$(grep ^Signed-off "$T"/mail/0001*)" \
"Signed-off-by: Jörg Müller <j@example.org>
Signed-off-by: Sender <s@example.org>"
git config -f "$T/other" user.name Other; git config -f "$T/other" user.email o@example.org
GIT_CONFIG_GLOBAL=$T/other series export "$T/mail2" >/dev/null
is "by the configuration that is named, where one is" \
	"$(grep ^Signed-off "$T"/mail2/0001* | tail -1)" "Signed-off-by: Other <o@example.org>"
GIT_CONFIG_GLOBAL=/dev/null refused "and by nobody where that has nobody" "git config --global user.name" \
	series export "$T/mail2"
rm -r "$src/scripts"
ok "refresh leaves the cover letter" series refresh
is "as it was" "$(cat "$files/patches/cover-letter")" $'mm: numbers\n\nWhy.\nHow.'
is "no work tree is left" "$(g worktree list | wc -l)" 1
done_testing
