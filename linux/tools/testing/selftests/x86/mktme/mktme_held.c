// SPDX-License-Identifier: GPL-2.0
/*
 * Keys while somebody sits on an mmap lock: who overtakes whom, and who waits.
 *
 * A thread holds the lock that makes a page of a file writable while the file
 * system is frozen: it waits, in the fault, until the file system thaws.
 */
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "mktme_mm.h"

#define ERASE		"erase"
#define KEY_USR_ALL	0x003f0000
#define CGROUP		"/sys/fs/cgroup"
#define GROUP		CGROUP "/mktme-held"
/* Of a millisecond, to come to where one waits */
#define TRIES		60000
#define HUNG_TASK	"/proc/sys/kernel/hung_task_timeout_secs"

/* Shared by all processes of a test. */
struct held {
	/* On the file system that freezes. */
	int fd;
	/* A process, and the thread of it that sits on its mmap lock. */
	pid_t process;
	volatile pid_t sitter;
	/* All that needs the lock has been done. */
	volatile bool ready;

	/* What another thread of the process does meanwhile. */
	serial_t key;
	volatile bool go;
	volatile pid_t tid;
	volatile bool late_done;
	int ret, err;
	long keyid;
};

FIXTURE(held)
{
	size_t len;
	serial_t key;
	struct held *h;
	char dir[32];
	struct setting hung_task;
	bool misc;
};

static int open_file(char *dir)
{
	char cmd[256];
	int fd;

	if (!mkdtemp(dir))
		return -1;
	snprintf(cmd, sizeof(cmd), "cd %s && mkdir fs && "
		 "dd if=/dev/zero of=image bs=1024 count=1024 2>/dev/null && "
		 "mke2fs -qF image >/dev/null 2>&1 && "
		 "mount -t ext2 -o loop image fs", dir);
	if (system(cmd))
		return -1;
	snprintf(cmd, sizeof(cmd), "%s/fs/file", dir);
	fd = open(cmd, O_RDWR | O_CREAT, 0600);
	if (fd >= 0 && !ftruncate(fd, sysconf(_SC_PAGESIZE)))
		return fd;
	return -1;
}

static bool stack_has_names(void)
{
	char line[128];

	return strstr(read_line("/proc/self/stack", line, sizeof(line)), "+0x");
}

static int remove_dir(const char *dir)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "umount %s/fs 2>/dev/null; rm -r %s", dir, dir);
	return system(cmd);
}

FIXTURE_SETUP(held)
{
	SKIP_UNLESS_ALONE();
	if (!stack_has_names())
		SKIP(return, "needs /proc/PID/stack (CONFIG_STACKTRACE, CONFIG_KALLSYMS)");
	self->len = 16 * sysconf(_SC_PAGESIZE);
	self->key = new_key("held", CPU_KEY);
	ASSERT_LT(0, self->key);
	/* For processes that do not possess it. */
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key, KEY_POS_ALL | KEY_USR_ALL,
			    0, 0));
	self->h = mmap(NULL, sizeof(*self->h), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->h);
	self->h->key = self->key;
	snprintf(self->dir, sizeof(self->dir), "/tmp/mktme-held-XXXXXX");
	self->h->fd = open_file(self->dir);
	if (self->h->fd < 0) {
		remove_dir(self->dir);
		SKIP(return, "needs mke2fs, a loop device and ext2");
	}
	/* That it takes long on a busy machine is no error. */
	set(&self->hung_task, HUNG_TASK, "0");
}

FIXTURE_TEARDOWN(held)
{
	if (self->h->fd >= 0) {
		ioctl(self->h->fd, FITHAW, 0);
		close(self->h->fd);
	}
	if (self->h->process > 0) {
		kill(self->h->process, SIGKILL);
		waitpid(self->h->process, NULL, 0);
	}
	put_back(&self->hung_task);
	rmdir(GROUP);
	put_back_misc(self->misc);
	EXPECT_EQ(0, remove_dir(self->dir));
}

static long update_key(serial_t key, const char *payload)
{
	return keyctl(KEYCTL_UPDATE, key, (unsigned long)payload,
		      strlen(payload), 0);
}

