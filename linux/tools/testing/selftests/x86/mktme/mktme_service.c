// SPDX-License-Identifier: GPL-2.0
/*
 * Keys as a service: what each operation of keyctl(2) does with them, erasure,
 * rotation, cgroups, who may use them, and misuse.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#include "mktme_mm.h"

#define HEX16		"000102030405060708090a0b0c0d0e0f"
#define ERASE		"erase"

#define KEY_POS_SEARCH	0x08000000
#define KEY_USR_SEARCH	0x00080000
#define KEY_USR_ALL	0x003f0000

#define CGROUP	"/sys/fs/cgroup"
#define GROUP	CGROUP "/mktme-test"

FIXTURE(service)
{
	long page;
	size_t len;
	char *mem;
	serial_t key;
	bool misc;
};

FIXTURE_SETUP(service)
{
	SKIP_UNLESS_ALONE();
	self->page = sysconf(_SC_PAGESIZE);
	self->len = 16 * self->page;
	self->mem = map_anon(self->len);
	ASSERT_NE(MAP_FAILED, self->mem);
	self->key = new_key("service", CPU_KEY);
	ASSERT_LT(0, self->key);
}

FIXTURE_TEARDOWN(service)
{
	rmdir(GROUP);
	put_back_misc(self->misc);
}

static long update_key(serial_t key, const char *payload)
{
	return keyctl(KEYCTL_UPDATE, key, (unsigned long)payload,
		      strlen(payload), 0);
}

static sigjmp_buf on_sigbus;

static void sigbus(int sig)
{
	siglongjmp(on_sigbus, 1);
}

static bool touch_raises_sigbus(volatile char *p, bool write)
{
	struct sigaction sa = { .sa_handler = sigbus }, old;
	bool raised = true;

	sigaction(SIGBUS, &sa, &old);
	if (!sigsetjmp(on_sigbus, 1)) {
		if (write)
			*p = 1;
		else
			(void)*p;
		raised = false;
	}
	sigaction(SIGBUS, &old, NULL);
	return raised;
}

/* Exit status of a child that runs fn, or -1. */
static int in_child(int (*fn)(void *), void *arg)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(fn(arg));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/*
 * Erasure
 */

TEST_F(service, erase)
{
	char *more = map_anon(self->len), buf[64] = "";
	int to_child[2], to_parent[2], fd, status;
	pid_t pid;

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	ASSERT_EQ(0, encrypt_mprotect(more, self->len, RW, self->key));
	fill(self->mem, self->len, 1);

	/* Somebody who shares the pages, and has some of its own. */
	ASSERT_EQ(0, pipe(to_child));
	ASSERT_EQ(0, pipe(to_parent));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		self->mem[self->page] ^= 1;
		if (write(to_parent[1], "x", 1) != 1 ||
		    read(to_child[0], buf, 1) != 1)
			_exit(1);
		if (!touch_raises_sigbus(self->mem, false) ||
		    !touch_raises_sigbus(self->mem + self->page, true) ||
		    !touch_raises_sigbus(more, true))
			_exit(2);
		_exit(0);
	}
	ASSERT_EQ(1, read(to_parent[0], buf, 1));

	ASSERT_EQ(0, update_key(self->key, ERASE));
	EXPECT_TRUE(touch_raises_sigbus(self->mem, false));
	EXPECT_TRUE(touch_raises_sigbus(self->mem + self->len - 1, true));
	EXPECT_TRUE(touch_raises_sigbus(more, false));
	ASSERT_EQ(1, write(to_child[1], "x", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);

	/* The kernel gets no further, by whichever way it comes. */
	fd = open("/dev/zero", O_RDWR);
	EXPECT_EQ(-1, read(fd, self->mem, 16));
	EXPECT_EQ(EFAULT, errno);
	close(fd);
	EXPECT_EQ(-1, madvise(self->mem, self->len, MADV_POPULATE_WRITE));
	EXPECT_EQ(EFAULT, errno);

	/* Nothing comes under it any more; and that the VMAs stay costs no KeyID. */
	EXPECT_EQ(-1, encrypt_mprotect(more, self->len, RW, self->key));
	EXPECT_EQ(ENOKEY, errno);
	EXPECT_TRUE(keyids_fall_to(0));
	EXPECT_EQ(0, read_sysfs(SYSFS "encrypted_bytes"));
	EXPECT_EQ(0, keyid_at(self->mem));
	EXPECT_EQ(0, update_key(self->key, ERASE));
}

