// SPDX-License-Identifier: GPL-2.0
/*
 * Keys while somebody sits on an mmap lock: who overtakes whom, and who waits.
 *
 * A thread holds the lock that makes a page of a file writable while the file
 * system is frozen: it waits, in the fault, until the file system thaws.
 */
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "mktme_mm.h"

#define ERASE		"erase"
#define KEY_USR_ALL	0x003f0000
#define CGROUP		"/sys/fs/cgroup"
#define GROUP		CGROUP "/mktme-held"
/* Of a millisecond, to come to where one waits */
#define TRIES		60000
#define DIR_SIZE	32
#define HUNG_TASK	"/proc/sys/kernel/hung_task_timeout_secs"
#define HUGE_PAGES	"/sys/kernel/mm/hugepages/hugepages-2048kB/"

/* Seconds after which a test that hangs is helped up, before it times out. */
#define RESCUE		(TEST_TIMEOUT_DEFAULT - 30)

/* What has become of a process's memory. */
enum { GARBLED, KEPT, LOST };

/* Shared by all processes of a test. */
struct held {
	char dir[DIR_SIZE];
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
	volatile bool look;
	int ret, err;
	volatile long keyid;
	char *file, *mem;
};

FIXTURE(held)
{
	size_t len;
	serial_t key;
	/* The second one has a file system where MAKE_HELD2() was said. */
	struct held *h, *h2;
	struct setting hung_task, pool;
	pid_t rescuer;
	bool misc;
};

/* The one on the file system, or -1 where there is none. */
static int open_file(const char *dir, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/fs/file", dir);
	return open(path, flags, 0600);
}

static int make_file(char *dir)
{
	char cmd[256];
	int fd;

	snprintf(dir, DIR_SIZE, "/tmp/mktme-held-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(cmd, sizeof(cmd), "cd %s && mkdir fs && "
		 "dd if=/dev/zero of=image bs=1024 count=1024 2>/dev/null && "
		 "mke2fs -qF image >/dev/null 2>&1 && "
		 "mount -t ext2 -o loop image fs", dir);
	if (system(cmd))
		return -1;
	fd = open_file(dir, O_RDWR | O_CREAT);
	if (fd >= 0 && !ftruncate(fd, sysconf(_SC_PAGESIZE)))
		return fd;
	return -1;
}

/* For processes that do not possess it, too. */
static serial_t new_open_key(const char *name)
{
	serial_t key = new_key(name, CPU_KEY);

	if (key > 0 && keyctl(KEYCTL_SETPERM, key, KEY_POS_ALL | KEY_USR_ALL, 0, 0))
		return -1;
	return key;
}

/* As many as there are KeyIDs: the last of them. */
static serial_t take_all_keyids(void)
{
	long n, total = read_sysfs(SYSFS "keyids_total");
	serial_t key = -1;
	char name[32];

	for (n = read_sysfs(SYSFS "keyids_in_use"); n < total; n++) {
		snprintf(name, sizeof(name), "held-%ld", n);
		key = new_key(name, CPU_KEY);
		if (key < 0)
			break;
	}
	return key;
}

/* Memory under a key that no child has: NULL where it fails. */
static char *own_memory(size_t len, serial_t key)
{
	char *mem = map_anon(len);

	if (encrypt_mprotect(mem, len, RW, key) || madvise(mem, len, MADV_DONTFORK))
		return NULL;
	fill(mem, len, 1);
	return mem;
}

static bool stack_has_names(void)
{
	char line[128];

	return strstr(read_line("/proc/self/stack", line, sizeof(line)), "+0x");
}

static int remove_dir(const char *dir)
{
	char cmd[128];
	int tries = 0;

	if (!dir[0])
		return 0;
	snprintf(cmd, sizeof(cmd), "%s/fs", dir);
	/* A loop device may be about to let go of a file. */
	while (umount(cmd) && errno == EBUSY && ++tries < 5000)
		usleep(1000);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

/*
 * What sits on a lock can't be killed before the file system thaws.  So somebody
 * else sees to that, in a session of its own, where a test hangs.
 */
static pid_t start_rescuer(struct held *h)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	setsid();
	sleep(RESCUE);
	ioctl(open_file(h[0].dir, O_RDONLY), FITHAW, 0);
	ioctl(open_file(h[1].dir, O_RDONLY), FITHAW, 0);
	_exit(0);
}

