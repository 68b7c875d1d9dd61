// SPDX-License-Identifier: GPL-2.0
/*
 * bench MODE [KEY KEY2]: does what bench/run is to count, on memory under no key or
 * under KEY; KEY2 is one to change to.  A count's line says: table, x, series, divisor
 * (what one asks for is the count divided by it), separated by tabs.  Table "warm" is
 * none: what comes first is not as what follows.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <keyutils.h>
#include <linux/mktme.h>
#include "count.h"
#include "overwrite.h"

#define PAGE	4096UL
#define HUGE	(2UL << 20)
#define RW	(PROT_READ | PROT_WRITE)
#define TIMES	5

static const struct {
	const char *name;
	int advice;
} pages[] = { { "4K pages", MADV_NOHUGEPAGE }, { "huge pages", MADV_HUGEPAGE } };

static int key, key2;

/* What fails is cheap, and no figure */
static void encrypt(void *p, size_t len, int serial)
{
	if (syscall(__NR_encrypt_mprotect, p, len, RW, serial))
		err(1, "encrypt_mprotect of %zu bytes", len);
}

static char *map_at(size_t len, int advice, int flags)
{
	char *p = mmap(NULL, len + HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	p = (char *)(((uintptr_t)p + HUGE - 1) & -HUGE);
	if (advice)
		madvise(p, len, advice);
	return p;
}

/* Under the key, if there is one; what is left over at the ends stays mapped */
static char *map(size_t len, int advice)
{
	char *p = map_at(len, advice, 0);

	if (key)
		encrypt(p, len, key);
	return p;
}

static void touch(char *p, size_t len, size_t step)
{
	for (size_t i = 0; i < len; i += step)
		*(volatile char *)(p + i) = 1;
}

/* n VMAs of a page each, which differ in what mprotect() makes equal */
static char *vmas(size_t n)
{
	char *p = map_at(n * PAGE, 0, 0);

	for (size_t i = 0; i < n; i += 2)
		if (mprotect(p + i * PAGE, PAGE, PROT_READ))
			err(1, "mprotect");
	return p;
}

static void by_vmas(void)
{
	int pkey = pkey_alloc(0, 0);

	for (size_t n = 1; n <= 10000; n *= 10) {
		for (int t = 0; t <= TIMES; t++) {
			const char *table = t ? "vmas" : "warm";
			char *p = vmas(n);

			COUNT(mprotect(p, n * PAGE, RW), "%s\t%zu\tmprotect\t1\n", table, n);
			munmap(p, n * PAGE);
			if (pkey > 0) {
				p = vmas(n);
				COUNT(pkey_mprotect(p, n * PAGE, RW, pkey),
				      "%s\t%zu\tpkey_mprotect\t1\n", table, n);
				munmap(p, n * PAGE);
			}
			if (!key)
				continue;
			p = vmas(n);
			COUNT(encrypt(p, n * PAGE, key), "%s\t%zu\tencrypt_mprotect\t1\n", table, n);
			munmap(p, n * PAGE);
		}
	}
}

static void by_size(void)
{
	int pkey = pkey_alloc(0, 0);

	for (int k = 0; k < 2; k++) {
		for (size_t size = 0; size <= 1UL << 30; size = size ? size * 8 : k ? HUGE : PAGE) {
			/* Nothing there, in a mapping of a page */
			size_t len = size ?: PAGE;

			if (k && !size)
				continue;
			for (int t = 0; t < (size > 1 << 28 ? 1 : TIMES); t++) {
				char *p = map_at(len, pages[k].advice, 0);

				touch(p, size, PAGE);
				COUNT(mprotect(p, len, PROT_READ), "size\t%zu\tmprotect, %s\t1\n",
				      size, pages[k].name);
				mprotect(p, len, RW);
				if (pkey > 0) {
					COUNT(pkey_mprotect(p, len, RW, pkey), "size\t%zu\tpkey_mprotect, %s\t1\n",
					      size, pages[k].name);
					pkey_mprotect(p, len, RW, 0);
				}
				if (key) {
					COUNT(encrypt(p, len, key), "size\t%zu\tencrypt, %s\t1\n",
					      size, pages[k].name);
					COUNT(encrypt(p, len, key2), "size\t%zu\trekey, %s\t1\n",
					      size, pages[k].name);
					COUNT(encrypt(p, len, 0), "size\t%zu\tunkey, %s\t1\n",
					      size, pages[k].name);
				}
				munmap(p, len);
			}
		}
	}
}

static void set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		err(1, "%s", path);
	close(fd);
}