TEST_F(service, erased_memory_can_be_used_again)
{
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 1);
	ASSERT_EQ(0, update_key(self->key, " erase\n"));

	/* With the same key, that it has to get new material for. */
	ASSERT_EQ(0, update_key(self->key, CPU_KEY));
	EXPECT_TRUE(touch_raises_sigbus(self->mem, true));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len / 2, RW, self->key));
	EXPECT_TRUE(zero(self->mem, self->len / 2));
	fill(self->mem, self->len / 2, 2);
	EXPECT_TRUE(filled(self->mem, self->len / 2, 2));
	EXPECT_TRUE(touch_raises_sigbus(self->mem + self->len / 2, true));

	/* With none. */
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	EXPECT_TRUE(filled(self->mem, self->len / 2, 2));
	EXPECT_TRUE(zero(self->mem + self->len / 2, self->len / 2));
}

/* A page in a pipe is nobody's mapping: it outlives, and reads as noise. */
TEST_F(service, erase_pinned)
{
	struct iovec iov = { .iov_base = self->mem, .iov_len = self->page };
	char *got = malloc(self->page);
	int p[2];

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 3);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(self->page, vmsplice(p[1], &iov, 1, 0));

	ASSERT_EQ(0, update_key(self->key, ERASE));
	EXPECT_TRUE(touch_raises_sigbus(self->mem, false));
	usleep(200000);
	EXPECT_EQ(1, read_sysfs(SYSFS "keyids_in_use"));
	EXPECT_EQ(self->page, read_sysfs(SYSFS "encrypted_bytes"));

	ASSERT_EQ(self->page, read(p[0], got, self->page));
	EXPECT_FALSE(filled(got, self->page, 3));
	EXPECT_TRUE(keyids_fall_to(0));
}

TEST_F(service, erase_huge_page)
{
	size_t huge = 2 << 20;
	char *mem = map_anon(2 * huge);

	mem = (char *)(((uintptr_t)mem + huge - 1) & ~(huge - 1));
	madvise(mem, huge, MADV_HUGEPAGE);
	ASSERT_EQ(0, encrypt_mprotect(mem, huge, RW, self->key));
	fill(mem, huge, 4);
	ASSERT_EQ(0, update_key(self->key, ERASE));
	EXPECT_TRUE(touch_raises_sigbus(mem + huge / 2, false));
	EXPECT_TRUE(keyids_fall_to(0));
}

struct racer {
	char *mem;
	size_t len;
	bool stop, garbage, sigbus, moved;
};

static __thread sigjmp_buf racer_env;

static void racer_sigbus(int sig)
{
	siglongjmp(racer_env, 1);
}

/* A page is what was written to it, or new, until it is no more. */
static void *race(void *arg)
{
	struct racer *r = arg;
	volatile uint32_t *p;
	unsigned int seed = (uintptr_t)&seed;
	uint32_t seen;

	if (sigsetjmp(racer_env, 1)) {
		r->sigbus = true;
		return NULL;
	}
	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		seed = seed * 1664525 + 1013904223;
		p = (void *)(r->mem + (seed >> 8) % (r->len / 4096) * 4096);
		if (!(seed % 7))
			madvise((void *)p, 4096, MADV_DONTNEED);
		seen = *p;
		if (seen && seen != 0x5afe5afe)
			r->garbage = true;
		*p = 0x5afe5afe;
	}
	return NULL;
}

TEST_F(service, erase_races_with_faults)
{
	struct sigaction sa = { .sa_handler = racer_sigbus };
	struct racer r[4];
	pthread_t thread[4];
	int i, round;

	sigaction(SIGBUS, &sa, NULL);
	for (round = 0; round < 20; round++) {
		ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
		for (i = 0; i < 4; i++) {
			r[i] = (struct racer){ .mem = self->mem, .len = self->len };
			ASSERT_EQ(0, pthread_create(&thread[i], NULL, race, &r[i]));
		}
		usleep(10000);
		ASSERT_EQ(0, update_key(self->key, ERASE));
		for (i = 0; i < 4; i++)
			pthread_join(thread[i], NULL);
		for (i = 0; i < 4; i++) {
			EXPECT_FALSE(r[i].garbage);
			EXPECT_TRUE(r[i].sigbus);
		}
		ASSERT_EQ(0, update_key(self->key, CPU_KEY));
	}
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	unlink_key(self->key);
	EXPECT_TRUE(keyids_fall_to(0));
}

/* Children and grandchildren come up while the key goes: none may keep it. */
TEST_F(service, erase_races_with_fork)
{
	int p[2], round, status, i;
	pid_t pid;
	char c;

	for (round = 0; round < 10; round++) {
		ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
		fill(self->mem, self->len, round);
		ASSERT_EQ(0, pipe(p));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			int bad = 0, kids = 0;

			close(p[1]);
			for (i = 0; i < 20; i++) {
				pid = fork();
				if (!pid) {
					/* Until the key is gone. */
					while (read(p[0], &c, 1) == 1)
						;
					_exit(!touch_raises_sigbus(self->mem, i & 1));
				}
				kids += pid > 0;
			}
			while (kids--) {
				wait(&status);
				bad |= status;
			}
			_exit(!!bad);
		}
		close(p[0]);
		usleep(1000 * (round + 1));
		ASSERT_EQ(0, update_key(self->key, ERASE));
		close(p[1]);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
		ASSERT_EQ(0, update_key(self->key, CPU_KEY));
	}
}

