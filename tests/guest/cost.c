// SPDX-License-Identifier: GPL-2.0
/*
 * cost [SERIAL]: does what tests/long/insns.c is to count, on memory under no key, or
 * under that key.  Each count has a number: see names[] in tests/long/cost.t.
 */
#include <err.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/mktme.h>

#define PAGE	4096UL
#define PAGES	512UL
#define LEN	(PAGES * PAGE)
#define HUGE	(2UL << 20)
#define RW	(PROT_READ | PROT_WRITE)
#define TIMES	41

#define POINT(nn, end)							\
	asm volatile(".byte 0x0f, 0x1f, 0x84, 0x00, %c0, %c1, 0x4b, 0x4d" \
		     :: "i" (nn), "i" (end) : "memory")

#define COUNT(nn, code)							\
do {									\
	POINT(nn, 0);							\
	code;								\
	POINT(nn, 1);							\
} while (0)

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

static void in_child(void)
{
	_exit(0);
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
		COUNT(0, touch(p, LEN));		/* faults */
		COUNT(1, mprotect(p, LEN, PROT_READ));
		mprotect(p, LEN, RW);
		COUNT(2, munmap(p, LEN));
	}

	for (i = 0; i < TIMES; i++) {
		COUNT(3, q = mmap(NULL, LEN, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		COUNT(4, munmap(q, LEN));
	}

	p = map(LEN);
	touch(p, LEN);
	for (i = 0; i < TIMES; i++) {
		COUNT(5, pid = fork();
		      if (!pid) in_child();
		      waitpid(pid, NULL, 0));
		pid = fork();
		if (!pid) {
			COUNT(6, touch(p, LEN));	/* copies on write */
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	munmap(p, LEN);

	for (i = 0; i < TIMES; i++) {
		COUNT(7, pid = vfork();
		      if (!pid) {
			execl("/proc/self/exe", "cost", "0", "exit", NULL);
			_exit(1);
		      }
		      waitpid(pid, NULL, 0));
	}

	p = (char *)(((unsigned long)map(2 * HUGE) + HUGE - 1) & -HUGE);
	madvise(p, HUGE, MADV_HUGEPAGE);
	for (i = 0; i < TIMES; i++) {
		COUNT(8, touch(p, PAGE));		/* a fault of a huge page */
		COUNT(9, madvise(p, HUGE, MADV_DONTNEED));
	}
	return 0;
}
