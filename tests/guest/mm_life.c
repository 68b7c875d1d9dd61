// SPDX-License-Identifier: GPL-2.0
/*
 * Whatever ends first, the key, the mapping, the process or a pin of the page: the
 * KeyID is in use until the last of them has ended, and free then.
 */
#include <linux/keyctl.h>
#include <sys/stat.h>

#include "mm.h"
#include "uring.h"

#define LEN	(16 * PAGE)
#define CGROUP	"/sys/fs/cgroup/"

static long in_use, bytes;

static void under(void *p, size_t len, int key)
{
	if (encrypt_mprotect(p, len, RW, key))
		err(1, "encrypt_mprotect");
}

enum { REVOKE, INVALIDATE, UNLINK, WAYS };
static const char * const way_name[] = { "revoked", "invalidated", "unlinked" };

static void end_key(int key, int way)
{
	switch (way) {
	case REVOKE:
		syscall(__NR_keyctl, KEYCTL_REVOKE, key);
		/* A revoked key is still there, and so is its KeyID. */
		unlink_key(key);
		break;
	case INVALIDATE:
		syscall(__NR_keyctl, KEYCTL_INVALIDATE, key);
		break;
	case UNLINK:
		unlink_key(key);
		break;
	}
}

static void over(const char *what)
{
	bool free = keyids_fall_to(in_use);

	for (int i = 0; i < 100 && encrypted_bytes() > bytes; i++)
		usleep(10000);
	if (encrypted_bytes() != bytes)
		printf("# %ld bytes under keys, not %ld\n", encrypted_bytes(), bytes);
	result(free && encrypted_bytes() == bytes, "%s: the KeyID is free", what);
}

static void held(const char *what)
{
	usleep(200000);
	result(keyids_in_use() == in_use + 1, "%s: the KeyID is held", what);
}

/* Pages in a pipe; in any order the key, the mapping and the pipe come to an end. */
static void orders(void)
{
	static const char order[][4] = { "kmp", "kpm", "mkp", "mpk", "pkm", "pmk" };
	char what[80], buf[LEN];

	for (int o = 0; o < 6; o++) {
		int key = new_key(), p[2], way = o % WAYS;
		char *mem = map(LEN);
		struct iovec iov = { mem, LEN };

		snprintf(what, sizeof(what), "%s, in the order %s", way_name[way], order[o]);
		under(mem, LEN, key);
		fill(mem, LEN, o * 100);
		pipe(p);
		vmsplice(p[1], &iov, 1, 0);
		for (int i = 0; i < 3; i++) {
			held(what);
			if (order[o][i] == 'k') {
				end_key(key, way);
			} else if (order[o][i] == 'm') {
				result(filled(mem, LEN, o * 100), "%s: in memory", what);
				munmap(mem, LEN);
			} else {
				result(read(p[0], buf, LEN) == LEN &&
				       filled(buf, LEN, o * 100), "%s: in the pipe", what);
			}
		}
		over(what);
		close(p[0]);
		close(p[1]);
	}
}

/* A process ends, and leaves a ring with its memory to another. */
static void left_behind(bool killed)
{
	const char *what = killed ? "killed, a ring is left" : "exit, a ring is left";
	int key = new_key(), p[2], fd = open("/tmp", O_TMPFILE | O_RDWR, 0600), status;
	char *buf = map(LEN), c;
	struct uring u;
	pid_t pid;

	pipe(p);
	/* Shared: the ring is the parent's too. */
	if (uring_setup(&u, NULL, NULL))
		err(1, "io_uring");
	pid = fork();
	if (!pid) {
		char *mem = map_huge(HUGE);

		madvise(mem, HUGE, MADV_HUGEPAGE);
		under(mem, HUGE, key);
		fill(mem, HUGE, 7000);
		if (uring_buffer(&u, mem, HUGE))
			_exit(1);
		dprintf(p[1], "%p\n", mem);
		if (killed)
			pause();
		_exit(0);
	}
	char line[32] = "";
	for (int i = 0; read(p[0], &c, 1) == 1 && c != '\n'; i++)
		line[i] = c;
	char *mem = (char *)strtoul(line, NULL, 0);
	if (killed)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	end_key(key, UNLINK);
	held(what);
	result(uring_fixed(&u, IORING_OP_WRITE_FIXED, fd, mem + PAGE, LEN, 0) == LEN &&
	       pread(fd, buf, LEN, 0) == LEN && filled(buf, LEN, 7001),
	       "%s: it has the contents", what);
	close(u.fd);
	munmap(u.sqes, PAGE);
	munmap(u.rings, PAGE);
	over(what);
	close(p[0]);
	close(p[1]);
	close(fd);
	munmap(buf, LEN);
}

static long memory_current(const char *group, const char *field)
{
	char path[128], word[64];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), CGROUP "%s/memory.stat", group);
	f = fopen(path, "r");
	while (f && fscanf(f, "%63s %ld", word, &n) == 2)
		if (!strcmp(word, field))
			break;
	fclose(f);
	return n;
}

