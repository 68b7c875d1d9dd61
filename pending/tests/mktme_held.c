// SPDX-License-Identifier: GPL-2.0
/*
 * Keys while somebody sits on an mmap lock: who overtakes whom, and who waits.
 *
 * A thread that holds the lock, in a long madvise(), is kept from the CPU by a
 * process of a higher real-time priority, for as long as the test wants.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>

#include "mktme_test.h"

#define ERASE		"erase"
#define KEY_USR_ALL	0x003f0000
#define CGROUP		"/sys/fs/cgroup"
#define GROUP		CGROUP "/mktme-held"

/* Shared by all processes of a test. */
struct held {
	int cpu;
	size_t slow_len;
	volatile bool ready, started, done, spinning, stop;

	/* What another thread of the process does meanwhile. */
	serial_t key;
	volatile bool go;
	volatile pid_t tid;
	volatile bool late_done;
	int ret, err;
	long keyid;

	pid_t hog, process;
};

FIXTURE(held)
{
	long in_use;
	size_t len;
	int cpu;
	serial_t key;
	struct held *h;
};

FIXTURE_SETUP(held)
{
	cpu_set_t cpus, others;

	SKIP_WITHOUT_MKTME();
	self->len = 16 * sysconf(_SC_PAGESIZE);
	self->in_use = keyids_settled();
	self->key = new_key("held", CPU_128);
	ASSERT_LT(0, self->key);
	/* For processes that do not possess it. */
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key, KEY_POS_ALL | KEY_USR_ALL,
			    0, 0));
	self->h = mmap(NULL, sizeof(*self->h), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->h);

	/* One CPU is for those two alone. */
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(cpus), &cpus));
	if (CPU_COUNT(&cpus) < 2)
		SKIP(return, "needs two CPUs");
	for (self->cpu = CPU_SETSIZE - 1; !CPU_ISSET(self->cpu, &cpus); self->cpu--)
		;
	others = cpus;
	CPU_CLR(self->cpu, &others);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(others), &others));
}

FIXTURE_TEARDOWN(held)
{
}

static long update_key(serial_t key, const char *payload)
{
	return keyctl(KEYCTL_UPDATE, key, (unsigned long)payload,
		      strlen(payload), 0);
}

static void pin(int cpu, int prio)
{
	struct sched_param param = { .sched_priority = prio };
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) ||
	    sched_setscheduler(0, SCHED_FIFO, &param))
		_exit(3);
}

static char state_of(pid_t pid, pid_t tid)
{
	char path[64], buf[256], *p;
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		n = read(fd, buf, sizeof(buf) - 1);
		close(fd);
	}
	if (n <= 0)
		return 0;
	buf[n] = 0;
	p = strrchr(buf, ')');
	return p ? p[2] : 0;
}

/* Has it come to rest in that state? */
static bool rests(pid_t pid, pid_t tid, char state)
{
	int i;

	for (i = 0; i < 10; i++) {
		if (state_of(pid, tid) != state)
			return false;
		usleep(10000);
	}
	return true;
}