/* No CPU keeps pages for their key any more: as if none had been freed before */
static void drop(void)
{
	set("/proc/sys/vm/drop_caches", "2");
}

/* For a profile: what each of these does, of each 4K */
static void profile(void)
{
	const size_t len = 8 * HUGE;

	for (int k = 0; k < 2; k++) {
		for (int t = 0; t < 2; t++) {
			const char *table = t ? "profile" : "warm", *x = pages[k].name;
			char *p = map(len, pages[k].advice);

			drop();
			COUNT(touch(p, len, PAGE), "%s\tfault, %s\tall\t%lu\n", table, x, len / PAGE);
			COUNT(munmap(p, len), "%s\tfree, %s\tall\t%lu\n", table, x, len / PAGE);
			if (!key)
				continue;
			p = map_at(len, pages[k].advice, 0);
			touch(p, len, PAGE);
			COUNT(encrypt(p, len, key), "%s\tencrypt, %s\tall\t%lu\n", table, x, len / PAGE);
			COUNT(encrypt(p, len, key2), "%s\trekey, %s\tall\t%lu\n", table, x, len / PAGE);
			COUNT(encrypt(p, len, 0), "%s\tunkey, %s\tall\t%lu\n", table, x, len / PAGE);
			munmap(p, len);
		}
	}
}

static void *busy(void *unused)
{
	for (;;)
		asm volatile("pause");
	return NULL;
}

/* On another CPU the same memory is in use: how often is that interrupted? */
static void shootdowns(void)
{
	const size_t len = 8 * HUGE;
	pthread_t thread;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	if (sched_setaffinity(0, sizeof(cpu), &cpu))
		err(1, "sched_setaffinity");
	errno = pthread_create(&thread, NULL, busy, NULL);
	if (errno)
		err(1, "pthread_create");
	CPU_ZERO(&cpu);
	CPU_SET(1, &cpu);
	errno = pthread_setaffinity_np(thread, sizeof(cpu), &cpu);
	if (errno)
		err(1, "pthread_setaffinity_np");

	for (int k = 0; k < 2; k++) {
		for (int t = 0; t <= TIMES; t++) {
			const char *table = t ? "shootdowns" : "warm", *x = pages[k].name;
			char *p = map_at(len, pages[k].advice, 0);

			touch(p, len, PAGE);
			COUNT(mprotect(p, len, PROT_READ), "%s\t%s\tmprotect\t1\n", table, x);
			mprotect(p, len, RW);
			if (key) {
				COUNT(encrypt(p, len, key), "%s\t%s\tencrypt_mprotect\t1\n", table, x);
				COUNT(encrypt(p, len, key2), "%s\t%s\tto another key\t1\n", table, x);
				COUNT(encrypt(p, len, 0), "%s\t%s\tto no key\t1\n", table, x);
				encrypt(p, len, key);
			}
			COUNT(madvise(p, len, MADV_DONTNEED), "%s\t%s\tMADV_DONTNEED\t1\n", table, x);
			munmap(p, len);
		}
	}
}

/* A process ends, and memory of its own with it */
static void owner_exits(size_t len, const char *what)
{
	int ready[2], end[2];
	pid_t pid;
	char c;

	if (pipe(ready) || pipe(end))
		err(1, "pipe");
	drop();
	pid = fork();
	if (!pid) {
		touch(map(len, MADV_NOHUGEPAGE), len, PAGE);
		_exit(write(ready[1], "x", 1) != 1 || read(end[0], &c, 1) != 1);
	}
	if (read(ready[0], &c, 1) != 1)
		err(1, "pipe");
	COUNT(if (write(end[1], "x", 1) != 1) err(1, "pipe"); waitpid(pid, NULL, 0),
	      "faults\texit with %s of its own\tall\t%zu\n", what, len / PAGE);
	for (int i = 0; i < 2; i++) {
		close(ready[i]);
		close(end[i]);
	}
}

