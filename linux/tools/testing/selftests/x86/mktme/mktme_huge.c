// SPDX-License-Identifier: GPL-2.0
/* Huge pages under a key: those of hugetlbfs, and transparent ones. */
#include <linux/falloc.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "mktme_mm.h"

#define MB		(1UL << 20)
#define PAGES		4

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT	26
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

/* The first and last bytes of each page: all of 1G would take long. */
static void fill_some(char *mem, size_t len, size_t step, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i += step) {
		fill(mem + i, 256, seed + i / step);
		fill(mem + i + step - 256, 256, seed + i / step + 100);
	}
}

static bool filled_some(char *mem, size_t len, size_t step, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i += step)
		if (!filled(mem + i, 256, seed + i / step) ||
		    !filled(mem + i + step - 256, 256, seed + i / step + 100))
			return false;
	return true;
}

static bool zero_some(char *mem, size_t len, size_t step)
{
	size_t i;

	for (i = 0; i < len; i += step)
		if (!zero(mem + i, 4096) || !zero(mem + i + step - 4096, 4096))
			return false;
	return true;
}

/* Of a key that a test may not have had. */
static long bytes_left(long keyid)
{
	return keyid ? key_bytes(keyid) : 0;
}

FIXTURE(hugetlb)
{
	size_t size, len, step;
	char *mem;
	serial_t key, key2;
	long keyid, keyid2;
	char dir[80], mount[40];
	struct setting optimize, overcommit;
};

FIXTURE_VARIANT(hugetlb)
{
	unsigned int shift, pages;
};

FIXTURE_VARIANT_ADD(hugetlb, 2M)
{
	.shift = 21,
	.pages = PAGES,
};

FIXTURE_VARIANT_ADD(hugetlb, 1G)
{
	.shift = 30,
	.pages = 1,
};

static long pool(const char *dir, const char *what)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, what);
	return read_sysfs(path);
}

static bool set_pool(const char *dir, long pages)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/nr_hugepages", dir);
	return write_number(path, pages) && read_sysfs(path) == pages;
}

/* What was erased comes back to the pool when it gets to it: wait for up to 10 s. */
static bool pool_refills(const char *dir, long pages)
{
	int i;

	for (i = 0; i < 1000; i++) {
		if (pool(dir, "free_hugepages") == pages)
			return true;
		usleep(10000);
	}
	return false;
}

/* Twice what is mapped, for copies. */
FIXTURE_SETUP(hugetlb)
{
	char path[128];

	SKIP_UNLESS_ROOT();
	SKIP_WITHOUT_KEYIDS(1, 0);
	self->size = 1UL << variant->shift;
	self->len = self->size * variant->pages;
	self->step = 4096;
	if (self->size > 2 * MB)
		self->step = 64 * MB;
	snprintf(self->dir, sizeof(self->dir),
		 "/sys/kernel/mm/hugepages/hugepages-%lukB", self->size / 1024);
	if (pool(self->dir, "nr_hugepages") > 0)
		SKIP(return, "others have huge pages of this size");
	self->key = new_key("one", CPU_KEY);
	ASSERT_LT(0, self->key);
	self->keyid = key_keyid(self->key);
	ASSERT_LT(0, self->keyid);

	/* Last, since a setup that fails is not torn down. */
	if (!set_pool(self->dir, 2 * variant->pages)) {
		set_pool(self->dir, 0);
		SKIP(return, "no huge pages of this size");
	}
	snprintf(path, sizeof(path), "%s/nr_overcommit_hugepages", self->dir);
	set(&self->overcommit, path, "0");
	self->mem = mmap(NULL, self->len, RW, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_HUGETLB | variant->shift << MAP_HUGE_SHIFT, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem) {
		put_back(&self->overcommit);
		set_pool(self->dir, 0);
	}
}

FIXTURE_TEARDOWN(hugetlb)
{
	munmap(self->mem, self->len);
	if (self->mount[0]) {
		EXPECT_EQ(0, umount(self->mount));
		rmdir(self->mount);
	}
	/* All of them have come back. */
	EXPECT_EQ(2 * variant->pages, pool(self->dir, "free_hugepages"));
	EXPECT_EQ(0, pool(self->dir, "resv_hugepages"));
	EXPECT_EQ(0, bytes_left(self->keyid));
	EXPECT_EQ(0, bytes_left(self->keyid2));
	EXPECT_TRUE(set_pool(self->dir, 0));
	put_back(&self->optimize);
	put_back(&self->overcommit);
}