FIXTURE_SETUP(held)
{
	SKIP_UNLESS_ALONE();
	if (!stack_has_names())
		SKIP(return, "needs /proc/PID/stack (CONFIG_STACKTRACE, CONFIG_KALLSYMS)");
	self->len = 16 * sysconf(_SC_PAGESIZE);
	self->key = new_open_key("held");
	ASSERT_LT(0, self->key);
	self->h = mmap(NULL, 2 * sizeof(*self->h), RW, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	ASSERT_NE(MAP_FAILED, self->h);
	self->h2 = self->h + 1;
	self->h->key = self->key;
	self->h2->key = self->key;
	self->h2->fd = -1;
	self->h->fd = make_file(self->h->dir);
	if (self->h->fd < 0) {
		remove_dir(self->h->dir);
		SKIP(return, "needs mke2fs, a loop device and ext2");
	}
	/* That it takes long on a busy machine is no error. */
	set(&self->hung_task, HUNG_TASK, "0");
	self->rescuer = start_rescuer(self->h);
	ASSERT_LT(0, self->rescuer);
}

/* Another process that can sit down, and get up, by itself. */
#define MAKE_HELD2()							\
do {									\
	self->h2->fd = make_file(self->h2->dir);			\
	ASSERT_LE(0, self->h2->fd);					\
} while (0)

FIXTURE_TEARDOWN(held)
{
	struct held *h;

	if (self->rescuer > 0) {
		kill(self->rescuer, SIGKILL);
		waitpid(self->rescuer, NULL, 0);
	}
	for (h = self->h; h <= self->h2; h++) {
		if (h->fd >= 0) {
			ioctl(h->fd, FITHAW, 0);
			close(h->fd);
		}
		if (h->process > 0) {
			kill(h->process, SIGKILL);
			waitpid(h->process, NULL, 0);
		}
		EXPECT_EQ(0, remove_dir(h->dir));
	}
	put_back(&self->pool);
	put_back(&self->hung_task);
	rmdir(GROUP);
	put_back_misc(self->misc);
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

/* Does a condition come true while there is the child, or none is named? */
#define COMES(pid, condition)						\
({									\
	int __tries = 0;						\
	bool __true;							\
									\
	while (!(__true = (condition)) && ++__tries < TRIES &&		\
	       !((pid) && waitpid(pid, NULL, WNOHANG)))			\
		usleep(1000);						\
	__true;								\
})

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

/* Have a process that runs fn. */
static bool run(struct held *h, int (*fn)(struct held *))
{
	pid_t pid = fork();

	if (!pid)
		_exit(fn(h));
	h->process = pid;
	return pid > 0;
}

/*
 * Have a process of which a thread runs fn, and another sits on the mmap lock as
 * soon as fn is ready.
 */
static bool start(struct held *h, int (*fn)(struct held *))
{
	pthread_t thread;
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
	return pid > 0;
}

static bool sits(struct held *h)
{
	return COMES(h->process, h->sitter &&
		     waits_in(h->process, h->sitter, "page_mkwrite"));
}

static bool sit_down(struct held *h, int (*fn)(struct held *))
{
	return start(h, fn) && sits(h);
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
	if (!sit_down(h, encrypt_late))
		return false;
	h->go = true;
	return COMES(0, h->late_done ||
		     waits_in(h->process, h->tid, "encrypt_mprotect")) &&
	       !h->late_done;
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

static bool waits_for(pid_t pid, const char *function)
{
	return COMES(pid, waits_in(pid, pid, function));
}

/* Until it waits for a KeyID that an erased key had. */
static bool waits(pid_t pid)
{
	return waits_for(pid, "mktme_wait_collected");
}

/* It does not end by itself, but by a signal: its exit status. */
static int interrupted(pid_t pid)
{
	if (!waits(pid))
		return -3;
	kill(pid, SIGUSR1);
	return ends(pid);
}

static pid_t updater(serial_t key, const char *payload)
{
	pid_t pid = fork();

	if (!pid)
		_exit(update_key(key, payload) ? errno : 0);
	return pid;
}

static int erase_by_another(serial_t key)
{
	return ends(updater(key, ERASE));
}

/* Takes memory under the key. */
static char *take_memory(struct held *h, size_t len)
{
	char *mem = map_anon(len);

	if (encrypt_mprotect(mem, len, RW, h->key))
		return NULL;
	fill(mem, len, 1);
	h->keyid = keyid_at(mem);
	return mem;
}

static int look_at(char *mem, size_t len)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(!filled(mem, len, 1));
	if (waitpid(pid, &status, 0) != pid)
		return GARBLED;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS)
		return LOST;
	return status ? GARBLED : KEPT;
}

/* What becomes of it: in the end, and before that each time when look is set. */
static int wait_for_loss(struct held *h, char *mem)
{
	size_t len = 16 * sysconf(_SC_PAGESIZE);

	while (!h->go) {
		if (h->look) {
			h->ret = look_at(mem, len);
			h->look = false;
		}
		usleep(1000);
	}
	h->ret = look_at(mem, len);
	return 0;
}

static int looks(struct held *h)
{
	h->look = true;
	return COMES(0, !h->look) ? h->ret : -1;
}

static int sit_at_once(struct held *h)
{
	char *mem = take_memory(h, 16 * sysconf(_SC_PAGESIZE));

	h->ready = true;
	return !mem || wait_for_loss(h, mem);
}

/* As soon as the memory is under another key, or is shut. */
static int sit_when_rekeyed(struct held *h)
{
	char *mem = take_memory(h, 16 * sysconf(_SC_PAGESIZE));

	if (!mem)
		return 1;
	while (keyid_at(mem) == h->keyid)
		usleep(1000);
	h->ready = true;
	return wait_for_loss(h, mem);
}

/*
 * Erase or rotate a key, with two processes under it: one can't be reached yet,
 * the other has been and sits on its lock now.  Returns who waits for the former.
 */
static pid_t held_up(struct held *h, struct held *h2, const char *payload)
{
	pid_t pid;

	if (!sit_down(h2, sit_at_once) || !start(h, sit_when_rekeyed) ||
	    !COMES(0, h->keyid))
		return -1;
	pid = updater(h->key, payload);
	return sits(h) ? pid : -1;
}

enum { NO_SWAP = 1, NO_SWAPOFF = 2 };

/*
 * Swap comes and goes: swapoff(2) keeps a list of processes, too, and empties it
 * when no other is in use.
 */
static int swap_on_and_off(const char *dir)
{
	char cmd[512];
	int status;

	snprintf(cmd, sizeof(cmd), "cd %s && "
		 "awk 'NR > 1 && $4 { exit 1 }' /proc/swaps && "
		 "dd if=/dev/zero of=swap bs=1024 count=1024 2>/dev/null && "
		 "mkswap swap >/dev/null 2>&1 && l=$(losetup -f) && "
		 "losetup $l swap || exit %d; swapon $l; on=$?; "
		 "[ $on != 0 ] || swapoff $l || exit %d; "
		 "losetup -d $l; [ $on = 0 ] || exit %d",
		 dir, NO_SWAP, NO_SWAPOFF, NO_SWAP);
	status = system(cmd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define SWAP_ON_AND_OFF()						\
do {									\
	int __ret = swap_on_and_off(self->h->dir);			\
									\
	if (__ret == NO_SWAP)						\
		SKIP(return, "needs swap, and that none is in use");	\
	ASSERT_EQ(0, __ret);						\
} while (0)

TEST_F(held, erase_finds_memory_after_swapoff)
{
	char *mem = map_anon(self->len);

	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	fill(mem, self->len, 1);
	SWAP_ON_AND_OFF();
	ASSERT_EQ(0, update_key(self->key, ERASE));
	EXPECT_TRUE(dies_of(SIGBUS, mem));
	EXPECT_TRUE(keyids_fall_to(0));
}

TEST_F(held, rotation_finds_memory_after_swapoff)
{
	char *mem = map_anon(self->len);
	long old;

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	fill(mem, self->len, 1);
	old = keyid_at(mem);
	SWAP_ON_AND_OFF();
	ASSERT_EQ(0, update_key(self->key, CPU_KEY));
	EXPECT_NE(old, keyid_at(mem));
	EXPECT_TRUE(filled(mem, self->len, 1));
	EXPECT_TRUE(keyids_fall_to(1));
}

/*
 * Who has no memory under a key does not hold up its erasure, though it is among
 * those that an eraser looks at; nor are the key's pages kept meanwhile.
 */
TEST_F(held, erase_passes_a_stuck_stranger)
{
	serial_t other;

	SKIP_WITHOUT_KEYIDS(2, 1);
	other = new_open_key("other");
	ASSERT_LT(0, other);
	ASSERT_NE(NULL, own_memory(self->len, self->key));
	ASSERT_NE(NULL, own_memory(self->len, other));
	ASSERT_TRUE(sit_down(self->h, idle));
	EXPECT_EQ(0, erase_by_another(self->key));
	EXPECT_TRUE(keyids_fall_to(1));
	/* The worker has gone through all, and would wait for the lock by now. */
	sleep(1);
	EXPECT_EQ(0, erase_by_another(other));
	EXPECT_TRUE(keyids_fall_to(0));
	/* Nor does who wants a KeyID wait for it: none is on its way back. */
	ASSERT_LT(0, take_all_keyids());
	EXPECT_EQ(ENOSPC, ends(maker(false)));
	EXPECT_EQ(0, stand_up(self->h));
}

static int stay(struct held *h)
{
	size_t len = 16 * sysconf(_SC_PAGESIZE);
	char *mem = take_memory(h, len);

	while (!h->go)
		usleep(1000);
	return !mem || keyid_at(mem) == h->keyid || !filled(mem, len, 1);
}

/* Nor its rotation: before the stranger and behind it, in the order of coming. */
TEST_F(held, rotation_passes_a_stuck_stranger)
{
	char *mem;
	long old;

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_TRUE(run(self->h2, stay));
	ASSERT_TRUE(COMES(0, self->h2->keyid));
	mem = own_memory(self->len, self->key);
	ASSERT_NE(NULL, mem);
	old = keyid_at(mem);
	ASSERT_TRUE(sit_down(self->h, idle));
	EXPECT_EQ(0, ends(updater(self->key, CPU_KEY)));
	EXPECT_NE(old, keyid_at(mem));
	EXPECT_TRUE(filled(mem, self->len, 1));
	self->h2->go = true;
	EXPECT_EQ(0, ends(self->h2->process));
	self->h2->process = 0;
	EXPECT_EQ(0, stand_up(self->h));
}

/*
 * A rotation that is killed goes back, but not for who can't be reached any more.
 * That memory is the key's all the same.
 */
TEST_F(held, rotation_does_not_wait_to_go_back)
{
	pid_t pid;

	SKIP_WITHOUT_KEYIDS(2, 1);
	MAKE_HELD2();
	pid = held_up(self->h, self->h2, CPU_KEY);
	ASSERT_LT(0, pid);
	kill(pid, SIGKILL);
	EXPECT_EQ(-2, ends(pid));
	EXPECT_EQ(self->h->keyid, key_keyid(self->key));

	ASSERT_EQ(0, ioctl(self->h->fd, FITHAW, 0));
	ASSERT_EQ(0, ioctl(self->h2->fd, FITHAW, 0));
	EXPECT_EQ(KEPT, looks(self->h));
	EXPECT_EQ(KEPT, looks(self->h2));
	EXPECT_EQ(0, erase_by_another(self->key));
	self->h->go = true;
	self->h2->go = true;
	EXPECT_EQ(0, ends(self->h->process));
	EXPECT_EQ(0, ends(self->h2->process));
	EXPECT_EQ(LOST, self->h->ret);
	EXPECT_EQ(LOST, self->h2->ret);
	self->h->process = 0;
	self->h2->process = 0;
	EXPECT_TRUE(keyids_fall_to(0));
}

/* Who waits while the key is revoked is not told that it was erased. */
TEST_F(held, revocation_overtakes_erase)
{
	pid_t rotates, revokes, erases;

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_TRUE(sit_down(self->h, sit_at_once));
	rotates = updater(self->key, CPU_KEY);
	ASSERT_TRUE(waits_for(rotates, "mktme_replace_vma_keys"));
	revokes = fork();
	if (!revokes)
		_exit(revoke_key(self->key) ? errno : 0);
	ASSERT_TRUE(waits_for(revokes, "key_revoke"));
	erases = updater(self->key, ERASE);
	ASSERT_TRUE(waits_for(erases, "key_update"));
	kill(rotates, SIGKILL);
	EXPECT_EQ(-2, ends(rotates));
	EXPECT_EQ(0, ends(revokes));
	EXPECT_EQ(EKEYREVOKED, ends(erases));
	/* So it was not. */
	self->h->go = true;
	EXPECT_EQ(0, stand_up(self->h));
	EXPECT_EQ(KEPT, self->h->ret);
}

/* A loop device of the file, which goes away with the last who has it open. */
static int open_loop(struct held *h)
{
	struct loop_config config = {
		.fd = h->fd,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int control = open("/dev/loop-control", O_RDWR), fd;
	char path[32];

	snprintf(path, sizeof(path), "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
	close(control);
	fd = open(path, O_RDWR | O_DIRECT);
	if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Write to it, without waiting for that. */
static bool start_writing(int fd)
{
	size_t page = sysconf(_SC_PAGESIZE);
	struct iocb iocb = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)map_anon(page),
		.aio_nbytes = page,
	}, *iocbs = &iocb;
	aio_context_t context = 0;

	return !syscall(__NR_io_setup, 1, &context) &&
	       syscall(__NR_io_submit, context, 1, &iocbs) == 1;
}

/* Takes memory, and has I/O under way when the other's file system freezes. */
static int write_for_ever(struct held *h)
{
	struct held *h2 = h + 1;
	size_t len = 64UL << 20;
	int fd = open_loop(h2);
	char *mem = map_anon(len);

	/* That it takes long to shut it: small pages. */
	madvise(mem, len, MADV_NOHUGEPAGE);
	h->file = mmap(NULL, sysconf(_SC_PAGESIZE), RW, MAP_SHARED, h->fd, 0);
	if (fd < 0 || h->file == MAP_FAILED ||
	    encrypt_mprotect(mem, len, RW, h->key) ||
	    madvise(mem, len, MADV_POPULATE_WRITE) ||
	    ioctl(h2->fd, FIFREEZE, 0) || !start_writing(fd))
		return 1;
	h->ready = true;
	for (;;)
		pause();
}

/*
 * Who erases can be the last who has a hand on the mm of a process that has died
 * meanwhile, and must not wait for the I/O of that: here, for ever.
 */
TEST_F(held, erase_does_not_wait_for_io_of_the_dead)
{
	struct iovec local = { .iov_base = "", .iov_len = 1 }, remote = local;
	pid_t writer, eraser;
	serial_t other;

	SKIP_WITHOUT_KEYIDS(2, 1);
	other = new_open_key("other");
	ASSERT_LT(0, other);
	ASSERT_NE(NULL, own_memory(self->len, other));
	MAKE_HELD2();
	ASSERT_TRUE(run(self->h, write_for_ever));
	ASSERT_TRUE(COMES(self->h->process, self->h->ready));
	ASSERT_EQ(0, ioctl(self->h->fd, FIFREEZE, 0));

	/* Another has the mm, and its lock, when the process dies. */
	remote.iov_base = self->h->file;
	writer = fork();
	if (!writer)
		_exit(process_vm_writev(self->h->process, &local, 1, &remote, 1, 0) != 1);
	ASSERT_TRUE(waits_for(writer, "page_mkwrite"));
	kill(self->h->process, SIGKILL);
	EXPECT_EQ(-2, ends(self->h->process));
	self->h->process = 0;
	eraser = updater(self->key, ERASE);
	/* For the lock: it does not try any more. */
	ASSERT_TRUE(waits_for(eraser, " replace_keys"));
	kill(writer, SIGKILL);
	ASSERT_EQ(0, ioctl(self->h->fd, FITHAW, 0));
	/* The writer waits if it is the last. */
	EXPECT_EQ(0, ends(eraser));

	/* The worker goes on to others. */
	EXPECT_EQ(0, update_key(other, ERASE));
	EXPECT_TRUE(keyids_fall_to(1));
	ASSERT_EQ(0, ioctl(self->h2->fd, FITHAW, 0));
	EXPECT_EQ(-2, ends(writer));
	EXPECT_TRUE(keyids_fall_to(0));
}

/* Has huge pages, and a thread that nothing ends before the file system thaws. */
static int stay_in_write(struct held *h)
{
	h->mem = mmap(NULL, 2UL << 20, RW,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (h->mem == MAP_FAILED || encrypt_mprotect(h->mem, 2UL << 20, RW, h->key))
		return 1;
	fill(h->mem, 4096, 1);
	h->ready = true;
	return write(h->fd, "", 1) != 1;
}

/* Of what has been killed but can't go, the memory that is still there is shut. */
TEST_F(held, erase_shuts_the_memory_of_the_dying)
{
	struct held *h = self->h;
	char buf[16];
	struct iovec local = { .iov_base = buf, .iov_len = sizeof(buf) }, remote = local;
	int pidfd;

	if (!read_sysfs(HUGE_PAGES "nr_hugepages"))
		set(&self->pool, HUGE_PAGES "nr_hugepages", "1");
	if (read_sysfs(HUGE_PAGES "free_hugepages") < 1)
		SKIP(return, "needs a huge page of 2M");
	ASSERT_EQ(0, ioctl(h->fd, FIFREEZE, 0));
	ASSERT_TRUE(run(h, stay_in_write));
	ASSERT_TRUE(COMES(h->process, h->ready));
	ASSERT_TRUE(waits_for(h->process, "write"));
	remote.iov_base = h->mem;
	ASSERT_EQ(16, process_vm_readv(h->process, &local, 1, &remote, 1, 0));
	EXPECT_TRUE(filled(buf, sizeof(buf), 1));

	pidfd = syscall(__NR_pidfd_open, h->process, 0);
	ASSERT_LE(0, pidfd);
	kill(h->process, SIGKILL);
	ASSERT_EQ(0, syscall(__NR_process_mrelease, pidfd, 0));
	EXPECT_EQ(0, erase_by_another(self->key));
	EXPECT_EQ(-1, process_vm_readv(h->process, &local, 1, &remote, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, stand_up(h));
	EXPECT_TRUE(keyids_fall_to(0));
}

/*
 * A key whose erasure failed goes on: nobody waits for its KeyID, even where others'
 * memory can't be collected.
 */
TEST_F(held, nobody_waits_for_what_goes_on)
{
	serial_t other;
	pid_t pid;

	SKIP_WITHOUT_KEYIDS(2, 1);
	MAKE_HELD2();
	ASSERT_TRUE(sit_down(self->h2, sit_at_once));
	pid = updater(self->key, ERASE);
	ASSERT_TRUE(waits_for(pid, "mktme_replace_vma_keys"));
	kill(pid, SIGKILL);
	EXPECT_EQ(-2, ends(pid));
	self->h2->go = true;
	EXPECT_EQ(0, stand_up(self->h2));
	EXPECT_EQ(KEPT, self->h2->ret);

	other = new_open_key("other");
	ASSERT_LT(0, other);
	ASSERT_NE(NULL, own_memory(self->len, other));
	ASSERT_TRUE(sit_down(self->h, idle));
	EXPECT_EQ(0, erase_by_another(other));
	EXPECT_TRUE(keyids_fall_to(1));
	ASSERT_LT(0, take_all_keyids());
	EXPECT_EQ(ENOSPC, ends(maker(false)));
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
	serial_t key, last;
	pid_t pid, eraser;
	bool group;

	SKIP_WITHOUT_KEYIDS(2, 1);
	MAKE_HELD2();
	eraser = held_up(self->h, self->h2, ERASE);
	ASSERT_LT(0, eraser);
	/* Who wants to use the key waits for the outcome, and can be killed. */
	pid = fork();
	if (!pid)
		_exit(key_keyid(self->key) > 0);
	ASSERT_TRUE(waits_for(pid, "mktme_key_lookup"));
	kill(pid, SIGKILL);
	EXPECT_EQ(-2, ends(pid));
	self->h2->go = true;
	EXPECT_EQ(0, stand_up(self->h2));
	EXPECT_EQ(0, ends(eraser));

	/* Erased; but the worker can't give back the pages of who sits. */
	EXPECT_EQ(0, ends(maker(false)));
	set_misc(&self->misc);
	mkdir(GROUP, 0755);
	group = write_file(GROUP "/misc.max", "mktme 0");
	if (group)
		EXPECT_EQ(EINTR, interrupted(maker(true)));
	EXPECT_TRUE(keyids_fall_to(1));
	if (group) {
		pid = maker(true);
		EXPECT_TRUE(waits(pid));
		ASSERT_TRUE(write_file(GROUP "/misc.max", "mktme max"));
		EXPECT_EQ(0, ends(pid));
		ASSERT_TRUE(write_file(GROUP "/misc.max", "mktme 0"));
		EXPECT_TRUE(keyids_fall_to(1));
	}
	last = take_all_keyids();
	ASSERT_LT(0, last);
	EXPECT_EQ(EINTR, interrupted(maker(false)));
	/* Another that comes back is as good. */
	pid = maker(false);
	EXPECT_TRUE(waits(pid));
	unlink_key(last);
	EXPECT_EQ(0, ends(pid));
	self->h->go = true;
	EXPECT_EQ(0, stand_up(self->h));

	/* Nobody to wait for: at once. */
	ASSERT_TRUE(keyids_fall_to(total - 2));
	ASSERT_LT(0, new_key("last but one", CPU_KEY));
	key = new_key("last", CPU_KEY);
	ASSERT_LT(0, key);
	EXPECT_EQ(ENOSPC, ends(maker(false)));
	if (group) {
		EXPECT_EQ(0, unlink_key(key));
		EXPECT_TRUE(keyids_fall_to(total - 1));
		EXPECT_EQ(EDQUOT, ends(maker(true)));
	}
}

TEST_HARNESS_MAIN
