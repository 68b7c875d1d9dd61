// SPDX-License-Identifier: GPL-2.0
/*
 * asuser UID COMMAND...: runs it as that user, without capabilities or groups, in
 * a session of its own that possesses nothing of the caller's.
 */
#include <err.h>
#include <grp.h>
#include <keyutils.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int uid;

	if (argc < 3)
		errx(2, "usage: asuser UID COMMAND...");
	uid = atoi(argv[1]);
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid) ||
	    keyctl_join_session_keyring(NULL) < 0)
		err(1, "uid %d", uid);
	execvp(argv[2], argv + 2);
	err(1, "%s", argv[2]);
}