TEST_F_TIMEOUT(hugetlb, new_memory, 300)
{
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ(self->keyid, keyid_at(self->mem));
	EXPECT_EQ(0, key_bytes(self->keyid));
	EXPECT_TRUE(zero_some(self->mem, self->len, self->step));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	fill_some(self->mem, self->len, self->step, 1);
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 1));
	EXPECT_EQ(2 * variant->pages - variant->pages,
		  pool(self->dir, "free_hugepages"));

	ASSERT_EQ(0, madvise(self->mem, self->len, MADV_DONTNEED));
	EXPECT_EQ(0, key_bytes(self->keyid));
	EXPECT_EQ(2 * variant->pages, pool(self->dir, "free_hugepages"));
	EXPECT_EQ(variant->pages, pool(self->dir, "resv_hugepages"));
	EXPECT_TRUE(zero_some(self->mem, self->len, self->step));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid));
}

TEST_F_TIMEOUT(hugetlb, contents_are_kept, 300)
{
	long free;

	MAKE_KEY2();
	fill_some(self->mem, self->len, self->step, 2);
	free = pool(self->dir, "free_hugepages");
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 2));

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, PROT_READ, self->key2));
	EXPECT_EQ(0, key_bytes(self->keyid));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid2));
	EXPECT_EQ(self->keyid2, keyid_at(self->mem));
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 2));

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	EXPECT_EQ(0, key_bytes(self->keyid2));
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 2));
	/* In place, and not counted as locked. */
	EXPECT_EQ(free, pool(self->dir, "free_hugepages"));
	fill_some(self->mem, self->len, self->step, 3);
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 3));
}

TEST_F_TIMEOUT(hugetlb, other_mappings_are_refused, 300)
{
	char *shared = mmap(NULL, self->size, RW, MAP_SHARED | MAP_ANONYMOUS |
			    MAP_HUGETLB | variant->shift << MAP_HUGE_SHIFT, -1, 0);

	ASSERT_NE(MAP_FAILED, shared);
	EXPECT_EQ(-1, encrypt_mprotect(shared, self->size, RW, self->key));
	EXPECT_EQ(EINVAL, errno);
	munmap(shared, self->size);

	/* Part of a page. */
	EXPECT_EQ(-1, encrypt_mprotect(self->mem, self->size / 2, RW, self->key));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, encrypt_mprotect(self->mem + 4096, self->size - 4096, RW,
				       self->key));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, keyid_at(self->mem));
}

TEST_F_TIMEOUT(hugetlb, not_counted_as_locked, 300)
{
	struct rlimit none = { };
	pid_t pid;
	int status;

	EXPECT_EQ(0, locked_kb());
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ(0, locked_kb());
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	EXPECT_EQ(0, locked_kb());

	/* Nor limited. */
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key,
			    KEY_POS_ALL | KEY_OTH_SEARCH, 0, 0));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (setrlimit(RLIMIT_MEMLOCK, &none) ||
		    setresuid(65534, 65534, 65534))
			_exit(1);
		_exit(encrypt_mprotect(self->mem, self->len, RW, self->key) ?
		      2 : 0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F_TIMEOUT(hugetlb, fork_and_copy, 300)
{
	int status, go[2];
	char c = 0;
	pid_t pid;

	MAKE_KEY2();
	ASSERT_EQ(0, pipe(go));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill_some(self->mem, self->len, self->step, 4);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (keyid_at(self->mem) != self->keyid)
			_exit(1);
		if (!filled_some(self->mem, self->len, self->step, 4))
			_exit(2);
		if (read(go[0], &c, 1) != 1)
			_exit(3);
		/* The parent has gone its way. */
		if (keyid_at(self->mem) != self->keyid ||
		    !filled_some(self->mem, self->len, self->step, 4))
			_exit(4);
		fill_some(self->mem, self->len, self->step, 5);
		if (!filled_some(self->mem, self->len, self->step, 5))
			_exit(5);
		_exit(0);
	}
	/* Copied, then encrypted anew. */
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key2));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid2));
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 4));
	fill_some(self->mem, self->len, self->step, 6);
	ASSERT_EQ(1, write(go[1], &c, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 6));
}