static void read_task(pid_t pid, pid_t tid, const char *name, char *buf, size_t size)
{
	char path[64];
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, name);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		n = read(fd, buf, size - 1);
		close(fd);
	}
	buf[n > 0 ? n : 0] = 0;
}

/* Does it sleep in a function of the kernel, or in what that has called? */
static bool waits_in(pid_t pid, pid_t tid, const char *function)
{
	char buf[4096], *p;

	read_task(pid, tid, "stat", buf, sizeof(buf));
	p = strrchr(buf, ')');
	if (!p || !strchr("DS", p[2]))
		return false;
	read_task(pid, tid, "stack", buf, sizeof(buf));
	return strstr(buf, function);
}

static void *sit(void *arg)
{
	struct held *h = arg;
	size_t page = sysconf(_SC_PAGESIZE);
	void *mem = mmap(NULL, page, RW, MAP_SHARED, h->fd, 0);

	if (mem == MAP_FAILED)
		_exit(3);
	while (!h->ready)
		usleep(1000);
	h->sitter = syscall(__NR_gettid);
	madvise(mem, page, MADV_POPULATE_WRITE);
	munmap(mem, page);
	return NULL;
}

/*
 * Have a process of which a thread runs fn, and another sits on the mmap lock as
 * soon as fn is ready.
 */
static bool sit_down(struct held *h, int (*fn)(struct held *))
{
	pthread_t thread;
	int tries = 0;
	pid_t pid;

	if (ioctl(h->fd, FIFREEZE, 0))
		return false;
	pid = fork();
	if (!pid) {
		if (pthread_create(&thread, NULL, sit, h))
			_exit(3);
		_exit(fn(h) || pthread_join(thread, NULL));
	}
	h->process = pid;
	while (!h->sitter || !waits_in(pid, h->sitter, "page_mkwrite")) {
		if (waitpid(pid, NULL, WNOHANG) || ++tries == TRIES)
			return false;
		usleep(1000);
	}
	return true;
}

