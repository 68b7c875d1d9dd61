// SPDX-License-Identifier: GPL-2.0
/*
 * demo PICTURE KEY: reads a picture into anonymous memory, puts the memory under
 * the key with this serial number, and finds the picture there as it was.
 *
 * vm/boot takes the whole of the guest's memory as the DIMM holds it, once before
 * and once after (the command `host dump').  That the picture is nowhere in the
 * second one is worth something only if there is no other copy of it in the
 * guest: so its file is scrambled, and is unscrambled in place, in this memory.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/mktme.h>

static uint32_t state;

/* As in demo/judge; Marsaglia's xorshift */
static uint8_t scramble(uint8_t byte)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return byte ^ (state >> 24);
}

static void dump(const char *name)
{
	char cmd[100];

	snprintf(cmd, sizeof(cmd), "host dump 0 %s %s", getenv("DUMP_SIZE"), name);
	if (system(cmd))
		errx(1, "no dump");
}

int main(int argc, char **argv)
{
	int fd, pagemap, key, same = 1;
	unsigned char buf[4096], *mem;
	long page = getpagesize();
	size_t len, size, i;
	struct stat st;
	ssize_t n;

	if (argc != 3)
		errx(2, "usage: demo PICTURE KEY");
	key = atoi(argv[2]);
	fd = open(argv[1], O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		err(1, "%s", argv[1]);
	size = st.st_size;
	len = (size + page - 1) / page * page;

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		err(1, "mmap");
	if (read(fd, mem, size) != (ssize_t)size)
		err(1, "read");
	for (state = 1, i = 0; i < size; i++)
		mem[i] = scramble(mem[i]);
	dump("before");

	if (syscall(__NR_encrypt_mprotect, mem, len, PROT_READ | PROT_WRITE, key))
		err(1, "encrypt_mprotect");

	/* Against the file, byte by byte: an unscrambled copy must not be made */
	lseek(fd, 0, SEEK_SET);
	for (state = 1, i = 0; i < size && (n = read(fd, buf, sizeof(buf))) > 0; i += n)
		for (ssize_t k = 0; k < n; k++)
			same &= scramble(mem[i + k]) == buf[k];
	if (i != size || !same)
		errx(1, "the memory is not as it was");
	fprintf(stderr, "program: encrypt_mprotect(%p, %zu, PROT_READ | PROT_WRITE, %d) = 0; it reads the picture as before\n",
		mem, len, key);

	pagemap = open("/proc/self/pagemap", O_RDONLY);
	for (i = 0; i < len; i += page) {
		uint64_t e;

		if (pread(pagemap, &e, 8, ((uintptr_t)mem + i) / page * 8) != 8 || !(e >> 63))
			err(1, "pagemap");
		fprintf(stderr, "page %#llx\n", (unsigned long long)(e & ((1ULL << 55) - 1)) * page);
	}
	dump("after");

	/* Last, for this does make copies: what the program sees */
	for (i = 0; i < size; i += n) {
		n = write(1, mem + i, size - i);
		if (n <= 0)
			err(1, "write");
	}
	return 0;
}