/* The child has no reservation: there is an error, and no page is changed. */
TEST_F_TIMEOUT(hugetlb, no_page_for_a_copy, 300)
{
	int status;
	pid_t pid;

	MAKE_KEY2();
	ASSERT_TRUE(set_pool(self->dir, variant->pages));
	/* The child is not a possessor. */
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key2,
			    KEY_POS_ALL | KEY_USR_SEARCH, 0, 0));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill_some(self->mem, self->len, self->step, 7);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (!encrypt_mprotect(self->mem, self->len, RW, self->key2))
			_exit(1);
		if (errno != ENOMEM)
			_exit(2);
		if (keyid_at(self->mem) != self->keyid)
			_exit(3);
		if (key_bytes(self->keyid2))
			_exit(4);
		_exit(filled_some(self->mem, self->len, self->step, 7) ? 0 : 5);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 7));
	ASSERT_TRUE(set_pool(self->dir, 2 * variant->pages));
}

/* Nor does the one who has the reservation get it from a child that has it. */
TEST_F_TIMEOUT(hugetlb, no_page_for_the_owners_copy, 300)
{
	int go[2], status;
	pid_t pid;
	char c;

	MAKE_KEY2();
	ASSERT_TRUE(set_pool(self->dir, variant->pages));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill_some(self->mem, self->len, self->step, 7);
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (read(go[0], &c, 1) != 1)
			_exit(1);
		_exit(filled_some(self->mem, self->len, self->step, 7) ? 0 : 2);
	}
	EXPECT_EQ(-1, encrypt_mprotect(self->mem, self->len, RW, self->key2));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(self->keyid, keyid_at(self->mem));
	ASSERT_EQ(1, write(go[1], "x", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 7));
	ASSERT_TRUE(set_pool(self->dir, 2 * variant->pages));
}

struct puncher {
	size_t size;
	int fd;
	volatile bool stop;
	unsigned long rounds;
};

static void *punch(void *arg)
{
	struct puncher *p = arg;

	unsigned int i;

	/* Now sooner, now later, so that the page is there now and then. */
	for (i = 0; !p->stop; i++) {
		usleep(i % 50 * 200);
		if (!fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       0, p->size))
			p->rounds++;
	}
	return NULL;
}

/* Holes in a file unmap the private copies of what was there. */
TEST_F_TIMEOUT(hugetlb, holes_in_the_file, 300)
{
	struct puncher p = { .size = self->size };
	long free = pool(self->dir, "free_hugepages");
	pthread_t thread;
	char *mem;
	int i;

	p.fd = memfd_create("holes", MFD_HUGETLB |
			    (variant->shift << MAP_HUGE_SHIFT));
	ASSERT_LE(0, p.fd);
	ASSERT_EQ(0, ftruncate(p.fd, self->size));
	mem = mmap(NULL, self->size, RW, MAP_PRIVATE, p.fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, pthread_create(&thread, NULL, punch, &p));
	/* A page of 1G takes seconds. */
	for (i = 0; i < (variant->shift > 21 ? 4 : 100); i++) {
		mem[0] = i;
		mem[self->size - 1] = i;
		ASSERT_EQ(0, encrypt_mprotect(mem, self->size, RW,
					      i % 2 ? 0 : self->key));
	}
	p.stop = true;
	pthread_join(thread, NULL);
	EXPECT_LT(0, p.rounds);
	mem[0] = 1;
	munmap(mem, self->size);
	close(p.fd);
	EXPECT_EQ(free, pool(self->dir, "free_hugepages"));
	EXPECT_EQ(0, key_bytes(self->keyid));
}

