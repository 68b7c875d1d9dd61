// SPDX-License-Identifier: GPL-2.0
/*
 * bench MODE [KEY KEY2]: does what bench/run is to count, on memory under no key or
 * under KEY; KEY2 is one to change to.  A count's line says: table, x, series, divisor
 * (what one asks for is the count divided by it), separated by tabs.
 */
#include <err.h>
#include <fcntl.h>
#include <sched.h>
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

static int key, key2;

static int encrypt(void *p, size_t len, int serial)
{
	return syscall(__NR_encrypt_mprotect, p, len, RW, serial);
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

	if (key && encrypt(p, len, key))
		err(1, "encrypt_mprotect");
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
		for (int t = 0; t < TIMES; t++) {
			char *p = vmas(n);

			COUNT(mprotect(p, n * PAGE, RW), "vmas\t%zu\tmprotect\t1\n", n);
			munmap(p, n * PAGE);
			if (pkey > 0) {
				p = vmas(n);
				COUNT(pkey_mprotect(p, n * PAGE, RW, pkey),
				      "vmas\t%zu\tpkey_mprotect\t1\n", n);
				munmap(p, n * PAGE);
			}
			if (!key)
				continue;
			p = vmas(n);
			COUNT(encrypt(p, n * PAGE, key), "vmas\t%zu\tencrypt_mprotect\t1\n", n);
			munmap(p, n * PAGE);
		}
	}
}

static void by_size(void)
{
	static const struct {
		const char *name;
		int advice;
	} pages[] = { { "4K pages", MADV_NOHUGEPAGE }, { "huge pages", MADV_HUGEPAGE } };

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
		if (key && encrypt(p, len, key))
			err(1, "encrypt_mprotect of hugetlb");
		COUNT(touch(p, len, HUGE), "faults\tfault of hugetlb 2M\tall\t%zu\n", len / HUGE);
		COUNT(munmap(p, len), "faults\tfree of hugetlb 2M\tall\t%zu\n", len / HUGE);
	}
	p = map(1UL << 30, MADV_NOHUGEPAGE);
	touch(p, 1UL << 30, PAGE);
	for (int t = 0; t < 3; t++)
		child_exits("1 GiB");
	munmap(p, 1UL << 30);
}

/* How often are pages flushed that go back to the key they had? */
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
	const char *under = getenv("UNDER") ?: "none";
	const size_t len = 4 * HUGE;
	char c;

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
		if (fork())
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
		_exit(0);
	}
	for (int i = 0; i < n; i++)
		if (read(ready[0], &c, 1) != 1)
			err(1, "pipe");
	if (system("echo 0 >/proc/lock_stat; echo 1 >/proc/sys/kernel/lock_stat"))
		err(1, "lock_stat");
	close(go[1]);
	while (wait(NULL) > 0)
		;
	if (system("echo 0 >/proc/sys/kernel/lock_stat"))
		err(1, "lock_stat");
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

static void churn(void)
{
	const size_t len = HUGE;
	char *p = map(len, MADV_NOHUGEPAGE);

	for (int round = 1; round <= 16; round++)
		COUNT(touch(p, len, PAGE);
		      madvise(p, len, MADV_DONTNEED),
		      "churn\t%d\trounds of touch and free\t%zu\n", round, len / PAGE);
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

static void erase(void)
{
	static const char payload[] = "type=cpu algorithm=aes-xts-128";

	for (size_t size = PAGE; size <= 1UL << 28; size *= 16) {
		for (int t = 0; t < TIMES; t++) {
			key_serial_t k = add_key("mktme", "e", payload, strlen(payload),
						 KEY_SPEC_PROCESS_KEYRING);
			char *p = map_at(size, MADV_NOHUGEPAGE, 0);

			if (k < 0 || encrypt(p, size, k))
				err(1, "erase");
			touch(p, size, PAGE);
			COUNT(overwrite(p, size), "erase\t%zu\toverwritten\t1\n", size);
			COUNT(if (keyctl_update(k, "erase", 5)) err(1, "keyctl"),
			      "erase\t%zu\terased\t1\n", size);
			munmap(p, size);
			keyctl_unlink(k, KEY_SPEC_PROCESS_KEYRING);
		}
	}
}

/* The KeyID is cleared by a worker */
static bool all_free(void)
{
	char n[8] = "";
	int fd = open("/sys/kernel/mm/mktme/keyids_in_use", O_RDONLY);

	if (fd < 0 || read(fd, n, sizeof(n) - 1) < 1)
		err(1, "keyids_in_use");
	close(fd);
	return !atoi(n);
}

/* x: the packages, by bench/run */
static void keys(void)
{
	static const char payload[] = "type=cpu algorithm=aes-xts-128";
	const char *packages = getenv("PACKAGES") ?: "1";

	for (int t = 0; t < TIMES; t++) {
		key_serial_t k;

		COUNT(k = add_key("mktme", "e", payload, strlen(payload), KEY_SPEC_PROCESS_KEYRING),
		      "keys\t%s\tadd_key\t1\n", packages);
		if (k < 0)
			err(1, "add_key");
		COUNT(keyctl_invalidate(k);
		      while (!all_free())
			      sched_yield(), "keys\t%s\tteardown\t1\n", packages);
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
		{ "memory", memory }, { "scale", scale },
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
	errx(1, "bench vmas|size|faults|churn|access|erase|keys|memory|scale [KEY KEY2]");
}
