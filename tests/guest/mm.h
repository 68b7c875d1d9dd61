/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of memory under a key have in common.  The lines that they
 * print are read by tests/mm.sh: "ok WHAT", "not ok WHAT", and
 * "dram FILE PHYS N KEY WHAT" for a page that was dumped as DRAM holds it.
 *
 * A page has the contents of the file /pattern, with a number of its own at the
 * start, so that pages can't be taken for one another.  The keys are those
 * whose serial numbers are in the environment as A and B.
 */
#ifndef MM_H
#define MM_H

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/keyctl.h>
#include <linux/mktme.h>

#define PAGE	4096UL
#define HUGE	(2UL << 20)
#define RW	(PROT_READ | PROT_WRITE)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

/* Which key: none, or one of the environment's */
enum { NONE, A, B, KEYS };

static unsigned char pattern[PAGE];
static int serial[KEYS];
static long keyid[KEYS];

static void __attribute__((format(printf, 2, 3), unused))
result(bool good, const char *what, ...)
{
	va_list ap;

	printf(good ? "ok " : "not ok ");
	va_start(ap, what);
	vprintf(what, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

/* A system call that is to succeed, or to fail with an error. */
#define works(what, call)						\
do {									\
	long __r = (long)(call);					\
									\
	if (__r < 0)							\
		printf("# %s: %ld, %s\n", what, __r, strerror(errno));	\
	result(__r >= 0, "%s", what);					\
} while (0)

#define fails(what, error, call)					\
do {									\
	long __r = (errno = 0, (long)(call));				\
									\
	if (__r != -1 || errno != (error))				\
		printf("# %s: %ld, %s\n", what, __r, strerror(errno));	\
	result(__r == -1 && errno == (error), "%s", what);		\
} while (0)

static inline void *map(size_t len)
{
	void *p = mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap of %zu", len);
	return p;
}

/* Aligned to huge pages, with room of its own on both sides */
static inline char *map_huge(size_t len)
{
	char *p = map(len + 2 * HUGE);

	return (char *)(((uintptr_t)p + HUGE) & -HUGE);
}

static inline int encrypt_mprotect(void *p, size_t len, int prot, int key)
{
	return syscall(__NR_encrypt_mprotect, p, len, prot, key);
}

static inline void put_under(void *p, size_t len, int key)
{
	if (encrypt_mprotect(p, len, RW, serial[key]))
		err(1, "encrypt_mprotect of %zu bytes, key %d", len, key);
}

static inline void *map_under(size_t len, int key)
{
	void *p = map(len);

	put_under(p, len, key);
	return p;
}

/* The KeyID that smaps tells for the VMA at an address */
static inline long vma_keyid(const void *addr)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end, a = (unsigned long)addr;
	bool here = false;
	char line[512];
	long id = -1;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = a >= start && a < end;
		else if (here && sscanf(line, "KeyID: %ld", &id) == 1)
			break;
	}
	if (f)
		fclose(f);
	return id;
}

/* Number in a field of the VMA's smaps, as "Swap:", or -1 */
static inline long vma_field(const void *addr, const char *field)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end, a = (unsigned long)addr;
	size_t len = strlen(field);
	bool here = false;
	char line[512];
	long val = -1;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			here = a >= start && a < end;
		} else if (here && !strncmp(line, field, len)) {
			val = atol(line + len);
			break;
		}
	}
	if (f)
		fclose(f);
	return val;
}

static inline uint64_t pagemap(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t e;

	if (pread(fd, &e, 8, (uintptr_t)p / PAGE * 8) != 8)
		err(1, "pagemap");
	close(fd);
	return e;
}

static inline unsigned long pfn(const void *p)
{
	uint64_t e = pagemap(p);

	return e >> 63 ? e & ((1ULL << 55) - 1) : 0;
}

static inline void put_page(void *p, uint64_t n)
{
	memcpy(p, pattern, PAGE);
	memcpy(p, &n, 8);
}

static inline bool page_is(const void *p, uint64_t n)
{
	return !memcmp(p, &n, 8) && !memcmp(p + 8, pattern + 8, PAGE - 8);
}

/* Pages numbered from n on */
static inline void fill(void *p, size_t len, uint64_t n)
{
	for (size_t i = 0; i < len; i += PAGE)
		put_page(p + i, n++);
}

static inline bool filled(const void *p, size_t len, uint64_t n)
{
	for (size_t i = 0; i < len; i += PAGE, n++) {
		if (!page_is(p + i, n)) {
			uint64_t have;

			memcpy(&have, p + i, 8);
			printf("# page %zu of %zu: %#llx, not %#llx\n", i / PAGE,
			       len / PAGE, (long long)have, (long long)n);
			return false;
		}
	}
	return true;
}

static inline bool zeroed(const void *p, size_t len)
{
	const char *c = p;

	return !*c && !memcmp(c, c + 1, len - 1);
}