/* Its exit status. */
static int stand_up(struct held *h)
{
	pid_t pid = h->process;
	int status;

	h->process = 0;
	if (ioctl(h->fd, FITHAW, 0) ||
	    waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static int encrypt_late(struct held *h)
{
	size_t len = 16 * sysconf(_SC_PAGESIZE);
	char *mem = map_anon(len);

	fill(mem, len, 1);
	h->tid = syscall(__NR_gettid);
	h->ready = true;
	while (!h->go)
		usleep(1000);
	h->ret = encrypt_mprotect(mem, len, RW, h->key);
	h->err = errno;
	h->late_done = true;
	h->keyid = keyid_at(mem);
	return !filled(mem, len, 1);
}

/* Until encrypt_mprotect() has the key, and waits for the lock. */
static bool late(struct held *h)
{
	int tries = 0;

	if (!sit_down(h, encrypt_late))
		return false;
	h->go = true;
	while (!waits_in(h->process, h->tid, "encrypt_mprotect")) {
		if (h->late_done || ++tries == TRIES)
			return false;
		usleep(1000);
	}
	return true;
}

/*
 * The memory must not come under what is no key any more.  Nobody would find it
 * later: its mm had no memory under a key when the key was erased.
 */
TEST_F(held, erase_overtakes_encrypt)
{
	ASSERT_TRUE(late(self->h));
	EXPECT_EQ(0, update_key(self->key, ERASE));
	EXPECT_FALSE(self->h->late_done);
	EXPECT_EQ(0, stand_up(self->h));
	EXPECT_EQ(-1, self->h->ret);
	EXPECT_EQ(ENOKEY, self->h->err);
	EXPECT_EQ(0, self->h->keyid);
	EXPECT_TRUE(keyids_fall_to(0));
}

/* It comes under what is the key by then. */
TEST_F(held, rotation_overtakes_encrypt)
{
	char *mem = map_anon(self->len);
	long old;

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_TRUE(late(self->h));
	EXPECT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	old = keyid_at(mem);
	EXPECT_EQ(0, encrypt_mprotect(mem, self->len, RW, 0));
	EXPECT_EQ(0, update_key(self->key, CPU_KEY));
	EXPECT_FALSE(self->h->late_done);
	EXPECT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	EXPECT_NE(old, keyid_at(mem));
	EXPECT_EQ(0, stand_up(self->h));
	EXPECT_EQ(0, self->h->ret);
	EXPECT_EQ(keyid_at(mem), self->h->keyid);
}

static int idle(struct held *h)
{
	h->ready = true;
	return 0;
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
	if (in_group && !write_file(GROUP "/cgroup.procs", "0"))
		_exit(255);
	_exit(new_key("made", CPU_KEY) > 0 ? 0 : errno);
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

/* Until it waits for a KeyID that an erased key had. */
static bool waits(pid_t pid)
{
	int status, tries = 0;

	while (!waits_in(pid, pid, "mktme_wait_collected")) {
		if (waitpid(pid, &status, WNOHANG) || ++tries == TRIES)
			return false;
		usleep(1000);
	}
	return true;
}

/* It does not end by itself, but by a signal: its exit status. */
static int interrupted(pid_t pid)
{
	if (!waits(pid))
		return -3;
	kill(pid, SIGUSR1);
	return ends(pid);
}

static int erase_by_another(serial_t key)
{
	pid_t pid = fork();

	if (!pid)
		_exit(update_key(key, ERASE) ? errno : 0);
	return ends(pid);
}

/*
 * Who has no memory under a key does not hold up its erasure, though it is among
 * those that an eraser looks at; nor are the key's pages kept meanwhile.
 */
TEST_F(held, erase_passes_a_stuck_stranger)
{
	char *mem = map_anon(2 * self->len);
	serial_t other;

	SKIP_WITHOUT_KEYIDS(2, 1);
	other = new_key("other", CPU_KEY);
	ASSERT_LT(0, other);
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, other, KEY_POS_ALL | KEY_USR_ALL, 0, 0));
	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	ASSERT_EQ(0, encrypt_mprotect(mem + self->len, self->len, RW, other));
	fill(mem, 2 * self->len, 1);
	ASSERT_EQ(0, madvise(mem, 2 * self->len, MADV_DONTFORK));
	ASSERT_TRUE(sit_down(self->h, idle));
	EXPECT_EQ(0, erase_by_another(self->key));
	EXPECT_TRUE(keyids_fall_to(1));
	/* The worker has gone through all, and would wait for the lock by now. */
	sleep(1);
	EXPECT_EQ(0, erase_by_another(other));
	EXPECT_TRUE(keyids_fall_to(0));
	EXPECT_EQ(0, stand_up(self->h));
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
	serial_t key, last = 0;
	int status, n, tries = 0;
	bool group;
	pid_t pid;

	SKIP_WITHOUT_KEYIDS(2, 1);
	/* So that the child's is among those that an eraser goes through. */
	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	ASSERT_TRUE(sit_down(self->h, idle));
	pid = fork();
	if (!pid)
		_exit(update_key(self->key, ERASE) ? 1 : 0);
	while (!waits_in(pid, pid, "mktme_replace_vma_keys")) {
		ASSERT_GT(TRIES, ++tries);
		ASSERT_EQ(0, waitpid(pid, &status, WNOHANG));
		usleep(1000);
	}
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));

	/* Now the worker is stuck as the eraser was. */
	EXPECT_EQ(0, ends(maker(false)));
	set_misc(&self->misc);
	mkdir(GROUP, 0755);
	group = write_file(GROUP "/misc.max", "mktme 0");
	if (group)
		EXPECT_EQ(EINTR, interrupted(maker(true)));
	EXPECT_TRUE(keyids_fall_to(1));
	for (n = read_sysfs(SYSFS "keyids_in_use"); n < total; n++) {
		snprintf(name, sizeof(name), "held-%d", n);
		key = new_key(name, CPU_KEY);
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
	ASSERT_LT(0, new_key("last", CPU_KEY));
	EXPECT_EQ(ENOSPC, ends(maker(false)));
	if (group) {
		EXPECT_EQ(0, unlink_key(self->key));
		EXPECT_TRUE(keyids_fall_to(total - 1));
		EXPECT_EQ(EDQUOT, ends(maker(true)));
	}
}

TEST_HARNESS_MAIN