static void join(const char *group)
{
	char path[128];

	snprintf(path, sizeof(path), CGROUP "%s/cgroup.procs", group);
	if (!write_to(path, "0"))
		_exit(99);
}

/* Charged as any memory is, and killed for it as any process */
static void memcg(void)
{
	size_t len = 32 << 20;
	long charged[KEYS];
	int key, p[2], go[2], status;
	char c, buf[LEN];
	pid_t pid;

	mkdir(CGROUP "life", 0755);
	for (int k = NONE; k <= A; k++) {
		pipe(p);
		pipe(go);
		pid = fork();
		if (!pid) {
			join("life");
			char *mem = map(len);

			madvise(mem, len, MADV_NOHUGEPAGE);
			put_under(mem, len, k);
			fill(mem, len, 0);
			write(p[1], "x", 1);
			read(go[0], &c, 1);
			_exit(0);
		}
		read(p[0], &c, 1);
		charged[k] = memory_current("life", "anon");
		write(go[1], "x", 1);
		waitpid(pid, NULL, 0);
		close(p[0]);
		close(p[1]);
		close(go[0]);
		close(go[1]);
	}
	printf("# charged: %ld, under a key %ld\n", charged[NONE], charged[A]);
	/* memory.stat lags behind by up to 64 pages a CPU */
	result(labs(charged[A] - (long)len) < (2 << 20) &&
	       labs(charged[A] - charged[NONE]) < (2 << 20),
	       "charged as any memory");

	/* Out of memory, with pages in a pipe */
	key = new_key();
	result(write_to(CGROUP "life/memory.max", "16M"), "memory.max");
	pipe(p);
	pid = fork();
	if (!pid) {
		char *mem = map(2 * len);
		struct iovec iov = { mem, LEN };

		join("life");
		under(mem, 2 * len, key);
		fill(mem, LEN, 600);
		vmsplice(p[1], &iov, 1, 0);
		fill(mem + LEN, 2 * len - LEN, 700);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	result(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
	       "out of memory: killed");
	end_key(key, INVALIDATE);
	held("out of memory");
	result(read(p[0], buf, LEN) == LEN && filled(buf, LEN, 600),
	       "out of memory: what it left in a pipe");
	over("out of memory");
	close(p[0]);
	close(p[1]);
	rmdir(CGROUP "life");
}

static void families(void)
{
	size_t len = 128 << 20;
	int key = new_key(), status;
	char *mem = map(len);
	pid_t pid;

	under(mem, len, key);
	fill(mem, len, 1);
	/* Of a child's child, whose parent is gone */
	in_child("fork of much memory",
		 if (!filled(mem, len, 1)) _exit(1);
		 pid = fork();
		 if (!pid) {
			fill(mem + len / 2, len / 4, 100000);
			_exit(!filled(mem, len / 2, 1) ||
			      !filled(mem + len / 2, len / 4, 100000));
		 }
		 munmap(mem, len / 4);
		 fill(mem + len / 4, len / 4, 200000);
		 waitpid(pid, &status, 0);
		 if (status) _exit(2);
		 if (!filled(mem + len / 4, len / 4, 200000)) _exit(3));
	result(filled(mem, len, 1), "fork: the parent has its contents");

	pid = vfork();
	if (!pid) {
		put_page(mem, 77);
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	result(!status && page_is(mem, 77), "vfork, written by the child, exec");
	put_page(mem, 1);
	in_child("exec of a process with memory under a key",
		 execl("/bin/sh", "sh", "-c", "! grep -q 'KeyID: *[1-9]' /proc/self/smaps",
		       NULL));
	end_key(key, REVOKE);
	held("fork, exec");
	result(filled(mem, len, 1), "after its key was revoked");
	munmap(mem, len);
	over("fork, exec");
}

/* Fewer KeyIDs than keys that come and go, each with pages that linger */
static void churn(void)
{
	long total = number_in("/sys/kernel/mm/mktme/keyids_total");
	char *mem = map(LEN), buf[PAGE];
	bool good = true;
	int p[2];

	pipe(p);
	for (int i = 0; i < 2 * total; i++) {
		struct iovec iov = { mem + i % 16 * PAGE, PAGE };
		int key = new_key();

		under(iov.iov_base, PAGE, key);
		put_page(iov.iov_base, i);
		vmsplice(p[1], &iov, 1, 0);
		madvise(iov.iov_base, PAGE, MADV_DONTNEED);
		end_key(key, i % WAYS);
		if (i >= 8)
			good &= read(p[0], buf, PAGE) == (long)PAGE && page_is(buf, i - 8);
	}
	result(good, "more keys than there are KeyIDs");
	close(p[0]);
	close(p[1]);
	munmap(mem, LEN);
	over("more keys than there are KeyIDs");
}

int main(void)
{
	in_use = keyids_in_use();
	bytes = encrypted_bytes();
	orders();
	left_behind(false);
	left_behind(true);
	memcg();
	families();
	churn();
	return 0;
}