/* Memory splits and moves about while its key goes, and gets the key again then. */
static void *mover(void *arg)
{
	struct racer *r = arg;
	serial_t key = *(serial_t *)(r->mem);
	char *volatile a = map_anon(r->len);
	volatile bool lost = true;
	char *b;

	if (sigsetjmp(racer_env, 1)) {
		r->sigbus = true;
		lost = true;
	}
	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		if (lost) {
			if (encrypt_mprotect(a, r->len, RW, key))
				continue;
			lost = false;
			fill(a, r->len, 1);
		}
		if (!filled(a, r->len, 1))
			r->garbage = true;
		mprotect(a + 4096, 4096, PROT_READ);
		mprotect(a + 4096, 4096, RW);
		b = mremap(a, r->len, r->len, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
		if (b != MAP_FAILED) {
			munmap(a, r->len);
			a = b;
			r->moved = true;
		}
	}
	munmap(a, r->len);
	return NULL;
}

TEST_F(service, erase_races_with_mremap)
{
	struct sigaction sa = { .sa_handler = racer_sigbus };
	struct racer r = { .mem = (char *)&self->key, .len = self->len };
	pthread_t thread[2];
	int i, round;

	SKIP_WITHOUT_KEYIDS(2, 1);
	sigaction(SIGBUS, &sa, NULL);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, mover, &r));
	for (round = 0; round < 30; round++) {
		usleep(5000);
		ASSERT_EQ(0, update_key(self->key, round % 3 ? ERASE : CPU_KEY));
		ASSERT_EQ(0, update_key(self->key, CPU_KEY))
			TH_LOG("%s", strerror(errno));
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	EXPECT_TRUE(r.moved);
	EXPECT_TRUE(r.sigbus);
	EXPECT_FALSE(r.garbage);
	unlink_key(self->key);
	EXPECT_TRUE(keyids_fall_to(0));
}

/*
 * Rotation
 */

TEST_F(service, rotate)
{
	long keyid;
	int to_child[2], status;
	pid_t pid;
	char c;

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 5);
	keyid = keyid_at(self->mem);
	ASSERT_EQ(0, pipe(to_child));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (read(to_child[0], &c, 1) != 1)
			_exit(1);
		if (keyid_at(self->mem) == keyid)
			_exit(2);
		if (!filled(self->mem, self->len, 5))
			_exit(3);
		_exit(0);
	}

	ASSERT_EQ(0, update_key(self->key, USER_KEY));
	EXPECT_NE(keyid, keyid_at(self->mem));
	EXPECT_TRUE(filled(self->mem, self->len, 5));
	ASSERT_EQ(1, write(to_child[1], "x", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	/* The old one is free. */
	EXPECT_TRUE(keyids_fall_to(1));

	/* The same name, with add_key: it is the same key. */
	EXPECT_EQ(self->key, new_key("service", CPU_KEY));
	EXPECT_TRUE(filled(self->mem, self->len, 5));
	EXPECT_TRUE(keyids_fall_to(1));
}

TEST_F(service, rotate_pinned)
{
	struct iovec iov = { .iov_base = self->mem + self->len / 2,
			     .iov_len = self->page };
	char *other = map_anon(self->len), *got = malloc(self->page);
	long keyid;
	int p[2];

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_EQ(0, encrypt_mprotect(other, self->len, RW, self->key));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(other, self->len, 6);
	fill(self->mem, self->len, 7);
	keyid = keyid_at(self->mem);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(self->page, vmsplice(p[1], &iov, 1, 0));

	EXPECT_EQ(-1, update_key(self->key, CPU_KEY));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(keyid, keyid_at(self->mem));
	EXPECT_EQ(keyid, keyid_at(other));
	EXPECT_TRUE(filled(self->mem, self->len, 7));
	EXPECT_TRUE(filled(other, self->len, 6));
	EXPECT_TRUE(keyids_fall_to(1));

	ASSERT_EQ(self->page, read(p[0], got, self->page));
	EXPECT_EQ(0, update_key(self->key, CPU_KEY));
	EXPECT_TRUE(filled(self->mem, self->len, 7));
}

/* A page in a pipe, without a mapping, stays under the KeyID from before. */
TEST_F(service, erase_after_rotation)
{
	struct iovec iov = { .iov_base = self->mem, .iov_len = self->page };
	char *got = malloc(self->page);
	int p[2];

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 8);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(self->page, vmsplice(p[1], &iov, 1, 0));
	ASSERT_EQ(self->page, vmsplice(p[1], &iov, 1, 0));
	ASSERT_EQ(0, munmap(self->mem, self->page));

	ASSERT_EQ(0, update_key(self->key, CPU_KEY));
	ASSERT_EQ(self->page, read(p[0], got, self->page));
	EXPECT_TRUE(filled(got, self->page, 8));
	ASSERT_EQ(0, update_key(self->key, ERASE));
	ASSERT_EQ(self->page, read(p[0], got, self->page));
	EXPECT_FALSE(filled(got, self->page, 8));
	EXPECT_TRUE(keyids_fall_to(0));
}

