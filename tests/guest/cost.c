// SPDX-License-Identifier: GPL-2.0
/*
 * cost [SERIAL]: does what tools/insns.c is to count, on memory under no key, or
 * under that key: tests/long/cost.t.
 */
#include <err.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/mktme.h>
#include "count.h"

#define PAGE	4096UL
/* So few that it is done between two ticks of the clock */
#define PAGES	128UL
#define LEN	(PAGES * PAGE)
#define HUGE	(2UL << 20)
#define RW	(PROT_READ | PROT_WRITE)
#define TIMES	101

static int key;

static char *map(size_t len)
{
	char *p = mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	if (key && syscall(__NR_encrypt_mprotect, p, len, RW, key))
		err(1, "encrypt_mprotect");
	madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

static void touch(char *p, size_t len)
{
	for (size_t i = 0; i < len; i += PAGE)
		*(volatile char *)(p + i) = 1;
}

int main(int argc, char **argv)
{
	pid_t pid;
	char *p, *q;
	int i;

	/* For exec */
	if (argc > 2)
		return 0;
	key = argc > 1 ? atoi(argv[1]) : 0;

	for (i = 0; i < TIMES; i++) {
		p = map(LEN);
		COUNT(touch(p, LEN), "fault of 128 pages\n");
		COUNT(mprotect(p, LEN, PROT_READ), "mprotect of 128 pages\n");
		mprotect(p, LEN, RW);
		COUNT(munmap(p, LEN), "munmap of 128 pages\n");
	}

	for (i = 0; i < TIMES; i++) {
		COUNT(q = mmap(NULL, LEN, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap\n");
		COUNT(munmap(q, LEN), "munmap\n");
	}

	/* What a shell has of its own, say; the fork copies what tells of it */
	p = map(4 * LEN);
	touch(p, 4 * LEN);
	for (i = 0; i < TIMES; i++) {
		COUNT(pid = fork();
		      if (!pid)
			      _exit(0);
		      waitpid(pid, NULL, 0), "fork of 512 pages, exit, wait\n");
		pid = fork();
		if (!pid) {
			COUNT(touch(p, LEN), "copy on write of 128 pages\n");
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	munmap(p, 4 * LEN);

	for (i = 0; i < TIMES; i++) {
		COUNT(pid = vfork();
		      if (!pid) {
			      execl("/proc/self/exe", "cost", "0", "exit", NULL);
			      _exit(1);
		      }
		      waitpid(pid, NULL, 0), "vfork, exec, exit, wait\n");
	}

	p = (char *)(((unsigned long)map(2 * HUGE) + HUGE - 1) & -HUGE);
	madvise(p, HUGE, MADV_HUGEPAGE);
	for (i = 0; i < TIMES; i++) {
		COUNT(touch(p, PAGE), "fault of a huge page\n");
		COUNT(madvise(p, HUGE, MADV_DONTNEED), "free of a huge page\n");
	}
	return 0;
}