/* An entry in a page table for each page, and nothing there but the zero page. */
static void *sit(void *arg)
{
	struct held *h = arg;
	void *slow = mmap(NULL, h->slow_len, PROT_READ,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (slow == MAP_FAILED)
		_exit(3);
	madvise(slow, h->slow_len, MADV_NOHUGEPAGE);
	pin(h->cpu, 1);
	h->started = true;
	madvise(slow, h->slow_len, MADV_POPULATE_READ);
	h->done = true;
	return NULL;
}

static void hog(struct held *h)
{
	pin(h->cpu, 2);
	h->ready = true;
	/* The thread runs while this one sleeps. */
	while (!h->started && !h->stop)
		usleep(100);
	usleep(2000);
	h->spinning = true;
	while (!h->stop)
		;
	_exit(0);
}

/*
 * Have a process whose other thread runs fn, while a thread of it holds, most
 * likely, its mmap lock.  False if that one was done too early.
 */
static bool sit_down(struct held *h, int cpu, int round, int (*fn)(struct held *))
{
	serial_t key = h->key;
	pthread_t thread;
	pid_t pid;

	memset(h, 0, sizeof(*h));
	h->key = key;
	h->cpu = cpu;
	h->slow_len = (128UL << 20) << round;
	pid = fork();
	if (!pid)
		hog(h);
	h->hog = pid;
	while (!h->ready && !waitpid(h->hog, NULL, WNOHANG))
		usleep(100);
	pid = fork();
	if (!pid) {
		if (pthread_create(&thread, NULL, sit, h))
			_exit(3);
		_exit(fn(h) || pthread_join(thread, NULL));
	}
	h->process = pid;
	while (!h->spinning && !waitpid(h->process, NULL, WNOHANG))
		usleep(100);
	return h->spinning && !h->done;
}

static int stand_up(struct held *h)
{
	int status;

	h->stop = true;
	waitpid(h->hog, NULL, 0);
	if (waitpid(h->process, &status, 0) != h->process || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static int encrypt_late(struct held *h)
{
	size_t len = 16 * sysconf(_SC_PAGESIZE);
	char *mem = map_anon(len);

	fill(mem, len, 1);
	while (!h->go)
		usleep(100);
	h->tid = syscall(__NR_gettid);
	h->ret = encrypt_mprotect(mem, len, RW, h->key);
	h->err = errno;
	h->late_done = true;
	h->keyid = keyid_at(mem);
	return !filled(mem, len, 1);
}

/* Until encrypt_mprotect() has the key, and waits for the lock. */
static bool late(struct held *h, int cpu)
{
	int round;

	for (round = 0; round < 8; round++) {
		if (sit_down(h, cpu, round, encrypt_late)) {
			h->go = true;
			while (!h->late_done && !(h->tid && rests(h->process, h->tid, 'D')))
				usleep(1000);
			if (!h->late_done)
				return true;
		}
		h->go = true;
		stand_up(h);
	}
	return false;
}

/*
 * The memory must not come under what is no key any more.  Nobody would find it
 * later: its mm had no memory under a key when the key was erased.
 */
TEST_F(held, erase_overtakes_encrypt)
{
	self->h->key = self->key;
	ASSERT_TRUE(late(self->h, self->cpu));
	EXPECT_EQ(0, update_key(self->key, ERASE));
	EXPECT_FALSE(self->h->late_done);
	EXPECT_EQ(0, stand_up(self->h));
	EXPECT_EQ(-1, self->h->ret);
	EXPECT_EQ(ENOKEY, self->h->err);
	EXPECT_EQ(0, self->h->keyid);
	EXPECT_TRUE(keyids_fall_to(self->in_use));
}

/* It comes under what is the key by then. */
TEST_F(held, rotation_overtakes_encrypt)
{
	char *mem = map_anon(self->len);
	long old;

	self->h->key = self->key;
	ASSERT_TRUE(late(self->h, self->cpu));
	EXPECT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	old = keyid_at(mem);
	EXPECT_EQ(0, encrypt_mprotect(mem, self->len, RW, 0));
	EXPECT_EQ(0, update_key(self->key, CPU_128));
	EXPECT_FALSE(self->h->late_done);
	EXPECT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	EXPECT_NE(old, keyid_at(mem));
	EXPECT_EQ(0, stand_up(self->h));
	EXPECT_EQ(0, self->h->ret);
	EXPECT_EQ(keyid_at(mem), self->h->keyid);
}

static int under_key(struct held *h)
{
	return 0;
}

static bool put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

static void nothing(int sig)
{
}

/* A process that makes a key: its exit status is 0, or the error. */
static pid_t maker(bool in_group)
{
	struct sigaction sa = { .sa_handler = nothing };
	pid_t pid = fork();

	if (pid)
		return pid;
	sigaction(SIGUSR1, &sa, NULL);
	if (in_group && !put_file(GROUP "/cgroup.procs", "0"))
		_exit(255);
	_exit(new_key("made", CPU_128) > 0 ? 0 : errno);
}

/* Its exit status, or -1 where it takes as long as if it hung. */
static int ends(pid_t pid)
{
	int i, status;

	for (i = 0; i < 6000; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
		usleep(10000);
	}
	return -1;
}

/* Does it wait, for something that a signal ends? */
static bool waits(pid_t pid)
{
	int i;

	for (i = 0; i < 600 && kill(pid, 0) == 0; i++) {
		if (rests(pid, pid, 'S'))
			return true;
		usleep(100000);
	}
	return false;
}

/* It does not end by itself, but by a signal: its exit status. */
static int interrupted(pid_t pid)
{
	if (!waits(pid))
		return -3;
	kill(pid, SIGUSR1);
	return ends(pid);
}

/*
 * The pages of an erased key are not given back while a process with memory under
 * a key sits on its mmap lock.  That is no concern of those who can have another
 * KeyID; the others wait, but not for ever.
 */
TEST_F(held, nobody_waits_for_a_stuck_process)
{
	long total = read_sysfs(SYSFS "keyids_total");
	char *mem = map_anon(self->len), name[32];
	bool stuck = false, group;
	int round, status, n;
	serial_t key, last = 0;
	pid_t pid;

	/* So that the child's is among those that an eraser goes through. */
	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	for (round = 0; round < 8 && !stuck; round++) {
		if (sit_down(self->h, self->cpu, round, under_key)) {
			pid = fork();
			if (!pid)
				_exit(update_key(self->key, ERASE) ? 1 : 0);
			while (waitpid(pid, &status, WNOHANG) != pid) {
				stuck = rests(pid, pid, 'D');
				if (!stuck)
					continue;
				kill(pid, SIGKILL);
				ASSERT_EQ(pid, waitpid(pid, &status, 0));
				break;
			}
		}
		if (!stuck) {
			stand_up(self->h);
			ASSERT_EQ(0, update_key(self->key, CPU_128));
			ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
		}
	}
	ASSERT_TRUE(stuck);

	/* Now the worker is stuck as the eraser was. */
	EXPECT_EQ(0, ends(maker(false)));
	put_file(CGROUP "/cgroup.subtree_control", "+misc");
	mkdir(GROUP, 0755);
	group = put_file(GROUP "/misc.max", "mktme 0");
	if (group)
		EXPECT_EQ(EINTR, interrupted(maker(true)));
	EXPECT_TRUE(keyids_fall_to(self->in_use + 1));
	for (n = read_sysfs(SYSFS "keyids_in_use"); n < total; n++) {
		snprintf(name, sizeof(name), "held-%d", n);
		key = new_key(name, CPU_128);
		ASSERT_LT(0, key);
		last = key;
	}
	EXPECT_EQ(EINTR, interrupted(maker(false)));
	/* Another that comes back is as good. */
	pid = maker(false);
	EXPECT_TRUE(waits(pid));
	unlink_key(last);
	EXPECT_EQ(0, ends(pid));
	EXPECT_EQ(0, stand_up(self->h));

	/* Nobody to wait for: at once. */
	munmap(mem, self->len);
	ASSERT_TRUE(keyids_fall_to(total - 1));
	ASSERT_LT(0, new_key("last", CPU_128));
	EXPECT_EQ(ENOSPC, ends(maker(false)));
	if (group) {
		EXPECT_EQ(0, unlink_key(self->key));
		EXPECT_TRUE(keyids_fall_to(total - 1));
		EXPECT_EQ(EDQUOT, ends(maker(true)));
	}
	rmdir(GROUP);
}

TEST_HARNESS_MAIN