/* Wherever it is killed, a later erase finds all that was under the key. */
TEST_F(service, killed_rotation)
{
	enum { VMAS = 16 };
	size_t part = 32 * self->page;
	int i, n, status, started[2], cut_short = 0;
	struct timespec from, to;
	long usecs = 0;
	char *mem[VMAS], c;
	pid_t pid;

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_EQ(0, pipe(started));
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key, KEY_POS_ALL | KEY_USR_ALL,
			    0, 0));
	for (i = 0; i < VMAS; i++) {
		/* The page in front keeps them apart. */
		mem[i] = map_anon(part + self->page);
		ASSERT_NE(MAP_FAILED, mem[i]);
		ASSERT_EQ(0, mprotect(mem[i], self->page, PROT_NONE));
		mem[i] += self->page;
	}

	/* The first is left in peace, and tells when to kill the others. */
	for (n = 0; n < 10; n++) {
		for (i = 0; i < VMAS; i++) {
			ASSERT_EQ(0, encrypt_mprotect(mem[i], part, RW, self->key));
			fill(mem[i], part, i);
		}
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			/* What the child shares would have to be copied first. */
			for (i = 0; i < VMAS; i++)
				munmap(mem[i], part);
			if (write(started[1], "x", 1) != 1)
				_exit(2);
			_exit(update_key(self->key, CPU_KEY) ? 1 : 0);
		}
		ASSERT_EQ(1, read(started[0], &c, 1));
		clock_gettime(CLOCK_MONOTONIC, &from);
		if (n) {
			usleep(usecs * n / 10);
			kill(pid, SIGKILL);
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		clock_gettime(CLOCK_MONOTONIC, &to);
		if (!n)
			usecs = (to.tv_sec - from.tv_sec) * 1000000 +
				(to.tv_nsec - from.tv_nsec) / 1000;
		cut_short += WIFSIGNALED(status);

		for (i = 0; i < VMAS; i++)
			EXPECT_TRUE(filled(mem[i], part, i));
		ASSERT_EQ(0, update_key(self->key, ERASE));
		for (i = 0; i < VMAS; i++)
			EXPECT_TRUE(touch_raises_sigbus(mem[i], false));
		ASSERT_EQ(0, update_key(self->key, CPU_KEY));
	}
	EXPECT_LT(0, cut_short);
	EXPECT_TRUE(keyids_fall_to(1));
}

TEST_F(service, update_errors)
{
	struct __user_cap_header_struct hdr = { _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { };

	EXPECT_EQ(-1, new_key("nothing-to-erase", ERASE));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, update_key(self->key, ERASE " type=cpu"));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, update_key(self->key, "type=cpu"));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(1, read_sysfs(SYSFS "keyids_in_use"));

	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key,
			    KEY_POS_VIEW | KEY_POS_SEARCH | KEY_POS_SETATTR, 0, 0));
	EXPECT_EQ(-1, update_key(self->key, ERASE));
	EXPECT_EQ(EACCES, errno);
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key, KEY_POS_ALL, 0, 0));

	ASSERT_EQ(0, syscall(__NR_capget, &hdr, data));
	data[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective &=
		~CAP_TO_MASK(CAP_SYS_RESOURCE);
	ASSERT_EQ(0, syscall(__NR_capset, &hdr, data));
	EXPECT_EQ(-1, update_key(self->key, ERASE));
	EXPECT_EQ(EPERM, errno);

	ASSERT_EQ(0, revoke_key(self->key));
	EXPECT_EQ(-1, update_key(self->key, ERASE));
	EXPECT_EQ(EKEYREVOKED, errno);
}

/*
 * The operations of keyctl(2)
 */

struct user {
	uid_t uid;
	serial_t key;
	char *mem;
	size_t len;
};

