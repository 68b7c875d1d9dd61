// SPDX-License-Identifier: GPL-2.0
/*
 * ascap UID CAPABILITY COMMAND...: runs it as a user who has that one capability, given
 * by number, and no other.
 */
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct __user_cap_header_struct hdr = { _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { };
	int uid, cap;

	if (argc < 4) {
		fprintf(stderr, "usage: ascap UID CAPABILITY COMMAND...\n");
		return 2;
	}
	uid = atoi(argv[1]);
	cap = atoi(argv[2]);
	data[CAP_TO_INDEX(cap)].permitted = data[CAP_TO_INDEX(cap)].effective =
		data[CAP_TO_INDEX(cap)].inheritable = CAP_TO_MASK(cap);
	if (prctl(PR_SET_KEEPCAPS, 1) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid) ||
	    syscall(__NR_capset, &hdr, data) ||
	    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0)) {
		perror("ascap");
		return 1;
	}
	execv(argv[3], argv + 3);
	perror(argv[3]);
	return 1;
}