TEST_F_TIMEOUT(hugetlb, mremap, 300)
{
	char *to = mmap(NULL, 2 * self->len, PROT_NONE, MAP_PRIVATE |
			MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *mem;

	ASSERT_NE(MAP_FAILED, to);
	to = (char *)(((unsigned long)to + self->size - 1) & -self->size);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill_some(self->mem, self->len, self->step, 8);
	mem = mremap(self->mem, self->len, self->len,
		     MREMAP_MAYMOVE | MREMAP_FIXED, to);
	ASSERT_EQ(to, mem);
	EXPECT_EQ(self->keyid, keyid_at(mem));
	EXPECT_TRUE(filled_some(mem, self->len, self->step, 8));
	self->mem = mem;
}

TEST_F_TIMEOUT(hugetlb, pinned, 300)
{
	struct io_uring_params params = { };
	struct iovec iov = { self->mem + self->len - 4096, 4096 };
	int ring = syscall(__NR_io_uring_setup, 4, &params);

	if (ring < 0)
		SKIP(return, "no io_uring");
	fill_some(self->mem, self->len, self->step, 9);
	ASSERT_EQ(0, syscall(__NR_io_uring_register, ring,
			     IORING_REGISTER_BUFFERS, &iov, 1));
	EXPECT_EQ(-1, encrypt_mprotect(self->mem, self->len, PROT_READ, self->key));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(0, keyid_at(self->mem));
	EXPECT_EQ(0, key_bytes(self->keyid));
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 9));
	fill_some(self->mem, self->len, self->step, 10);
	ASSERT_EQ(0, syscall(__NR_io_uring_register, ring,
			     IORING_UNREGISTER_BUFFERS, NULL, 0));
	close(ring);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 10));
}

TEST_F_TIMEOUT(hugetlb, erase, 300)
{
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill_some(self->mem, self->len, self->step, 11);
	ASSERT_EQ(0, keyctl(KEYCTL_UPDATE, self->key, (long)"erase", 5, 0));
	EXPECT_TRUE(dies_of(SIGBUS, self->mem));
	EXPECT_TRUE(pool_refills(self->dir, 2 * variant->pages));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	EXPECT_TRUE(zero_some(self->mem, self->len, self->step));
	fill_some(self->mem, self->len, self->step, 12);
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 12));
	/* It is another's from now on. */
	self->keyid = 0;
}

TEST_F_TIMEOUT(hugetlb, rotate, 300)
{
	long keyid;

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill_some(self->mem, self->len, self->step, 13);
	ASSERT_EQ(0, keyctl(KEYCTL_UPDATE, self->key, (long)CPU_KEY,
			    strlen(CPU_KEY), 0));
	keyid = keyid_at(self->mem);
	EXPECT_NE(self->keyid, keyid);
	EXPECT_EQ((long)self->len, key_bytes(keyid));
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 13));
	self->keyid = keyid;
}

/* Files' pages are under no key: mapped privately under one, they are copied. */
TEST_F_TIMEOUT(hugetlb, private_mapping_of_a_file, 300)
{
	char opts[32], dir[32], *shared, *priv;
	int fd;

	snprintf(opts, sizeof(opts), "pagesize=%luM", self->size / MB);
	snprintf(dir, sizeof(dir), "/tmp/mktme-huge-XXXXXX");
	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, mount("none", dir, "hugetlbfs", 0, opts));
	snprintf(self->mount, sizeof(self->mount), "%s", dir);
	fd = open(dir, O_TMPFILE | O_RDWR, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, self->size));
	munmap(self->mem, self->len);

	shared = mmap(NULL, self->size, RW, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, shared);
	fill_some(shared, self->size, self->step, 14);
	priv = mmap(NULL, self->size, RW, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, priv);
	/* Not mapped yet; then mapped. */
	ASSERT_EQ(0, encrypt_mprotect(priv, self->size, RW, self->key));
	EXPECT_TRUE(filled_some(priv, self->size, self->step, 14));
	EXPECT_EQ((long)self->size, key_bytes(self->keyid));
	ASSERT_EQ(0, madvise(priv, self->size, MADV_DONTNEED));
	ASSERT_EQ(0, encrypt_mprotect(priv, self->size, RW, 0));
	EXPECT_TRUE(filled_some(priv, self->size, self->step, 14));
	ASSERT_EQ(0, encrypt_mprotect(priv, self->size, RW, self->key));
	EXPECT_EQ((long)self->size, key_bytes(self->keyid));
	EXPECT_TRUE(filled_some(priv, self->size, self->step, 14));
	fill_some(priv, self->size, self->step, 15);
	EXPECT_TRUE(filled_some(shared, self->size, self->step, 14));
	EXPECT_TRUE(filled_some(priv, self->size, self->step, 15));

	munmap(priv, self->size);
	munmap(shared, self->size);
	close(fd);
}