/* What somebody without privileges can do with the key: bits of an exit status. */
enum {
	CAN_USE = 1, CAN_UPDATE = 2, CAN_CREATE = 4, CAN_REVOKE = 8, CAN_READ = 16,
	CAN_VIEW = 32,
};

static int as_user(void *arg)
{
	struct user *u = arg;
	char buf[256];
	int can = 0;

	if (syscall(__NR_setresgid, u->uid, u->uid, u->uid) ||
	    syscall(__NR_setresuid, u->uid, u->uid, u->uid))
		return 255;
	keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0);

	if (!encrypt_mprotect(u->mem, u->len, RW, u->key)) {
		can |= CAN_USE;
		fill(u->mem, u->len, 8);
		if (!filled(u->mem, u->len, 8))
			return 254;
	}
	if (keyctl(KEYCTL_DESCRIBE, u->key, (unsigned long)buf, sizeof(buf), 0) > 0)
		can |= CAN_VIEW;
	if (keyctl(KEYCTL_READ, u->key, (unsigned long)buf, sizeof(buf), 0) >= 0)
		can |= CAN_READ;
	if (!update_key(u->key, ERASE) || !update_key(u->key, CPU_KEY))
		can |= CAN_UPDATE;
	if (new_key("mine", CPU_KEY) > 0)
		can |= CAN_CREATE;
	if (!revoke_key(u->key))
		can |= CAN_REVOKE;
	return can;
}

static int in_user_ns(void *arg)
{
	struct user *u = arg;

	if (unshare(CLONE_NEWUSER))
		return 255;
	/* All capabilities there are, in the new namespace. */
	if (new_key("mine", CPU_KEY) > 0)
		return CAN_CREATE;
	if (!update_key(u->key, ERASE))
		return CAN_UPDATE;
	return 0;
}

TEST_F(service, hand_over)
{
	struct user u = { .uid = 1000, .key = self->key, .mem = self->mem,
			  .len = self->len };

	/* Root's alone, possessed or not. */
	EXPECT_EQ(0, in_child(as_user, &u));

	/* By setperm, to anybody: to use, and nothing else. */
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key,
			    KEY_POS_ALL | KEY_OTH_SEARCH, 0, 0));
	EXPECT_EQ(CAN_USE, in_child(as_user, &u));

	/* By chown, to one. */
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key,
			    KEY_POS_ALL | KEY_USR_SEARCH | KEY_USR_VIEW, 0, 0));
	ASSERT_EQ(0, keyctl(KEYCTL_CHOWN, self->key, 1000, -1, 0));
	EXPECT_EQ(CAN_USE | CAN_VIEW, in_child(as_user, &u));
	u.uid = 1001;
	EXPECT_EQ(0, in_child(as_user, &u));

	/* With all rights to it there still is no right to a KeyID. */
	u.uid = 1000;
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key,
			    KEY_POS_ALL | KEY_USR_ALL, 0, 0));
	EXPECT_EQ(CAN_USE | CAN_VIEW | CAN_REVOKE, in_child(as_user, &u));
}

TEST_F(service, user_namespace)
{
	struct user u = { .key = self->key };
	int can = in_child(in_user_ns, &u);

	if (can == 255)
		SKIP(return, "user namespaces can't be made here");
	EXPECT_EQ(0, can);
	EXPECT_EQ(1, read_sysfs(SYSFS "keyids_in_use"));
}

TEST_F(service, timeout)
{
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 9);
	ASSERT_EQ(0, keyctl(KEYCTL_SET_TIMEOUT, self->key, 1, 0, 0));
	sleep(2);
	EXPECT_EQ(-1, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_TRUE(errno == EKEYEXPIRED || errno == ENOKEY);
	EXPECT_TRUE(filled(self->mem, self->len, 9));
	EXPECT_EQ(-1, update_key(self->key, ERASE));
	munmap(self->mem, self->len);
}

