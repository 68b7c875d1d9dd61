// SPDX-License-Identifier: GPL-2.0
/*
 * dram PATTERN KEY1 KEY2 NONE: a page with the contents of the file PATTERN by
 * each way that memory comes under a key.  Says where the pages are and dumps
 * them as the DIMM holds them, into files of these names.
 *
 * KEY1, KEY2 and NONE are serial numbers: two keys, and one of type no-encrypt.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/mktme.h>

#define RW	(PROT_READ | PROT_WRITE)

static unsigned char pattern[4096];

static unsigned char *new_page(void)
{
	unsigned char *p = mmap(NULL, 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static void put_under(unsigned char *p, int key)
{
	if (syscall(__NR_encrypt_mprotect, p, 4096, RW, key))
		err(1, "encrypt_mprotect with key %d", key);
}

static void show(const char *name, const unsigned char *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	unsigned long long phys;
	char cmd[100];
	uint64_t e;

	if (memcmp(p, pattern, sizeof(pattern)))
		errx(1, "%s: the program does not read what it wrote", name);
	if (pread(fd, &e, 8, (uintptr_t)p / 4096 * 8) != 8 || !(e >> 63))
		err(1, "pagemap");
	close(fd);
	phys = (e & ((1ULL << 55) - 1)) * 4096;
	printf("%s %#llx\n", name, phys);
	fflush(stdout);
	snprintf(cmd, sizeof(cmd), "host dump %#llx 4096 %s", phys, name);
	if (system(cmd))
		errx(1, "no dump of %s", name);
}

int main(int argc, char **argv)
{
	int fd, key1, key2, none, status;
	unsigned char *p;
	pid_t pid;

	if (argc != 5)
		errx(2, "usage: dram PATTERN KEY1 KEY2 NONE");
	fd = open(argv[1], O_RDONLY);
	if (read(fd, pattern, sizeof(pattern)) != sizeof(pattern))
		err(1, "%s", argv[1]);
	key1 = atoi(argv[2]);
	key2 = atoi(argv[3]);
	none = atoi(argv[4]);

	p = new_page();
	memcpy(p, pattern, 4096);
	show("plain", p);

	p = new_page();
	put_under(p, key1);
	memcpy(p, pattern, 4096);
	show("faulted", p);

	p = new_page();
	memcpy(p, pattern, 4096);
	put_under(p, key1);
	show("populated", p);
	put_under(p, key2);
	show("rekeyed", p);
	put_under(p, 0);
	show("unkeyed", p);
	put_under(p, none);
	show("none", p);

	p = new_page();
	put_under(p, key2);
	memcpy(p, pattern, 4096);
	pid = fork();
	if (!pid) {
		/* Written by the child, so that it gets a copy. */
		p[0] ^= 1;
		p[0] ^= 1;
		show("copied", p);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "the child failed");
	show("parent", p);

	p = mremap(p, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, new_page());
	if (p == MAP_FAILED)
		err(1, "mremap");
	show("moved", p);
	return 0;
}