/* Its page is not mapped without the key where there is none for a copy. */
TEST_F_TIMEOUT(hugetlb, no_page_for_a_copy_of_a_files, 300)
{
	int fd, out[2];
	char *shared, *priv;

	munmap(self->mem, self->len);
	ASSERT_TRUE(set_pool(self->dir, 1));
	fd = memfd_create("file", MFD_HUGETLB | variant->shift << MAP_HUGE_SHIFT);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, self->size));
	shared = mmap(NULL, self->size, RW, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, shared);
	fill_some(shared, self->size, self->step, 16);
	priv = mmap(NULL, self->size, RW, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
	ASSERT_NE(MAP_FAILED, priv);
	ASSERT_EQ(0, encrypt_mprotect(priv, self->size, RW, self->key));
	ASSERT_EQ(0, pipe(out));
	EXPECT_EQ(-1, write(out[1], priv, 1));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, write(out[1], priv, 1));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, key_bytes(self->keyid));

	ASSERT_TRUE(set_pool(self->dir, 2));
	EXPECT_TRUE(filled_some(priv, self->size, self->step, 16));
	EXPECT_EQ((long)self->size, key_bytes(self->keyid));
	munmap(priv, self->size);
	munmap(shared, self->size);
	close(fd);
	ASSERT_TRUE(set_pool(self->dir, 2 * variant->pages));
}

TEST_F_TIMEOUT(hugetlb, userfaultfd_copy, 300)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (unsigned long)self->mem, self->len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_copy copy = { .len = self->size };
	char *src = mmap(NULL, self->size, RW, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_NORESERVE, -1, 0);
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);

	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_API, &api));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	/* Not mapped at the first try, where it is copied without the locks. */
	madvise(src, 2 * MB, MADV_NOHUGEPAGE);
	fill_some(src, 2 * MB, 4096, 16);
	copy.dst = (unsigned long)self->mem;
	copy.src = (unsigned long)src;
	if (self->size > 2 * MB)
		SKIP(return, "would need that much memory besides");
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_COPY, &copy));
	EXPECT_TRUE(filled_some(self->mem, self->size, 4096, 16));
	EXPECT_EQ((long)self->size, key_bytes(self->keyid));
	/* A source that is not there yet. */
	madvise(src, 2 * MB, MADV_DONTNEED);
	copy.dst += self->size;
	copy.copy = 0;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_COPY, &copy));
	EXPECT_TRUE(zero(self->mem + self->size, self->size));
	EXPECT_EQ(2 * (long)self->size, key_bytes(self->keyid));
	close(uffd);
	munmap(src, self->size);
}

/* Contents move to another page.  The old one is lost until it is unpoisoned. */
TEST_F_TIMEOUT(hugetlb, soft_offline, 300)
{
	const char *unpoison = "/sys/kernel/debug/hwpoison/unpoison-pfn";
	unsigned long pfn;
	int ret, tries;

	if (self->size > 2 * MB)
		SKIP(return, "would need that much memory besides");
	if (access(unpoison, W_OK))
		SKIP(return, "needs debugfs and CONFIG_HWPOISON_INJECT");
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill_some(self->mem, self->len, self->step, 17);
	pfn = phys_addr(self->mem) / getpagesize();
	/* Somebody may look at the page at that moment. */
	for (tries = 0; tries < 100; tries++) {
		ret = madvise(self->mem, 4096, MADV_SOFT_OFFLINE);
		if (!ret || errno != EBUSY)
			break;
		usleep(10000);
	}
	if (ret && errno == EOPNOTSUPP)
		SKIP(return, "vm.enable_soft_offline is 0");
	ASSERT_EQ(0, ret);
	EXPECT_NE(pfn, phys_addr(self->mem) / getpagesize());
	EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 17));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	/* One page has left the pool. */
	munmap(self->mem, self->len);
	set_pool(self->dir, 2 * variant->pages);
	EXPECT_TRUE(write_number(unpoison, pfn));
}

