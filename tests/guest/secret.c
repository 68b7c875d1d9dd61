// SPDX-License-Identifier: GPL-2.0
/*
 * secret PAGES: what a guest has to hide.  Fills PAGES pages with contents that
 * are nowhere else, says where in physical memory the first of them is, and for
 * each line on stdin whether they are still as they were.
 *
 * It computes them, in place and page by page, so that they are not in its file;
 * tests/secret prints the same.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t state;

/* splitmix64 */
static uint64_t next(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

int main(int argc, char **argv)
{
	size_t words = atoi(argc > 1 ? argv[1] : "") * 512ul;
	int fd = open("/proc/self/pagemap", O_RDONLY);
	volatile uint64_t *p;
	uint64_t entry;

	if (!words)
		errx(2, "usage: secret PAGES");
	p = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || mlock((void *)p, words * 8))
		err(1, "memory");
	for (size_t i = 0; i < words; i++)
		p[i] = next();
	if (pread(fd, &entry, 8, (uintptr_t)p / 4096 * 8) != 8 || !(entry >> 63))
		err(1, "pagemap");
	printf("%#llx\n", (unsigned long long)(entry & ((1ULL << 55) - 1)) * 4096);
	fflush(stdout);

	while (getchar() != EOF) {
		size_t bad = 0;

		state = 0;
		for (size_t i = 0; i < words; i++)
			bad += p[i] != next();
		printf("%zu words differ\n", bad);
		fflush(stdout);
	}
	return 0;
}