TEST_F(service, find_link_describe)
{
	char buf[256];
	serial_t ring;

	EXPECT_EQ(self->key, keyctl(KEYCTL_SEARCH, KEY_SPEC_PROCESS_KEYRING,
				    (unsigned long)MKTME_KEY_TYPE,
				    (unsigned long)"service", 0));
	EXPECT_EQ(self->key, syscall(__NR_request_key, MKTME_KEY_TYPE, "service",
				     NULL, 0));
	EXPECT_EQ(-1, syscall(__NR_request_key, MKTME_KEY_TYPE, "nobody", NULL, 0));
	EXPECT_EQ(ENOKEY, errno);

	ASSERT_LT(0, keyctl(KEYCTL_DESCRIBE, self->key, (unsigned long)buf,
			    sizeof(buf), 0));
	EXPECT_EQ(0, strncmp(buf, MKTME_KEY_TYPE ";0;0;", strlen(MKTME_KEY_TYPE) + 5))
		TH_LOG("%s", buf);
	EXPECT_NE(NULL, strstr(buf, ";service"));

	/* A link is as good as the first. */
	ring = syscall(__NR_add_key, "keyring", "another", NULL, 0,
		       KEY_SPEC_PROCESS_KEYRING);
	ASSERT_LT(0, ring);
	ASSERT_EQ(0, keyctl(KEYCTL_LINK, self->key, ring, 0, 0));
	ASSERT_EQ(0, unlink_key(self->key));
	EXPECT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ(1, read_sysfs(SYSFS "keyids_in_use"));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	ASSERT_EQ(0, keyctl(KEYCTL_UNLINK, self->key, ring, 0, 0));
	EXPECT_TRUE(keyids_fall_to(0));
	EXPECT_EQ(-1, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ(ENOKEY, errno);
}

TEST_F(service, keyring_restriction)
{
	serial_t ring = syscall(__NR_add_key, "keyring", "shut", NULL, 0,
				KEY_SPEC_PROCESS_KEYRING);

	ASSERT_LT(0, ring);
	/* The type has no restrictions of its own... */
	EXPECT_EQ(-1, keyctl(KEYCTL_RESTRICT_KEYRING, ring,
			     (unsigned long)MKTME_KEY_TYPE, (unsigned long)"x", 0));
	EXPECT_EQ(ENOENT, errno);
	/* ...and heeds those of a keyring, at the cost of no KeyID. */
	ASSERT_EQ(0, keyctl(KEYCTL_RESTRICT_KEYRING, ring, 0, 0, 0));
	EXPECT_EQ(-1, keyctl(KEYCTL_LINK, self->key, ring, 0, 0));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, syscall(__NR_add_key, MKTME_KEY_TYPE, "in", CPU_KEY,
			      strlen(CPU_KEY), ring));
	EXPECT_EQ(EPERM, errno);
	EXPECT_TRUE(keyids_fall_to(1));
}

/* Somebody who may make keys, but no more than others: returns the error. */
static int over_quota(void *arg)
{
	struct __user_cap_header_struct hdr = { _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { };
	char name[32];
	int i = 0;

	data[0].permitted = CAP_TO_MASK(CAP_SYS_RESOURCE);
	data[0].effective = data[0].permitted;
	if (prctl(PR_SET_KEEPCAPS, 1) ||
	    syscall(__NR_setresuid, 65533, 65533, 65533) ||
	    syscall(__NR_capset, &hdr, data))
		return 255;
	keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0);
	if (new_key("within", CPU_KEY) < 0)
		return 254;
	do {
		snprintf(name, sizeof(name), "%d", i++);
	} while (add_key("user", name, "payload", 7) > 0);
	return new_key("over", CPU_KEY) < 0 ? errno : 0;
}

TEST_F(service, quota)
{
	SKIP_WITHOUT_KEYIDS(2, 1);
	EXPECT_EQ(EDQUOT, in_child(over_quota, NULL));
	EXPECT_TRUE(keyids_fall_to(1));
}

/*
 * cgroups
 */

/* The number behind "mktme " or "mktme.max " in a file of the misc controller. */
static long misc(const char *path, const char *name)
{
	FILE *f = fopen(path, "r");
	char word[64];
	long val, found = -1;

	while (f && fscanf(f, "%63s %ld", word, &val) == 2)
		if (!strcmp(word, name))
			found = val;
	if (f)
		fclose(f);
	return found;
}

static bool charged_falls_to(long wanted)
{
	int i;

	for (i = 0; i < 1000; i++) {
		if (misc(GROUP "/misc.current", "mktme") == wanted)
			return true;
		usleep(10000);
	}
	return false;
}

static int cgroup_member(void *arg)
{
	serial_t a, b, d;

	if (!write_file(GROUP "/cgroup.procs", "0"))
		return 1;
	a = new_key("a", CPU_KEY);
	b = new_key("b", CPU_KEY);
	if (a <= 0 || b <= 0)
		return 2;
	if (misc(GROUP "/misc.current", "mktme") != 2)
		return 3;
	if (new_key("c", CPU_KEY) > 0 || errno != EDQUOT)
		return 4;
	if (misc(GROUP "/misc.events", "mktme.max") != 1)
		return 5;
	/* Right away: what is on its way back does not count. */
	d = revoke_key(a) ? -1 : new_key("d", CPU_KEY);
	if (d <= 0 || misc(GROUP "/misc.events", "mktme.max") != 1)
		return 6;
	/* Two KeyIDs for a while. */
	if (!update_key(b, CPU_KEY) || errno != EDQUOT)
		return 7;
	/* Whoever rotates it, it stays its creator's. */
	if (revoke_key(d) || !charged_falls_to(1) ||
	    !write_file(CGROUP "/cgroup.procs", "0") || update_key(b, CPU_KEY))
		return 8;
	return charged_falls_to(1) ? 0 : 9;
}

