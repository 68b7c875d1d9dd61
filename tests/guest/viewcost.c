// SPDX-License-Identifier: GPL-2.0
/*
 * viewcost: memory under a key in the emulator, beside plain memory
 *
 *   viewcost           what a switch of views takes, in nanoseconds
 *   viewcost plain|key N  N times a workload, in plain memory or under a key
 *   viewcost work CMD  runs CMD before and after a workload under a key, once it is in view
 *   viewcost hot CMD   runs CMD 0 before and CMD 1 after HOT stores to few lines of a page
 */
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <keyutils.h>
#include <linux/mktme.h>

#define RW	(PROT_READ | PROT_WRITE)
#define SIZE	(8 << 20)
#define SWITCHES 2000
#define DIRECT_MAP 0xffff888000000000
#define HOT	300000

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Reads and writes all over the memory, and then here and there */
static void work(volatile uint64_t *p)
{
	uint64_t x = 1;

	for (int i = 0; i < SIZE / 8; i++)
		p[i] += i;
	for (int i = 0; i < SIZE / 8; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		p[(x >> 33) % (SIZE / 8)] ^= x;
	}
}

static void *memory(void)
{
	void *p = mmap(NULL, SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static void *memory_under_a_key(void)
{
	const char *payload = "type=cpu algorithm=aes-xts-128";
	key_serial_t key = add_key("mktme", "k", payload, strlen(payload), KEY_SPEC_PROCESS_KEYRING);
	void *p = memory();

	if (key < 0 || syscall(__NR_encrypt_mprotect, p, SIZE, RW, key))
		err(1, "key");
	return p;
}

static uint64_t phys(int pagemap, volatile void *p)
{
	uint64_t e;

	if (pread(pagemap, &e, 8, (uintptr_t)p / 4096 * 8) != 8 || !(e >> 63))
		err(1, "pagemap");
	return (e & ((1ULL << 55) - 1)) * 4096;
}

static void flush(volatile void *p)
{
	for (int i = 0; i < 4096; i += 64)
		__builtin_ia32_clflush((char *)p + i);
	__builtin_ia32_mfence();
}

/* Where /proc/kcore has the direct map's @addr */
static uint64_t in_kcore(int kcore, uint64_t addr)
{
	Elf64_Ehdr head;
	Elf64_Phdr part;

	if (pread(kcore, &head, sizeof(head), 0) != sizeof(head))
		err(1, "/proc/kcore");
	for (int i = 0; i < head.e_phnum; i++) {
		if (pread(kcore, &part, sizeof(part), head.e_phoff + i * sizeof(part)) != sizeof(part))
			err(1, "/proc/kcore");
		if (part.p_type == PT_LOAD && addr - part.p_vaddr < part.p_filesz)
			return part.p_offset + addr - part.p_vaddr;
	}
	errx(1, "%#llx is not in /proc/kcore", (unsigned long long)addr);
}

/* Reads @p, and @page by KeyID 0, through the direct map */
static uint64_t in_turn(volatile uint64_t *p, int pagemap, int kcore, volatile void *page)
{
	uint64_t at = in_kcore(kcore, DIRECT_MAP + phys(pagemap, page)), start = now(), val;

	for (int i = 0; i < SWITCHES; i++) {
		(void)*p;
		if (pread(kcore, &val, 8, at) != 8)
			err(1, "/proc/kcore");
	}
	return now() - start;
}

static void cost(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY), kcore = open("/proc/kcore", O_RDONLY);
	volatile uint64_t *p = memory(), *q = memory_under_a_key();
	uint64_t t, none;

	(void)*p;
	(void)*q;
	/* The page through KeyID 0: nothing may be dirty */
	flush(q);
	none = in_turn(q, pagemap, kcore, p);
	t = in_turn(q, pagemap, kcore, q);
	t = t > none ? t - none : 0;
	printf("switches %d\na-switch %llu\n", 2 * SWITCHES, (unsigned long long)(t / (2 * SWITCHES)));
}

static void run(const char *command)
{
	fflush(NULL);
	if (system(command))
		errx(1, "%s failed", command);
}

int main(int argc, char **argv)
{
	volatile uint64_t *p;
	char command[2][200];

	if (argc == 1) {
		cost();
		return 0;
	}
	if (argc != 3)
		errx(2, "usage: %s [plain|key N | work|hot CMD]", argv[0]);
	if (!strcmp(argv[1], "plain") || !strcmp(argv[1], "key")) {
		p = *argv[1] == 'k' ? memory_under_a_key() : memory();
		for (int i = atoi(argv[2]); i > 0; i--)
			work(p);
		return 0;
	}
	for (int i = 0; i < 2; i++)
		snprintf(command[i], sizeof(command[i]), "%s %d", argv[2], i);
	p = memory_under_a_key();
	if (!strcmp(argv[1], "work")) {
		work(p);
		run(command[0]);
		for (int i = 0; i < 3; i++)
			work(p);
		run(command[1]);
	} else {
		flush(p);
		run(command[0]);
		for (int i = 0; i < HOT; i++)
			p[i % 2 * 64] = i;
		run(command[1]);
	}
	return 0;
}
