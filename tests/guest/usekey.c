// SPDX-License-Identifier: GPL-2.0
/*
 * usekey KEY [COMMAND...]: puts memory under the key with this serial
 * number and says how that went, "used" or the error's name.  Then runs each
 * command by sh, and says after each what became of what it had written there:
 * "kept", "sigbus" or "lost"; "kept*" if it is under another KeyID now.
 */
#include <err.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/mktme.h>

#define LEN	(8 * 4096)
#define RW	(PROT_READ | PROT_WRITE)

static sigjmp_buf env;

static void on_sigbus(int sig)
{
	siglongjmp(env, sig);
}

/* KeyID of the VMA at p in smaps */
static long keyid_at(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	long keyid = -1;
	char line[512];
	int here = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = (uintptr_t)p >= start && (uintptr_t)p < end;
		else if (here && sscanf(line, "KeyID: %ld", &keyid) == 1)
			break;
	}
	if (f)
		fclose(f);
	return keyid;
}

static const char *state(const unsigned char *p, long *keyid)
{
	long was = *keyid;
	int i;

	if (sigsetjmp(env, 1))
		return "sigbus";
	for (i = 0; i < LEN; i++)
		if (p[i] != (unsigned char)(i * 7 + 1))
			return "lost";
	*keyid = keyid_at(p);
	return *keyid == was ? "kept" : "kept*";
}

int main(int argc, char **argv)
{
	unsigned char *p;
	long keyid;
	int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2)
		errx(2, "usage: usekey KEY [COMMAND...]");
	p = mmap(NULL, LEN, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		err(1, "mmap");
	if (syscall(__NR_encrypt_mprotect, p, LEN, RW, atoi(argv[1]))) {
		puts(strerrorname_np(errno));
		return 0;
	}
	puts("used");
	for (i = 0; i < LEN; i++)
		p[i] = i * 7 + 1;
	keyid = keyid_at(p);
	signal(SIGBUS, on_sigbus);
	for (i = 2; i < argc; i++) {
		if (system(argv[i]))
			printf("failed: ");
		puts(state(p, &keyid));
	}
	return 0;
}