/* Where the page structs of the pool are thinned out, too. */
TEST_F_TIMEOUT(hugetlb, optimized_vmemmap, 300)
{
	const char *sysctl = "/proc/sys/vm/hugetlb_optimize_vmemmap";
	char *mem;

	MAKE_KEY2();
	if (!set(&self->optimize, sysctl, "1"))
		SKIP(return, "no CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP");
	munmap(self->mem, self->len);
	ASSERT_TRUE(set_pool(self->dir, 0));
	ASSERT_TRUE(set_pool(self->dir, 2 * variant->pages));
	mem = mmap(self->mem, self->len, RW, MAP_PRIVATE | MAP_ANONYMOUS |
		   MAP_FIXED | MAP_HUGETLB | variant->shift << MAP_HUGE_SHIFT,
		   -1, 0);
	ASSERT_EQ(self->mem, mem);
	fill_some(mem, self->len, self->step, 18);
	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	EXPECT_TRUE(filled_some(mem, self->len, self->step, 18));
	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key2));
	EXPECT_TRUE(filled_some(mem, self->len, self->step, 18));
	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, 0));
	EXPECT_TRUE(filled_some(mem, self->len, self->step, 18));
	ASSERT_EQ(0, encrypt_mprotect(mem, self->len, RW, self->key));
	EXPECT_TRUE(filled_some(mem, self->len, self->step, 18));
	ASSERT_EQ(0, madvise(mem, self->len, MADV_DONTNEED));
	EXPECT_TRUE(zero_some(mem, self->len, self->step));
}

static int nodes(void)
{
	return access("/sys/devices/system/node/node1", F_OK) ? 1 : 2;
}

/* The node that the page at an address is on after it was told to go there. */
static int move_page(void *addr, int node)
{
	int status = -1;

	syscall(__NR_move_pages, 0, 1, &addr, &node, &status, 0);
	return status;
}

TEST_F_TIMEOUT(hugetlb, migration, 300)
{
	int node;

	if (self->size > 2 * MB)
		SKIP(return, "would need that much memory on each node");
	if (nodes() < 2)
		SKIP(return, "needs two nodes");
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill_some(self->mem, self->len, self->step, 19);
	for (node = 0; node < 2; node++) {
		EXPECT_EQ(node, move_page(self->mem, node));
		EXPECT_TRUE(filled_some(self->mem, self->len, self->step, 19));
		EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	}
	/* The pool is spread differently now. */
	munmap(self->mem, self->len);
	set_pool(self->dir, 0);
	set_pool(self->dir, 2 * variant->pages);
}

/*
 * Transparent huge pages
 */

FIXTURE(thp)
{
	size_t len;
	char *mem;
	serial_t key, key2;
	long keyid, keyid2;
	struct setting thp, mthp;
};

FIXTURE_SETUP(thp)
{
	char *mem;

	SKIP_UNLESS_ROOT();
	SKIP_WITHOUT_KEYIDS(1, 0);
	self->len = 4 * MB;
	mem = map_anon(self->len + 2 * MB);
	ASSERT_NE(MAP_FAILED, mem);
	self->mem = (char *)(((unsigned long)mem + 2 * MB - 1) & -(2 * MB));
	if (madvise(self->mem, self->len, MADV_HUGEPAGE))
		SKIP(return, "no transparent huge pages");
	self->key = new_key("one", CPU_KEY);
	ASSERT_LT(0, self->key);
	self->keyid = key_keyid(self->key);
	ASSERT_LT(0, self->keyid);
}

FIXTURE_TEARDOWN(thp)
{
	put_back(&self->thp);
	put_back(&self->mthp);
	munmap(self->mem, self->len);
	EXPECT_EQ(0, bytes_left(self->keyid));
	EXPECT_EQ(0, bytes_left(self->keyid2));
}

#define huge_kb(addr)	smaps_kb(addr, "AnonHugePages")

/* Encrypted anew in one piece: the huge mapping is still there. */
TEST_F_TIMEOUT(thp, stay_huge, 120)
{
	MAKE_KEY2();
	fill(self->mem, self->len, 1);
	if (huge_kb(self->mem) != (long)self->len / 1024)
		SKIP(return, "no memory for huge pages");
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ((long)self->len / 1024, huge_kb(self->mem));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	EXPECT_TRUE(filled(self->mem, self->len, 1));
	fill(self->mem, self->len, 2);

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, PROT_READ, self->key2));
	EXPECT_EQ((long)self->len / 1024, huge_kb(self->mem));
	EXPECT_EQ(0, key_bytes(self->keyid));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid2));
	EXPECT_TRUE(filled(self->mem, self->len, 2));

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	EXPECT_EQ((long)self->len / 1024, huge_kb(self->mem));
	EXPECT_TRUE(filled(self->mem, self->len, 2));
	fill(self->mem, self->len, 3);
	EXPECT_TRUE(filled(self->mem, self->len, 3));
}

