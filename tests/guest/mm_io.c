// SPDX-License-Identifier: GPL-2.0
/*
 * mm_io NAME DEVICE: direct I/O between a block device and memory under keys.
 * Leaves 3 times 2 MiB on the device, the pages numbered from 0.
 */
#include "mm.h"
#include "uring.h"

#define NR	(HUGE / PAGE)

static const char *name;
static int fd;

/* Numbers that no page of the device has */
#define SCRATCH	100000

/* One run of physical memory, each page of it under another key than the next */
static char *striped(int first)
{
	char *mem = map_huge(HUGE);

	madvise(mem, HUGE, MADV_HUGEPAGE);
	fill(mem, HUGE, SCRATCH);
	for (size_t i = 0; i < NR; i++)
		put_under(mem + i * PAGE, PAGE, (i + first) % KEYS);
	return mem;
}

static void drop(char *mem)
{
	munmap(mem, HUGE);
}

static bool put(const void *buf, size_t len, off_t off)
{
	ssize_t n = pwrite(fd, buf, len, off);

	if (n != (ssize_t)len)
		printf("# pwrite: %zd, %s\n", n, strerror(errno));
	return n == (ssize_t)len;
}

static bool get(void *buf, size_t len, off_t off)
{
	ssize_t n = pread(fd, buf, len, off);

	if (n != (ssize_t)len)
		printf("# pread: %zd, %s\n", n, strerror(errno));
	return n == (ssize_t)len;
}

int main(int argc, char **argv)
{
	char *mem, *other, what[100];
	struct uring u;
	size_t neighbours = 0;

	if (argc != 3)
		errx(2, "usage: mm_io NAME DEVICE");
	name = argv[1];
	fd = open(argv[2], O_RDWR | O_DIRECT);
	if (fd < 0)
		err(1, "%s", argv[2]);

	mem = striped(0);
	for (size_t i = 1; i < NR; i++)
		neighbours += pfn(mem + i * PAGE) == pfn(mem + (i - 1) * PAGE) + 1;
	result(neighbours > NR / 2, "%s: neighbours in memory, under different keys", name);
	fill(mem, HUGE, 0);
	result(put(mem, HUGE, 0), "%s: written from pages under different keys", name);
	drop(mem);
	mem = striped(1);
	result(get(mem, HUGE, 0) && filled(mem, HUGE, 0),
	       "%s: read to pages under different keys", name);
	snprintf(what, sizeof(what), "%s: a page that was read to", name);
	check(what, mem, PAGE, 0, 1);
	check(what, mem + PAGE, PAGE, 1, 2);
	check(what, mem + 2 * PAGE, PAGE, 2, 0);
	drop(mem);

	mem = map_huge(HUGE);
	madvise(mem, HUGE, MADV_HUGEPAGE);
	put_under(mem, HUGE, A);
	fill(mem, HUGE, NR);
	result(put(mem, HUGE, HUGE), "%s: written from a huge page", name);
	other = map(HUGE);
	result(get(other, HUGE, HUGE) && filled(other, HUGE, NR),
	       "%s: read to memory under no key", name);
	put_under(other, HUGE, B);
	memset(other, 0, HUGE);
	result(get(other, HUGE, HUGE) && filled(other, HUGE, NR),
	       "%s: read to memory under another", name);
	/* Sectors, across pages */
	memset(mem, 0, 4 * PAGE);
	result(get(mem + 512, 2 * PAGE, HUGE + 1024) &&
	       !memcmp(mem + 512, other + 1024, 2 * PAGE) && zeroed(mem, 512) &&
	       zeroed(mem + 512 + 2 * PAGE, 512), "%s: sectors", name);

	/* Pinned for long, and by the kernel's threads */
	fill(mem, HUGE, 2 * NR);
	if (uring_setup(&u, NULL, NULL) || uring_buffer(&u, mem, HUGE))
		err(1, "io_uring");
	result(uring_fixed(&u, IORING_OP_WRITE_FIXED, fd, mem, HUGE, 2 * HUGE) == HUGE,
	       "%s: WRITE_FIXED", name);
	memset(mem, 0, HUGE);
	result(uring_fixed(&u, IORING_OP_READ_FIXED, fd, mem, HUGE, 2 * HUGE) == HUGE &&
	       filled(mem, HUGE, 2 * NR), "%s: READ_FIXED", name);
	snprintf(what, sizeof(what), "%s: a huge page that was read to", name);
	check(what, mem, HUGE, 2 * NR, A);
	close(u.fd);
	return 0;
}
