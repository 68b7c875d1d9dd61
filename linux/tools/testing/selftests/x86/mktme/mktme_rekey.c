// SPDX-License-Identifier: GPL-2.0
/*
 * Another key for memory that others are busy with meanwhile: either all pages
 * of a VMA go under it, or none does, and no write is lost.
 */
#include <pthread.h>
#include <sys/uio.h>

#include "mktme_mm.h"

#define PAGES		64
#define MB		(1UL << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

FIXTURE(rekey)
{
	size_t page, len;
	char *mem;
	serial_t key, key2;
	long keyid, keyid2;
	pthread_t threads[4];
	int nr_threads;
};

static volatile bool stop;
static char *shared_mem;
static size_t shared_len;

FIXTURE_SETUP(rekey)
{
	SKIP_UNLESS_ROOT();
	SKIP_WITHOUT_KEYIDS(2, 0);
	self->page = getpagesize();
	self->len = PAGES * self->page;
	self->mem = map_anon(self->len);
	ASSERT_NE(MAP_FAILED, self->mem);
	ASSERT_LT(0, self->key = new_key("one", CPU_KEY));
	ASSERT_LT(0, self->key2 = new_key("two", CPU_KEY));
	self->keyid = key_keyid(self->key);
	self->keyid2 = key_keyid(self->key2);
	shared_mem = self->mem;
	shared_len = self->len;
	stop = false;
}

FIXTURE_TEARDOWN(rekey)
{
	/* Threads that a failure has left. */
	stop = true;
	while (self->nr_threads)
		pthread_join(self->threads[--self->nr_threads], NULL);
	munmap(self->mem, self->len);
}

#define START(fn)							\
	ASSERT_EQ(0, pthread_create(&self->threads[self->nr_threads++],	\
				    NULL, fn, NULL))

#define JOIN_UNHURT()							\
do {									\
	void *__ret;							\
									\
	stop = true;							\
	while (self->nr_threads) {					\
		ASSERT_EQ(0, pthread_join(				\
			self->threads[--self->nr_threads], &__ret));	\
		EXPECT_EQ(NULL, __ret);					\
	}								\
} while (0)

/* Holds some pages for a while, without the mmap lock, then none. */
static void *pinner(void *unused)
{
	struct iovec iov = { .iov_len = getpagesize() };
	unsigned int i, page = 0, rounds = 0;
	char buf[4096];
	int p[2];

	if (pipe(p))
		return NULL;
	while (!stop) {
		for (i = 0; i < 8; i++) {
			page = (page + 7) % PAGES;
			iov.iov_base = shared_mem + page * iov.iov_len;
			if (vmsplice(p[1], &iov, 1, SPLICE_F_NONBLOCK) < 0)
				break;
		}
		usleep(rounds++ % 10 * 20000);
		while (i--)
			if (read(p[0], buf, iov.iov_len) < 0)
				break;
		usleep(rounds % 7 * 20000);
	}
	close(p[0]);
	close(p[1]);
	return NULL;
}

/*
 * Pages are taken hold of all the time, so that it fails in the middle, and when
 * it has to be undone.  sysfs tells whether all pages are under the key that the
 * VMA has.
 */
TEST_F_TIMEOUT(rekey, all_or_nothing, 120)
{
	serial_t keys[2] = { self->key, self->key2 };
	long keyids[2] = { self->keyid, self->keyid2 };
	int i, rounds = 40, now = 0, done = 0, failed = 0;

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 1);
	START(pinner);
	START(pinner);
	for (i = 0; i < rounds; i++) {
		int ret = encrypt_mprotect(self->mem, self->len, RW, keys[!now]);

		if (!ret) {
			now = !now;
			done++;
		} else {
			ASSERT_EQ(EBUSY, errno);
			failed++;
		}
		EXPECT_EQ(keyids[now], keyid_at(self->mem));
		/* What was replaced may still sit in a pipe. */
		if (ret) {
			ASSERT_EQ(0, key_bytes(keyids[!now]));
		}
		ASSERT_EQ((long)self->len, key_bytes(keyids[now]));
		/* How many, is a matter of luck, but there are some of both. */
		if (i == rounds - 1 && (!done || !failed) && rounds < 400)
			rounds += 40;
	}
	JOIN_UNHURT();
	TH_LOG("%d done, %d failed", done, failed);
	EXPECT_LT(0, done);
	EXPECT_LT(0, failed);

	/* The other key's end does no harm. */
	ASSERT_EQ(0, keyctl(KEYCTL_UPDATE, keys[!now], (long)"erase", 5, 0));
	EXPECT_TRUE(filled(self->mem, self->len, 1));
}

