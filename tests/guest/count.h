/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For programs whose instructions tools/insns.c counts.  It tells of the counts in the
 * order of their ends, so the program prints a line for each, in that order: at its end,
 * since the interrupts that output makes would be counted.  Forked children count too.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define COUNT_ROOM	(256 << 10)

static char *count_lines;

__attribute__((constructor)) static void count_begin(void)
{
	count_lines = mmap(NULL, COUNT_ROOM, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (count_lines == MAP_FAILED)
		err(1, "mmap");
}

/* Children leave by _exit() */
__attribute__((destructor)) static void count_end(void)
{
	fputs(count_lines, stdout);
}

/* nopl 0x4d4b00ee(%rax,%rax): ee 0 where it begins, 1 where it ends */
#define COUNT_POINT(ee)							\
	asm volatile(".byte 0x0f, 0x1f, 0x84, 0x00, %c0, 0x00, 0x4b, 0x4d" \
		     :: "i" (ee) : "memory")

#define COUNT(code, ...)						\
do {									\
	size_t count_len;						\
									\
	COUNT_POINT(0);							\
	code;								\
	COUNT_POINT(1);							\
	count_len = strlen(count_lines);				\
	if (snprintf(count_lines + count_len, COUNT_ROOM - count_len,	\
		     __VA_ARGS__) >= (int)(COUNT_ROOM - count_len))	\
		errx(1, "too many counts");				\
} while (0)