/* Of QEMU, by vm/boot: its answer without "ok", or NULL */
static inline char *host(const char *fmt, ...)
{
	static char buf[65536];
	size_t len;
	va_list ap;
	int fd;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf) - 1, fmt, ap);
	va_end(ap);
	strcat(buf, "\n");
	fd = open("/run/port/host", O_RDWR | O_CLOEXEC);
	if (fd < 0 || write(fd, buf, strlen(buf)) < 0)
		err(1, "host");
	for (len = 0; len < sizeof(buf) - 1; len++)
		if (read(fd, buf + len, 1) != 1 || buf[len] == '\n')
			break;
	buf[len] = 0;
	close(fd);
	if (!strncmp(buf, "ok", 2))
		return buf + 2;
	printf("# host: %s\n", buf);
	return NULL;
}

/* Numbered pages: right for the program, under this key for the VMA, in DRAM */
static void __attribute__((unused))
check(const char *what, void *p, size_t len, uint64_t n, int key)
{
	static int files;
	size_t step;

	result(filled(p, len, n), "%s: contents", what);
	if (vma_keyid(p) != keyid[key])
		printf("# %s: KeyID %ld, not %ld\n", what, vma_keyid(p), keyid[key]);
	result(vma_keyid(p) == keyid[key], "%s: KeyID of the VMA", what);
	/* Of many pages, some: the first, the last, and between */
	step = len / PAGE > 4 ? (len / PAGE - 1) / 3 * PAGE : PAGE;
	for (size_t i = 0; i < len; i += step) {
		unsigned long long phys = pfn(p + i) * PAGE;

		if (!phys) {
			result(false, "%s: page %zu is there", what, i / PAGE);
			continue;
		}
		/* A child counts on by itself. */
		if (host("dump %#llx 4096 page%d-%d", phys, getpid(), files))
			printf("dram page%d-%d %#llx %llu %d %s: page %zu\n",
			       getpid(), files, phys, (long long)(n + i / PAGE),
			       key, what, i / PAGE);
		else
			result(false, "%s: dump", what);
		files++;
	}
	fflush(stdout);
}

static inline long number_in(const char *path)
{
	FILE *f = fopen(path, "re");
	long n = -1;

	if (f) {
		if (fscanf(f, "%ld", &n) != 1)
			n = -1;
		fclose(f);
	}
	return n;
}

static inline bool write_to(const char *path, const char *fmt, ...)
{
	char buf[256];
	va_list ap;
	int fd, len;
	bool good;

	va_start(ap, fmt);
	len = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	good = fd >= 0 && write(fd, buf, len) == len;
	if (!good)
		printf("# %s: %s: %s\n", path, buf, strerror(errno));
	close(fd);
	return good;
}

static inline long keyids_in_use(void)
{
	return number_in("/sys/kernel/mm/mktme/keyids_in_use");
}

/*
 * KeyIDs come back after a grace period.  A page that is freed before it got to the
 * LRU may be in some CPU's batch for long: compaction empties them.
 */
static inline bool keyids_fall_to(long want)
{
	for (int i = 0; i < 1000; i++) {
		if (i == 100)
			write_to("/proc/sys/vm/compact_memory", "1");
		if (keyids_in_use() <= want)
			return true;
		usleep(10000);
	}
	printf("# %ld KeyIDs are in use\n", keyids_in_use());
	return false;
}

/* Of type=cpu, in the user keyring, without a mapping yet */
static inline int new_key(void)
{
	static const char payload[] = "type=cpu algorithm=aes-xts-128";
	static int n;
	char name[20];
	int key;

	snprintf(name, sizeof(name), "new%d", n++);
	/* Keys that are unlinked go when the keys' garbage collector comes to them. */
	for (int i = 0; i < 1000; i++) {
		key = syscall(__NR_add_key, "mktme", name, payload, sizeof(payload) - 1,
			      KEY_SPEC_USER_KEYRING);
		if (key >= 0 || errno != ENOSPC)
			break;
		usleep(10000);
	}
	if (key < 0)
		err(1, "add_key");
	return key;
}

static inline void unlink_key(int key)
{
	if (syscall(__NR_keyctl, KEYCTL_UNLINK, key, KEY_SPEC_USER_KEYRING))
		err(1, "keyctl unlink");
}

static inline long encrypted_bytes(void)
{
	return number_in("/sys/kernel/mm/mktme/encrypted_bytes");
}

/* A child does it; it has gone well if it exits with 0. */
#define in_child(what, ...)						\
do {									\
	int __s = -1;							\
	pid_t __p;							\
									\
	fflush(stdout);							\
	__p = fork();							\
	if (!__p) {							\
		__VA_ARGS__;						\
		fflush(stdout);						\
		_exit(0);						\
	}								\
	if (waitpid(__p, &__s, 0) != __p || __s)			\
		printf("# status %#x\n", __s);				\
	result(!__s, "%s", what);					\
} while (0)

static void __attribute__((constructor)) mm_init(void)
{
	int fd = open("/pattern", O_RDONLY);
	const char *env[] = { NULL, "A", "B" };
	void *probe = map(PAGE);

	if (read(fd, pattern, PAGE) != (long)PAGE)
		err(1, "/pattern");
	close(fd);
	for (int k = A; k < KEYS; k++) {
		if (!getenv(env[k]))
			errx(1, "no key %s in the environment", env[k]);
		serial[k] = atoi(getenv(env[k]));
		put_under(probe, PAGE, k);
		keyid[k] = vma_keyid(probe);
	}
	munmap(probe, PAGE);
}

#endif /* MM_H */