static void child_exits(const char *what)
{
	int start[2];
	pid_t pid;
	char c;

	if (pipe(start))
		err(1, "pipe");
	/* The child does not come to the end of that count */
	COUNT(pid = fork();
	      if (!pid)
		      _exit(read(start[0], &c, 1) != 1),
	      "faults\tfork of %s\tall\t1\n", what);
	COUNT(if (write(start[1], "x", 1) != 1) err(1, "pipe"); waitpid(pid, NULL, 0),
	      "faults\texit of %s\tall\t1\n", what);
	close(start[0]);
	close(start[1]);
}

/* Faults, then copies of what a child writes to, then all is freed */
static void life(size_t len, int advice, size_t page, const char *of)
{
	char *p = map(len, advice);
	pid_t pid;

	drop();
	COUNT(touch(p, len, page), "faults\tfault of %s\tall\t%zu\n", of, len / page);
	pid = fork();
	if (!pid) {
		/* Each small page, for huge ones are split */
		COUNT(touch(p, len, PAGE), "faults\tcopy of %s\tall\t%zu\n", of, len / page);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	COUNT(munmap(p, len), "faults\tfree of %s\tall\t%zu\n", of, len / page);
}

static void faults(void)
{
	const size_t len = 8 * HUGE;
	char *p;

	for (int t = 0; t < TIMES; t++) {
		life(len, MADV_NOHUGEPAGE, PAGE, "4K");
		/* bench/run enables them, of 64K alone */
		life(len, 0, 16 * PAGE, "64K");
		life(len, MADV_HUGEPAGE, HUGE, "2M");

		p = map_at(len, 0, MAP_HUGETLB);
		if (key)
			encrypt(p, len, key);
		COUNT(touch(p, len, HUGE), "faults\tfault of hugetlb 2M\tall\t%zu\n", len / HUGE);
		COUNT(munmap(p, len), "faults\tfree of hugetlb 2M\tall\t%zu\n", len / HUGE);
	}
	p = map(1UL << 30, MADV_NOHUGEPAGE);
	touch(p, 1UL << 30, PAGE);
	for (int t = 0; t < 3; t++)
		child_exits("1 GiB");
	munmap(p, 1UL << 30);
	for (int t = 0; t < 3; t++)
		owner_exits(1UL << 28, "256 MiB");
}

/* Nothing to count, but something to look at: $KEYS keys, each with its KeyID */
static void memory(void)
{
	static const char payload[] = "type=cpu algorithm=aes-xts-128";
	int n = atoi(getenv("KEYS") ?: "0");
	char name[16];

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "key%d", i);
		if (add_key("mktme", name, payload, strlen(payload), KEY_SPEC_USER_KEYRING) < 0)
			err(1, "add_key, after %d", i);
	}
}

/*
 * $CPUS processes, a CPU each, touch and free at once: under no key, under KEY, or each
 * under one of its own, by $UNDER: none, one, many.  For /proc/lock_stat.
 */
static void scale(void)
{
	static const char payload[] = "type=cpu algorithm=aes-xts-128";
	int n = atoi(getenv("CPUS") ?: "1"), ready[2], go[2];
	pid_t pids[64];
	const char *under = getenv("UNDER") ?: "none";
	const size_t len = 4 * HUGE;
	char c;

	if (n < 1 || n > 64)
		errx(1, "scale: 1 to 64 CPUs");
	if (pipe(ready) || pipe(go))
		err(1, "pipe");
	for (int i = 0; i < n; i++) {
		cpu_set_t cpu;
		char name[16], *p;

		snprintf(name, sizeof(name), "key%d", i);
		if (!strcmp(under, "many"))
			key = add_key("mktme", name, payload, strlen(payload), KEY_SPEC_USER_KEYRING);
		else if (!strcmp(under, "none"))
			key = 0;
		if (key < 0)
			err(1, "add_key");
		pids[i] = fork();
		if (pids[i])
			continue;
		CPU_ZERO(&cpu);
		CPU_SET(i, &cpu);
		if (sched_setaffinity(0, sizeof(cpu), &cpu))
			err(1, "sched_setaffinity");
		p = map(len, MADV_NOHUGEPAGE);
		close(go[1]);
		if (write(ready[1], "", 1) != 1 || read(go[0], &c, 1))
			err(1, "pipe");
		for (int t = 0; t < TIMES; t++) {
			touch(p, len, PAGE);
			madvise(p, len, MADV_DONTNEED);
		}
		/* What its end takes is not asked for */
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	for (int i = 0; i < n; i++)
		if (read(ready[0], &c, 1) != 1)
			err(1, "pipe");
	set("/proc/lock_stat", "0");
	set("/proc/sys/kernel/lock_stat", "1");
	close(go[1]);
	for (int i = 0; i < n; i++)
		if (read(ready[0], &c, 1) != 1)
			err(1, "pipe");
	set("/proc/sys/kernel/lock_stat", "0");
	for (int i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	printf("pages %zu\n", n * TIMES * len / PAGE);
}

/* For what a shell does between two calls, "point 0" and "point 1 LABEL" */
static int point(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[2], "0")) {
		COUNT_POINT(0);
	} else {
		COUNT_POINT(1);
		if (argc != 4 || puts(argv[3]) < 0)
			errx(1, "bench point 0, or point 1 LABEL");
	}
	return 0;
}

