// SPDX-License-Identifier: GPL-2.0
/*
 * mm_stay pressure BYTES | crash | hibernate: memory under a key does not leave
 * DRAM.  What is under no key holds PUBLIC, what is under one SECRET, over and over.
 */
#include <sys/prctl.h>
#include <sys/resource.h>

#include "mm.h"

#define SECRET	"tOp-SeCrEt-dAtA!"
#define PUBLIC	"pUbLiC-nO-hArM!!"

static void fill_with(void *p, size_t len, const char *word)
{
	for (size_t i = 0; i < len; i += 16) {
		/* No two pages alike, none that compresses to nothing */
		memcpy(p + i, i % 64 ? pattern + i % PAGE : (unsigned char *)word, 16);
		if (i % PAGE == 16)
			memcpy(p + i, &i, 8);
	}
}

static bool filled_with(const char *p, size_t len, const char *word)
{
	for (size_t i = 0; i < len; i += 64)
		if (memcmp(p + i, word, 16))
			return false;
	return true;
}

/* More memory than the cgroup may have, part of it under a key */
static void pressure(size_t len)
{
	char *secret = map_under(len / 4, A), *public = map(len), *moved = map(len / 4);

	fill_with(moved, len / 4, SECRET);
	put_under(moved, len / 4, B);
	fill_with(secret, len / 4, SECRET);
	madvise(secret, len / 8, MADV_COLD);
	madvise(secret + len / 8, len / 8, MADV_PAGEOUT);
	madvise(secret, PAGE, MADV_FREE);
	fill_with(public, len, PUBLIC);
	printf("# swapped, in kB: %ld under no key, %ld and %ld under one\n",
	       vma_field(public, "Swap:"), vma_field(secret, "Swap:"),
	       vma_field(moved, "Swap:"));
	result(vma_field(public, "Swap:") > 1024, "memory under no key is swapped out");
	result(!vma_field(secret, "Swap:") && !vma_field(moved, "Swap:"),
	       "memory under a key is not");
	result(vma_field(secret, "Rss:") == (long)len / 4096, "it is all there");
	result(filled_with(secret, len / 4, SECRET) && filled_with(moved, len / 4, SECRET) &&
	       filled_with(public, len, PUBLIC), "all has its contents");

	/* What is swapped out can go under a key: read, encrypted, and it stays. */
	result(!encrypt_mprotect(public, 64 * PAGE, RW, serial[A]) &&
	       filled_with(public, 64 * PAGE, PUBLIC) && !vma_field(public, "Swap:"),
	       "swapped-out memory is put under a key");
	/* And what is no longer under one is swapped out again. */
	fill_with(moved, len / 4, PUBLIC);
	put_under(moved, len / 4, NONE);
	madvise(moved, len / 4, MADV_PAGEOUT);
	result(vma_field(moved, "Swap:") > 0, "no longer under a key: swapped out");
	result(filled_with(moved, len / 4, PUBLIC), "and back");
}

static void crash(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	char *secret = map_under(64 * PAGE, A), *public = map(64 * PAGE), *child;

	setrlimit(RLIMIT_CORE, &all);
	fill_with(secret, 64 * PAGE, SECRET);
	fill_with(public, 64 * PAGE, PUBLIC);
	madvise(secret, 64 * PAGE, MADV_DODUMP);
	write_to("/proc/self/coredump_filter", "0x03");
	/* In a child, too, with pages of its own */
	if (!fork()) {
		child = secret;
		child[1000] ^= 1;
		abort();
	}
	wait(NULL);
	abort();
}

static void hibernate(void)
{
	char state[100] = "";
	int fd = open("/sys/power/disk", O_RDONLY);

	if (fd < 0 || read(fd, state, sizeof(state) - 1) < 0)
		err(1, "/sys/power/disk");
	printf("# /sys/power/disk: %s", state);
	result(!!strstr(state, "[disabled]"), "hibernation is disabled");
	fails("/sys/power/state", EPERM, write(open("/sys/power/state", O_WRONLY), "disk", 4));
	fails("/dev/snapshot", EPERM, open("/dev/snapshot", O_RDONLY));
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "pressure"))
		pressure(atol(argv[2]));
	else if (argc == 2 && !strcmp(argv[1], "crash"))
		crash();
	else if (argc == 2 && !strcmp(argv[1], "hibernate"))
		hibernate();
	else
		return 2;
	return 0;
}
