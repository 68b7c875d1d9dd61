// SPDX-License-Identifier: GPL-2.0
/*
 * secret PAGES: what a guest has to hide.  Fills PAGES pages with contents that
 * are nowhere else, says where in physical memory the first of them is, and for
 * each line on stdin whether they are still as they were.
 *
 * It computes them, in place and page by page, so that they are not in its file.
 * On the other side
 *	secret print PAGES		writes the same
 *	secret count PAGES FILE		says how many of these pages are in a dump,
 *					in whole or in part
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORDS	512		/* of a page */
#define PIECE	4		/* words: more than what a register, saved somewhere, shows */

static uint64_t state;

/* splitmix64 */
static uint64_t next(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static int print(size_t words)
{
	while (words--) {
		uint64_t z = next();

		fwrite(&z, 8, 1, stdout);
	}
	return 0;
}

static int count(size_t words, const char *file)
{
	size_t slots = 1, found = 0;
	int fd = open(file, O_RDONLY);
	uint64_t *secret, word;
	uint8_t *maybe, *seen;
	uint32_t *table;
	const char *dump;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !st.st_size)
		err(1, "%s", file);
	dump = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (dump == MAP_FAILED)
		err(1, "%s", file);
	while (slots < 4 * words)
		slots *= 2;
	secret = calloc(words + PIECE, 8);
	seen = calloc(words / WORDS, 1);
	table = calloc(slots, sizeof(*table));
	maybe = calloc(1 << 20, 1);
	if (!secret || !seen || !table || !maybe)
		err(1, "memory");
	for (size_t i = 0; i < words; i++) {
		size_t h;

		secret[i] = next();
		for (h = secret[i] & (slots - 1); table[h]; h = (h + 1) & (slots - 1))
			;
		table[h] = i + 1;
		maybe[secret[i] >> 44] = 1;
	}
	/* At any address, aligned or not */
	for (off_t a = 0; a + PIECE * 8 <= st.st_size; a++) {
		memcpy(&word, dump + a, 8);
		if (!maybe[word >> 44])
			continue;
		for (size_t h = word & (slots - 1); table[h]; h = (h + 1) & (slots - 1)) {
			size_t i = table[h] - 1;

			if (i % WORDS <= WORDS - PIECE && !memcmp(dump + a, secret + i, PIECE * 8))
				seen[i / WORDS] = 1;
		}
	}
	for (size_t i = 0; i < words / WORDS; i++)
		found += seen[i];
	printf("%zu\n", found);
	return 0;
}

static int keep(size_t words)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	volatile uint64_t *p;
	uint64_t entry;

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

int main(int argc, char **argv)
{
	size_t words = atoi(argc > 1 ? argv[argc > 2 ? 2 : 1] : "") * (size_t)WORDS;

	if (words && argc == 2)
		return keep(words);
	if (words && argc == 3 && !strcmp(argv[1], "print"))
		return print(words);
	if (words && argc == 4 && !strcmp(argv[1], "count"))
		return count(words, argv[3]);
	errx(2, "usage: secret PAGES | print PAGES | count PAGES FILE");
}