/* All of it under one key, or half of it under each of two: by turns */
static void churn(void)
{
	for (size_t len = HUGE / 2; len <= 8 * HUGE; len *= 2) {
		char *p = map(len, MADV_NOHUGEPAGE), *q = map_at(len / 2, MADV_NOHUGEPAGE, 0);

		if (key2)
			encrypt(q, len / 2, key2);
		drop();
		for (int t = 0; t < 2 + TIMES; t++)
			COUNT(touch(p, len, PAGE);
			      madvise(p, len, MADV_DONTNEED),
			      "%s\t%zu\tof one key\t%zu\n", t < 2 ? "warm" : "churn", len, len / PAGE);
		drop();
		for (int t = 0; t < 2 + TIMES; t++)
			COUNT(touch(p, len / 2, PAGE);
			      madvise(p, len / 2, MADV_DONTNEED);
			      touch(q, len / 2, PAGE);
			      madvise(q, len / 2, MADV_DONTNEED),
			      "%s\t%zu\tof two keys by turns\t%zu\n", t < 2 ? "warm" : "churn", len, len / PAGE);
		munmap(p, len);
		munmap(q, len / 2);
	}
}

#define IO	(64UL << 10)
#define ROUNDS	16

static void access_to(void)
{
	char *p = map(IO, MADV_NOHUGEPAGE), *q = map_at(IO, MADV_NOHUGEPAGE, 0);
	int file = memfd_create("file", 0), disk = open("/dev/vda", O_RDWR | O_DIRECT);
	struct iovec local = { q, IO }, remote = { p, IO };
	int pipes[2];

	if (file < 0 || ftruncate(file, IO) || pipe(pipes) || fcntl(pipes[0], F_SETPIPE_SZ, IO) < 0)
		err(1, "access");
	touch(p, IO, PAGE);
	touch(q, IO, PAGE);
	for (int t = 0; t < ROUNDS; t++) {
		COUNT(if (pwrite(file, p, IO, 0) != IO) err(1, "pwrite"), "access\twrite to a file\tall\t%lu\n", IO);
		COUNT(if (pread(file, p, IO, 0) != IO) err(1, "pread"), "access\tread of a file\tall\t%lu\n", IO);
		COUNT(if (write(pipes[1], p, IO) != IO) err(1, "pipe"), "access\twrite to a pipe\tall\t%lu\n", IO);
		COUNT(if (read(pipes[0], p, IO) != IO) err(1, "pipe"), "access\tread of a pipe\tall\t%lu\n", IO);
		COUNT(if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != IO) err(1, "process_vm"),
		      "access\tprocess_vm_readv\tall\t%lu\n", IO);
		COUNT(if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != IO) err(1, "process_vm"),
		      "access\tprocess_vm_writev\tall\t%lu\n", IO);
		if (disk < 0)
			continue;
		COUNT(if (pwrite(disk, p, IO, 0) != IO) err(1, "disk"), "access\tO_DIRECT write\tall\t%lu\n", IO);
		COUNT(if (pread(disk, p, IO, 0) != IO) err(1, "disk"), "access\tO_DIRECT read\tall\t%lu\n", IO);
	}
}

static int keyids_in_use(void)
{
	char n[8] = "";
	int fd = open("/sys/kernel/mm/mktme/keyids_in_use", O_RDONLY);

	if (fd < 0 || read(fd, n, sizeof(n) - 1) < 1)
		err(1, "keyids_in_use");
	close(fd);
	return atoi(n);
}