TEST_F(service, cgroup)
{
	long total = read_sysfs(SYSFS "keyids_total");

	SKIP_WITHOUT_KEYIDS(4, 1);
	if (!set_misc(&self->misc))
		SKIP(return, "no misc controller");
	EXPECT_EQ(total, misc(CGROUP "/misc.capacity", "mktme"));
	EXPECT_EQ(1, misc(CGROUP "/misc.current", "mktme"));
	mkdir(GROUP, 0755);
	ASSERT_TRUE(write_file(GROUP "/misc.max", "mktme 2"));
	EXPECT_EQ(0, in_child(cgroup_member, NULL));
	/* Its creator is gone, the KeyIDs are free: nobody is charged. */
	EXPECT_TRUE(charged_falls_to(0));
	EXPECT_TRUE(keyids_fall_to(1));
}

/*
 * Load and misuse
 */

TEST_F(service, thousands_of_keys)
{
	long total = read_sysfs(SYSFS "keyids_total"), made = 0, i;
	char name[32];
	serial_t key;

	SKIP_WITHOUT_KEYIDS(16, 1);
	while (made < 3000) {
		for (i = 1; i < total; i++, made++) {
			snprintf(name, sizeof(name), "key-%ld", i);
			key = new_key(name, i & 1 ? CPU_KEY : USER_LONG_KEY);
			ASSERT_LT(0, key)
				TH_LOG("%ld: %s", made, strerror(errno));
			if (i % 16)
				continue;
			ASSERT_EQ(0, encrypt_mprotect(self->mem, self->page, RW, key));
			self->mem[0]++;
		}
		ASSERT_EQ(0, encrypt_mprotect(self->mem, self->page, RW, 0));
		/* All but the fixture's. */
		for (i = 1; i < total; i++) {
			snprintf(name, sizeof(name), "key-%ld", i);
			key = keyctl(KEYCTL_SEARCH, KEY_SPEC_PROCESS_KEYRING,
				     (unsigned long)MKTME_KEY_TYPE,
				     (unsigned long)name, 0);
			ASSERT_EQ(0, i & 2 ? keyctl(KEYCTL_INVALIDATE, key, 0, 0, 0) :
					     revoke_key(key));
			unlink_key(key);
		}
		/* Those that were invalidated wait for the key service's collector. */
		ASSERT_TRUE(keyids_fall_to(1));
	}
	EXPECT_EQ(0, read_sysfs(SYSFS "encrypted_bytes"));
}

struct worker {
	unsigned int seed, id;
	bool bad;
};

/* Rounds of whatever comes to mind; the memory must be right all the while. */
static void *work(void *arg)
{
	struct worker *w = arg;
	size_t len = 8 * 4096;
	char *mem = map_anon(len), name[32];
	serial_t volatile key = 0;
	unsigned int volatile round, r;
	bool volatile full = false;
	const char *payload;
	pid_t pid;

	snprintf(name, sizeof(name), "worker-%u", w->id);
	for (round = 0; round < 150 && !w->bad; round++) {
		r = rand_r(&w->seed) / 16;
		switch (r % 8) {
		case 0:
			if (key > 0)
				break;
			/* No matter if the others have all KeyIDs. */
			payload = r & 8 ? CPU_KEY : USER_KEY;
			key = add_key(MKTME_KEY_TYPE, name, payload,
				      strlen(payload));
			break;
		case 1:
		case 2:
			if (key > 0)
				encrypt_mprotect(mem, r & 8 ? len : len / 2, RW,
						 r & 16 ? key : 0);
			break;
		case 3:
			if (sigsetjmp(racer_env, 1)) {
				full = false;
				break;
			}
			if (full && !filled(mem, len, w->id))
				w->bad = true;
			fill(mem, len, w->id);
			full = true;
			break;
		case 4:
			if (key > 0)
				update_key(key, USER_LONG_KEY);
			break;
		case 5:
			if (key > 0 && !update_key(key, ERASE)) {
				encrypt_mprotect(mem, len, RW, 0);
				full = false;
			}
			break;
		case 6:
			if (key > 0)
				r & 8 ? revoke_key(key) : unlink_key(key);
			unlink_key(key);
			key = 0;
			break;
		case 7:
			pid = fork();
			if (!pid)
				_exit(0);
			if (pid > 0)
				waitpid(pid, NULL, 0);
			break;
		}
	}
	munmap(mem, len);
	unlink_key(key);
	return NULL;
}

