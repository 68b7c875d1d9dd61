// SPDX-License-Identifier: GPL-2.0
/*
 * migrate PID FROM TO: moves all pages of a process from one NUMA node to another.
 */
#include <err.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long from, to;

	if (argc != 4)
		errx(2, "usage: migrate PID FROM TO");
	from = 1ul << atoi(argv[2]);
	to = 1ul << atoi(argv[3]);
	/* A number of pages that could not be moved is no error. */
	if (syscall(SYS_migrate_pages, atoi(argv[1]), sizeof(from) * 8, &from, &to) < 0)
		err(1, "migrate_pages");
	return 0;
}