/* Workers take pages back and clear the KeyID.  Asked seldom, for asking counts as well. */
static void fall_to(int n)
{
	while (keyids_in_use() > n)
		usleep(20000);
}

/* Before all that does not ask for it: workers wait until this CPU is free */
static void first(bool yes)
{
	struct sched_param p = { .sched_priority = yes };

	if (sched_setscheduler(0, yes ? SCHED_FIFO : SCHED_OTHER, &p))
		err(1, "sched_setscheduler");
}

static char *under_new_key(size_t size, key_serial_t *k)
{
	static const char payload[] = "type=cpu algorithm=aes-xts-128";
	char *p = map_at(size, MADV_NOHUGEPAGE, 0);

	*k = add_key("mktme", "e", payload, strlen(payload), KEY_SPEC_PROCESS_KEYRING);
	if (*k < 0)
		err(1, "add_key");
	encrypt(p, size, *k);
	touch(p, size, PAGE);
	return p;
}

static void erase(void)
{
	int before = keyids_in_use();

	for (size_t size = PAGE; size <= 1UL << 28; size *= 16) {
		for (int t = 0; t < TIMES; t++) {
			key_serial_t k;
			char *p = under_new_key(size, &k);

			COUNT(overwrite(p, size), "erase\t%zu\toverwritten\t1\n", size);
			first(true);
			COUNT(munmap(p, size), "erase\t%zu\tunmapped, not erased\t1\n", size);
			first(false);
			keyctl_unlink(k, KEY_SPEC_PROCESS_KEYRING);
			fall_to(before);

			p = under_new_key(size, &k);
			first(true);
			COUNT(if (keyctl_update(k, "erase", 5)) err(1, "keyctl"),
			      "erase\t%zu\terased\t1\n", size);
			COUNT(first(false); fall_to(before),
			      "erase\t%zu\tuntil its pages are free\t1\n", size);
			munmap(p, size);
			keyctl_unlink(k, KEY_SPEC_PROCESS_KEYRING);
		}
	}
}

/* x: the packages, by bench/run */
static void keys(void)
{
	static const char payload[] = "type=cpu algorithm=aes-xts-128";
	const char *packages = getenv("PACKAGES") ?: "1";
	bool mktme = !access("/sys/kernel/mm/mktme", F_OK);

	for (int t = 0; t <= TIMES; t++) {
		const char *table = t ? "keys" : "warm";
		key_serial_t k;

		COUNT(k = add_key("user", "e", payload, strlen(payload), KEY_SPEC_PROCESS_KEYRING),
		      "%s\t%s\tadd_key of type user\t1\n", table, packages);
		if (k < 0)
			err(1, "add_key");
		COUNT(keyctl_invalidate(k); usleep(200000),
		      "%s\t%s\tits end, and 200 ms\t1\n", table, packages);
		if (!mktme)
			continue;
		COUNT(k = add_key("mktme", "e", payload, strlen(payload), KEY_SPEC_PROCESS_KEYRING),
		      "%s\t%s\tadd_key of type mktme\t1\n", table, packages);
		if (k < 0)
			err(1, "add_key");
		COUNT(keyctl_invalidate(k); usleep(200000),
		      "%s\t%s\tits end, and 200 ms, mktme\t1\n", table, packages);
		if (keyids_in_use())
			errx(1, "the KeyID is not back after 200 ms");
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} modes[] = {
		{ "vmas", by_vmas }, { "size", by_size }, { "faults", faults }, { "churn", churn },
		{ "access", access_to }, { "erase", erase }, { "keys", keys },
		{ "memory", memory }, { "scale", scale }, { "shootdowns", shootdowns },
		{ "profile", profile },
	};

	if (argc > 1 && !strcmp(argv[1], "point"))
		return point(argc, argv);
	key = argc > 2 ? atoi(argv[2]) : 0;
	key2 = argc > 3 ? atoi(argv[3]) : 0;
	for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (!strcmp(modes[i].name, argv[1])) {
			modes[i].run();
			return 0;
		}
	}
	errx(1, "bench vmas|size|profile|shootdowns|faults|churn|access|erase|keys|memory|scale [KEY KEY2]");
}
