// SPDX-License-Identifier: GPL-2.0
/*
 * erasecost small|huge MIB: what it costs to lose so much memory under a key by
 * erasing it, and by overwriting it, as CPU time of whoever asks for it.  Under
 * icount, that counts instructions.
 */
#include <err.h>
#include <keyutils.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/mktme.h>

#include "overwrite.h"

#define RW	(PROT_READ | PROT_WRITE)
#define CPU	"type=cpu algorithm=aes-xts-128"

static sigjmp_buf env;

static void on_sigbus(int sig)
{
	siglongjmp(env, sig);
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long long start, over, erase;
	const size_t huge = 2 << 20;
	size_t len, i;
	char *p;
	int key;

	if (argc != 3)
		errx(2, "usage: erasecost small|huge MIB");
	len = strtoul(argv[2], NULL, 0) << 20;
	p = mmap(NULL, len + huge, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		err(1, "mmap");
	p += -(unsigned long)p % huge;
	if (madvise(p, len, *argv[1] == 'h' ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		err(1, "madvise");
	key = add_key("mktme", "cost", CPU, strlen(CPU), KEY_SPEC_PROCESS_KEYRING);
	if (key < 0 || syscall(__NR_encrypt_mprotect, p, len, RW, key))
		err(1, "key");
	for (i = 0; i < len; i += 4096)
		p[i] = 1;

	start = now();
	overwrite(p, len);
	over = now() - start;

	for (i = 0; i < len; i += 4096)
		p[i] = 1;
	start = now();
	if (keyctl_update(key, "erase", 5))
		err(1, "erase");
	erase = now() - start;

	signal(SIGBUS, on_sigbus);
	if (!sigsetjmp(env, 1)) {
		(void)*(volatile char *)(p + len / 2);
		errx(1, "not erased");
	}
	printf("%s %s %lld %lld\n", argv[1], argv[2], erase, over);
	return 0;
}