TEST_F_TIMEOUT(thp, split_where_it_must, 120)
{
	MAKE_KEY2();
	fill(self->mem, self->len, 4);
	/* Part of one, which is huge no more; the other one is. */
	ASSERT_EQ(0, encrypt_mprotect(self->mem + MB, MB, RW, self->key));
	EXPECT_EQ((long)MB, key_bytes(self->keyid));
	EXPECT_TRUE(filled(self->mem, self->len, 4));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key2));
	EXPECT_EQ(0, key_bytes(self->keyid));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid2));
	EXPECT_TRUE(filled(self->mem, self->len, 4));

	/* Mapped by single entries, though in one piece. */
	ASSERT_EQ(0, madvise(self->mem + 4096, 4096, MADV_DONTNEED));
	ASSERT_EQ(0, mprotect(self->mem + 3 * MB, 4096, PROT_READ));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ((long)self->len - 4096, key_bytes(self->keyid));
	EXPECT_EQ(0, key_bytes(self->keyid2));
	EXPECT_TRUE(zero(self->mem + 4096, 4096));
}

TEST_F_TIMEOUT(thp, fork_and_copy, 120)
{
	int status, go[2];
	char c = 0;
	pid_t pid;

	MAKE_KEY2();
	ASSERT_EQ(0, pipe(go));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 5);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (read(go[0], &c, 1) != 1)
			_exit(1);
		if (keyid_at(self->mem) != self->keyid ||
		    !filled(self->mem, self->len, 5))
			_exit(2);
		_exit(0);
	}
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key2));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid2));
	fill(self->mem, self->len, 6);
	ASSERT_EQ(1, write(go[1], &c, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(filled(self->mem, self->len, 6));
}

/* khugepaged's way, from pages of 4K. */
TEST_F_TIMEOUT(thp, collapse, 120)
{
	MAKE_KEY2();
	ASSERT_EQ(0, madvise(self->mem, self->len, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 7);
	ASSERT_EQ(0, huge_kb(self->mem));
	ASSERT_EQ(0, madvise(self->mem, self->len, MADV_HUGEPAGE));
	if (madvise(self->mem, self->len, MADV_COLLAPSE))
		SKIP(return, "no memory for huge pages");
	EXPECT_EQ((long)self->len / 1024, huge_kb(self->mem));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	EXPECT_TRUE(filled(self->mem, self->len, 7));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key2));
	EXPECT_TRUE(filled(self->mem, self->len, 7));
}

#define MTHP	"/sys/kernel/mm/transparent_hugepage/hugepages-64kB/"

TEST_F_TIMEOUT(thp, of_64k, 120)
{
	long before, nr;

	MAKE_KEY2();
	if (!set(&self->mthp, MTHP "enabled", "madvise"))
		SKIP(return, "no huge pages of 64K");
	/* PMD size follows the global setting, and so does khugepaged. */
	set(&self->thp, "/sys/kernel/mm/transparent_hugepage/enabled", "never");
	before = read_sysfs(MTHP "stats/nr_anon");
	fill(self->mem, self->len, 8);
	nr = read_sysfs(MTHP "stats/nr_anon") - before;
	if (nr == 0)
		SKIP(return, "no memory for huge pages of 64K");

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	EXPECT_TRUE(filled(self->mem, self->len, 8));
	EXPECT_EQ(nr, read_sysfs(MTHP "stats/nr_anon") - before);
	/* From the middle of one to the middle of another. */
	ASSERT_EQ(0, encrypt_mprotect(self->mem + 4096, MB, RW, self->key2));
	EXPECT_EQ((long)MB, key_bytes(self->keyid2));
	EXPECT_EQ(nr - 2, read_sysfs(MTHP "stats/nr_anon") - before);
	EXPECT_TRUE(filled(self->mem, self->len, 8));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	EXPECT_TRUE(filled(self->mem, self->len, 8));
	EXPECT_EQ(nr - 2, read_sysfs(MTHP "stats/nr_anon") - before);
}

TEST_F_TIMEOUT(thp, migration, 120)
{
	int node;

	if (nodes() < 2)
		SKIP(return, "needs two nodes");
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 9);
	for (node = 0; node < 2; node++) {
		EXPECT_EQ(node, move_page(self->mem, node));
		EXPECT_EQ(node, move_page(self->mem + 2 * MB + 4096, node));
		EXPECT_TRUE(filled(self->mem, self->len, 9));
		EXPECT_EQ((long)self->len, key_bytes(self->keyid));
	}
}

TEST_HARNESS_MAIN
