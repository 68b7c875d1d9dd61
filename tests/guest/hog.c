// SPDX-License-Identifier: GPL-2.0
/* hog BYTES KEY: much memory under a key; says whether all of it is right */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/mktme.h>

#define RW	(PROT_READ | PROT_WRITE)

int main(int argc, char **argv)
{
	size_t len, i;
	uint64_t *p;

	if (argc != 3)
		errx(2, "usage: hog BYTES KEY");
	len = strtoull(argv[1], NULL, 0);
	p = mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || syscall(__NR_encrypt_mprotect, p, len, RW, atoi(argv[2])))
		err(1, "%zu bytes under key %s", len, argv[2]);
	for (i = 0; i < len / 8; i += 64)
		p[i] = i * 0x9e3779b97f4a7c15;
	for (i = 0; i < len / 8; i += 64)
		if (p[i] != i * 0x9e3779b97f4a7c15)
			errx(1, "hog: wrong at %zu", i * 8);
	puts("hog: right");
	return 0;
}
