// SPDX-License-Identifier: GPL-2.0
/*
 * viewcost: what memory under a key costs in the emulator, beside plain memory, and
 * what it costs to use a page under two KeyIDs in turn.  Prints nanoseconds.
 */
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
#define ROUNDS	7
#define SWITCHES 2000

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Reads and writes all over the memory, and then here and there */
static uint64_t work(volatile uint64_t *p)
{
	uint64_t start = now(), x = 1;

	for (int i = 0; i < SIZE / 8; i++)
		p[i] += i;
	for (int i = 0; i < SIZE / 8; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		p[(x >> 33) % (SIZE / 8)] ^= x;
	}
	return now() - start;
}

static void *memory(void)
{
	void *p = mmap(NULL, SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static uint64_t phys(int pagemap, volatile void *p)
{
	uint64_t e;

	if (pread(pagemap, &e, 8, (uintptr_t)p / 4096 * 8) != 8 || !(e >> 63))
		err(1, "pagemap");
	return (e & ((1ULL << 55) - 1)) * 4096;
}

/* Reads @p, and what is at @at by KeyID 0 */
static uint64_t in_turn(volatile uint64_t *p, int mem, uint64_t at)
{
	uint64_t start = now(), val;

	for (int i = 0; i < SWITCHES; i++) {
		(void)*p;
		if (pread(mem, &val, 8, at) != 8)
			err(1, "/dev/mem");
	}
	return now() - start;
}

int main(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY), mem = open("/dev/mem", O_RDONLY);
	const char *payload = "type=cpu algorithm=aes-xts-128";
	uint64_t plain = -1, under = -1, t, none;
	volatile uint64_t *p, *q;
	key_serial_t key;

	p = memory();
	q = memory();
	key = add_key("mktme", "k", payload, strlen(payload), KEY_SPEC_PROCESS_KEYRING);
	if (key < 0 || syscall(__NR_encrypt_mprotect, q, SIZE, RW, key))
		err(1, "key");
	for (int i = 0; i < ROUNDS; i++) {
		t = work(p);
		plain = t < plain ? t : plain;
		t = work(q);
		under = t < under ? t : under;
	}
	printf("plain %llu\nunder-a-key %llu\n", (unsigned long long)plain, (unsigned long long)under);

	/* The page through KeyID 0: nothing may be dirty */
	for (int i = 0; i < 4096; i += 64)
		__builtin_ia32_clflush((char *)q + i);
	__builtin_ia32_mfence();
	none = in_turn(q, mem, phys(pagemap, p));
	t = in_turn(q, mem, phys(pagemap, q)) - none;
	printf("switches %d\na-switch %llu\n", 2 * SWITCHES, (unsigned long long)(t / (2 * SWITCHES)));
	return 0;
}