TEST_F(service, many_at_once)
{
	struct sigaction sa = { .sa_handler = racer_sigbus };
	struct worker w[8];
	pthread_t thread[8];
	int i;

	SKIP_WITHOUT_KEYIDS(2, 1);
	sigaction(SIGBUS, &sa, NULL);
	for (i = 0; i < 8; i++) {
		w[i] = (struct worker){ .seed = i * 7919 + 1, .id = i };
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, work, &w[i]));
	}
	for (i = 0; i < 8; i++)
		pthread_join(thread[i], NULL);
	for (i = 0; i < 8; i++)
		EXPECT_FALSE(w[i].bad);
	EXPECT_TRUE(keyids_fall_to(1));
	EXPECT_EQ(0, read_sysfs(SYSFS "encrypted_bytes"));
}

/* What the payload's description says, written once more. */
static bool payload_good(const char *payload, size_t len)
{
	char buf[1024], *word, *save, *value;
	const char *type = NULL, *alg = NULL, *key = NULL, *tweak = NULL;
	const char **slot;
	size_t digits;

	if (!len || len > 512 || memchr(payload, 0, len))
		return false;
	memcpy(buf, payload, len);
	buf[len] = 0;
	for (word = strtok_r(buf, " \t\n", &save); word;
	     word = strtok_r(NULL, " \t\n", &save)) {
		value = strchr(word, '=');
		if (!value)
			return false;
		*value++ = 0;
		slot = !strcmp(word, "type") ? &type : !strcmp(word, "algorithm") ? &alg :
		       !strcmp(word, "key") ? &key : !strcmp(word, "tweak") ? &tweak : NULL;
		if (!slot || *slot)
			return false;
		*slot = value;
	}
	if (!type)
		return false;
	if (!strcmp(type, "no-encrypt"))
		return !alg && !key && !tweak;
	if (!alg || (strcmp(type, "cpu") && strcmp(type, "user")))
		return false;
	if (!strcmp(type, "user") && (!key || !tweak))
		return false;
	digits = !strcmp(alg, "aes-xts-128") ? 32 : !strcmp(alg, "aes-xts-256") ? 64 : 0;
	if (!digits || !has_algorithm(alg))
		return false;
	if (key && (strlen(key) != digits ||
		    strspn(key, "0123456789abcdefABCDEF") != digits))
		return false;
	if (tweak && (strlen(tweak) != digits ||
		      strspn(tweak, "0123456789abcdefABCDEF") != digits))
		return false;
	return true;
}

TEST_F(service, fuzz_payload)
{
	static const char * const words[] = {
		"type=cpu", "type=user", "type=no-encrypt", "type=", "algorithm=aes-xts-128",
		"algorithm=aes-xts-256", "algorithm=aes-xts-192", "key=" HEX16,
		"tweak=" HEX16, "key=" HEX16 HEX16, "tweak=" HEX16 HEX16, "key=",
		"erase", "=", "%s", "key", "tweak", "type=cpu,user",
	};
	static const char * const seps[] = { " ", "\t", "\n", "  ", "", "," };
	unsigned int seed = 20261124, round, n, good = 0;
	char buf[700];
	size_t len, i;
	serial_t key;

	SKIP_WITHOUT_KEYIDS(2, 1);
	/* The seeds that matter, then what becomes of them. */
	for (round = 0; round < 20000; round++) {
		len = 0;
		buf[0] = 0;
		n = rand_r(&seed) % 6;
		while (n--)
			len += snprintf(buf + len, sizeof(buf) - len, "%s%s",
					words[rand_r(&seed) % ARRAY_SIZE(words)],
					rand_r(&seed) % 8 ? " " :
					seps[rand_r(&seed) % ARRAY_SIZE(seps)]);
		if (!(rand_r(&seed) % 3) && len) {
			for (i = rand_r(&seed) % 4; i; i--)
				buf[rand_r(&seed) % len] = rand_r(&seed);
		}
		if (!(rand_r(&seed) % 50))
			len = rand_r(&seed) % (len + 1);

		key = add_key(MKTME_KEY_TYPE, "fuzz", buf, len);
		if (key > 0) {
			good++;
			EXPECT_TRUE(payload_good(buf, len))
				TH_LOG("accepted: %.*s", (int)len, buf);
			/* Which frees the KeyID at once. */
			revoke_key(key);
			unlink_key(key);
		} else {
			EXPECT_EQ(EINVAL, errno);
			EXPECT_FALSE(payload_good(buf, len))
				TH_LOG("refused: %.*s", (int)len, buf);
		}
	}
	EXPECT_LT(50, good);
	EXPECT_TRUE(keyids_fall_to(1));
}

TEST_HARNESS_MAIN