/* Written to by its owner, and by others by way of the kernel. */
static void *writer(void *unused)
{
	volatile uint64_t *p = (uint64_t *)shared_mem;
	unsigned long i;
	uint64_t n = 0;

	while (!stop) {
		for (i = 0; i < shared_len / 8; i += 512)
			if (p[i] != n)
				return (void *)1;
		n++;
		for (i = 0; i < shared_len / 8; i += 512)
			p[i] = n;
	}
	return NULL;
}

static void *vm_writer(void *unused)
{
	struct iovec local, remote;
	uint64_t n = 0, seen;

	local.iov_len = sizeof(n);
	remote = (struct iovec){ shared_mem + 5 * 4096 + 64, sizeof(n) };
	while (!stop) {
		local.iov_base = &seen;
		if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != 8)
			continue;
		if (seen != n)
			return (void *)1;
		n++;
		local.iov_base = &n;
		if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != 8)
			return (void *)2;
	}
	return NULL;
}

/* Has pages moved without their owner. */
static void *compactor(void *unused)
{
	while (!stop) {
		write_file("/proc/sys/vm/compact_memory", "1");
		usleep(1000);
	}
	return NULL;
}

static void *collapser(void *unused)
{
	while (!stop) {
		madvise(shared_mem, shared_len, MADV_COLLAPSE);
		usleep(1000);
	}
	return NULL;
}

/* Fork, too, so that there is something to copy. */
static void rekey_busily(struct __test_metadata *_metadata,
			 FIXTURE_DATA(rekey) *self, int times)
{
	const serial_t keys[3] = { self->key, self->key2, 0 };
	int i, tries, ret;
	pid_t pid;

	for (i = 0; i < times; i++) {
		pid = i % 5 ? -1 : fork();
		if (!pid)
			_exit(0);
		/* Busy for a moment: the other threads' references. */
		for (tries = 0; tries < 100; tries++) {
			ret = encrypt_mprotect(self->mem, self->len, RW, keys[i % 3]);
			if (!ret || errno != EBUSY)
				break;
		}
		ASSERT_EQ(0, ret) {
			TH_LOG("round %d: errno %d", i, errno);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

TEST_F_TIMEOUT(rekey, no_write_is_lost, 120)
{
	START(writer);
	START(vm_writer);
	START(compactor);
	rekey_busily(_metadata, self, 60);
	JOIN_UNHURT();
}

TEST_F_TIMEOUT(rekey, no_write_is_lost_in_huge_pages, 120)
{
	char *mem;

	munmap(self->mem, self->len);
	self->len = 4 * MB;
	mem = map_anon(self->len + 2 * MB);
	ASSERT_NE(MAP_FAILED, mem);
	self->mem = (char *)(((unsigned long)mem + 2 * MB - 1) & -(2 * MB));
	shared_mem = self->mem;
	shared_len = self->len;
	madvise(self->mem, self->len, MADV_HUGEPAGE);
	memset(self->mem, 0, self->len);

	START(writer);
	START(vm_writer);
	START(compactor);
	START(collapser);
	rekey_busily(_metadata, self, 30);
	JOIN_UNHURT();
}

TEST_HARNESS_MAIN
