// SPDX-License-Identifier: GPL-2.0
/*
 * The pages under a key: who can read them, who holds them, and for how long
 * the KeyID is theirs.
 */
#include <elf.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sys/uio.h>

#include "mktme_mm.h"

FIXTURE(pages)
{
	long page;
	size_t len;
	char *mem;
	serial_t key;
};

FIXTURE_SETUP(pages)
{
	SKIP_UNLESS_ALONE();
	self->page = sysconf(_SC_PAGESIZE);
	self->len = 16 * self->page;
	self->mem = map_anon(self->len);
	ASSERT_NE(MAP_FAILED, self->mem);
	self->key = new_key("pages", CPU_KEY);
	ASSERT_LT(0, self->key);
}

FIXTURE_TEARDOWN(pages)
{
}

static bool can_open(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* What the direct map shows at a physical address. */
static bool read_kcore(uint64_t phys, void *buf, size_t len)
{
	int fd = open("/proc/kcore", O_RDONLY);
	Elf64_Ehdr ehdr;
	Elf64_Phdr phdr;
	bool found = false;
	int i;

	if (fd < 0 || pread(fd, &ehdr, sizeof(ehdr), 0) != sizeof(ehdr))
		goto out;
	for (i = 0; i < ehdr.e_phnum && !found; i++) {
		if (pread(fd, &phdr, sizeof(phdr), ehdr.e_phoff +
			  i * sizeof(phdr)) != sizeof(phdr))
			break;
		if (phdr.p_type == PT_LOAD && phdr.p_paddr != (uint64_t)-1 &&
		    phys >= phdr.p_paddr && phys < phdr.p_paddr + phdr.p_memsz)
			found = pread(fd, buf, len, phdr.p_offset + phys -
				      phdr.p_paddr) == len;
	}
out:
	close(fd);
	return found;
}

/* Not all kernels let one read RAM by it. */
static bool read_devmem(uint64_t phys, void *buf, size_t len)
{
	int fd = open("/dev/mem", O_RDONLY);
	bool done = fd >= 0 && pread(fd, buf, len, phys) == (ssize_t)len;

	if (fd >= 0)
		close(fd);
	return done;
}

TEST_F(pages, direct_map_shows_no_plaintext)
{
	char plain[4096], seen[4096], devmem[4096];
	bool has_devmem;

	memset(self->mem, 'S', self->len);
	memcpy(plain, self->mem, sizeof(plain));
	if (!can_open("/proc/kcore"))
		SKIP(return, "needs /proc/kcore (CONFIG_PROC_KCORE, no lockdown)");
	/* The control: without a key, one can read it there. */
	ASSERT_TRUE(read_kcore(phys_addr(self->mem), seen, sizeof(seen)));
	ASSERT_EQ(0, memcmp(plain, seen, sizeof(seen)));
	has_devmem = read_devmem(phys_addr(self->mem), seen, sizeof(seen));
	if (has_devmem) {
		ASSERT_EQ(0, memcmp(plain, seen, sizeof(seen)));
	}

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	write_back(self->mem, self->len);
	ASSERT_TRUE(read_kcore(phys_addr(self->mem), seen, sizeof(seen)));
	EXPECT_NE(0, memcmp(plain, seen, sizeof(seen)));
	EXPECT_EQ(NULL, memmem(seen, sizeof(seen), "SSSSSSSS", 8));
	if (has_devmem) {
		ASSERT_TRUE(read_devmem(phys_addr(self->mem), devmem, sizeof(devmem)));
		EXPECT_EQ(0, memcmp(devmem, seen, sizeof(seen)));
	}
	EXPECT_EQ(0, memcmp(plain, self->mem, sizeof(plain)));
}

/* All the ways by which the kernel reads and writes user memory for others. */
TEST_F(pages, kernel_access)
{
	struct iovec local, remote;
	char buf[8192];
	int fd, p[2];

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 1);

	local = (struct iovec){ buf, sizeof(buf) };
	remote = (struct iovec){ self->mem, sizeof(buf) };
	ASSERT_EQ(sizeof(buf), process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_TRUE(filled(buf, sizeof(buf), 1));
	fill(buf, sizeof(buf), 2);
	ASSERT_EQ(sizeof(buf), process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_TRUE(filled(self->mem, sizeof(buf), 2));

	fd = open("/proc/self/mem", O_RDWR);
	ASSERT_LE(0, fd);
	memset(buf, 0, sizeof(buf));
	ASSERT_EQ(sizeof(buf), pread(fd, buf, sizeof(buf), (off_t)self->mem));
	EXPECT_TRUE(filled(buf, sizeof(buf), 2));
	fill(buf, sizeof(buf), 3);
	ASSERT_EQ(sizeof(buf), pwrite(fd, buf, sizeof(buf), (off_t)self->mem));
	EXPECT_TRUE(filled(self->mem, sizeof(buf), 3));
	close(fd);

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(sizeof(buf), vmsplice(p[1], &remote, 1, 0));
	memset(buf, 0, sizeof(buf));
	ASSERT_EQ(sizeof(buf), read(p[0], buf, sizeof(buf)));
	EXPECT_TRUE(filled(buf, sizeof(buf), 3));
}

TEST_F(pages, keyid_outlives_key_and_mapping)
{
	struct iovec iov = { self->mem, 2 * self->page };
	char buf[8192];
	int p[2];

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 4);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(sizeof(buf), vmsplice(p[1], &iov, 1, 0));

	/* The key goes, the mapping goes: two pages stay in the pipe. */
	ASSERT_EQ(0, revoke_key(self->key));
	ASSERT_EQ(0, unlink_key(self->key));
	ASSERT_EQ(0, munmap(self->mem, self->len));
	usleep(300000);
	EXPECT_EQ(1, read_sysfs(SYSFS "keyids_in_use"));

	/* Whatever is programmed meanwhile is not their KeyID. */
	ASSERT_LT(0, new_key("other", CPU_KEY));
	ASSERT_EQ(sizeof(buf), read(p[0], buf, sizeof(buf)));
	EXPECT_TRUE(filled(buf, sizeof(buf), 4));
	EXPECT_TRUE(keyids_fall_to(1));
}

TEST_F(pages, pinned_pages_are_busy)
{
	struct io_uring_params params = { };
	struct iovec iov = { self->mem + 3 * self->page, self->page };
	int ring;

	fill(self->mem, self->len, 5);
	ring = syscall(__NR_io_uring_setup, 4, &params);
	if (ring < 0)
		SKIP(return, "no io_uring");
	ASSERT_EQ(0, syscall(__NR_io_uring_register, ring,
			     IORING_REGISTER_BUFFERS, &iov, 1));
	EXPECT_EQ(-1, encrypt_mprotect(self->mem, self->len, PROT_READ, self->key));
	EXPECT_EQ(EBUSY, errno);
	/* Nothing has changed. */
	EXPECT_EQ(0, keyid_at(self->mem));
	EXPECT_EQ(0, keyid_at(iov.iov_base));
	EXPECT_TRUE(filled(self->mem, self->len, 5));
	self->mem[0]++;
	self->mem[0]--;

	ASSERT_EQ(0, syscall(__NR_io_uring_register, ring,
			     IORING_UNREGISTER_BUFFERS, NULL, 0));
	close(ring);
	EXPECT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_TRUE(filled(self->mem, self->len, 5));
}

static volatile bool stop;

static void *counter(void *arg)
{
	volatile uint64_t *p = arg;
	uint64_t n = 0;

	while (!stop) {
		if (*p != n)
			return (void *)1;
		*p = ++n;
	}
	return NULL;
}

TEST_F_TIMEOUT(pages, rekey_under_writes, 120)
{
	serial_t keys[] = { self->key, 0, 0 };
	pthread_t threads[4];
	void *lost;
	int i;

	SKIP_WITHOUT_KEYIDS(2, 1);
	keys[1] = new_key("second", CPU_KEY);
	ASSERT_LT(0, keys[1]);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, counter,
					    self->mem + i * self->page));
	for (i = 0; i < 90; i++)
		ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW,
					      keys[i % 3]));
	stop = true;
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &lost));
		EXPECT_EQ(NULL, lost);
	}
}

TEST_F(pages, exit_frees_everything)
{
	long bytes = read_sysfs(SYSFS "encrypted_bytes");
	pid_t pid;
	int i;

	for (i = 0; i < 20; i++) {
		pid = fork();
		if (!pid) {
			if (encrypt_mprotect(self->mem, self->len, RW, self->key))
				_exit(1);
			fill(self->mem, self->len, i);
			if (fork() == 0)
				fill(self->mem, self->len / 2, i + 1);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	ASSERT_EQ(0, unlink_key(self->key));
	EXPECT_TRUE(keyids_fall_to(0));
	EXPECT_EQ(bytes, read_sysfs(SYSFS "encrypted_bytes"));
}

TEST_F(pages, huge_pages)
{
	size_t huge = 2 << 20;
	char *mem = mmap(NULL, 3 * huge, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *a = (char *)(((unsigned long)mem + huge - 1) & -huge);
	serial_t key2;

	SKIP_WITHOUT_KEYIDS(2, 1);
	key2 = new_key("second", CPU_KEY);
	ASSERT_NE(MAP_FAILED, mem);
	madvise(a, 2 * huge, MADV_HUGEPAGE);

	/* Put under a key first, then touched; and the other way around. */
	ASSERT_EQ(0, encrypt_mprotect(a, huge, RW, self->key));
	fill(a, 2 * huge, 6);
	EXPECT_TRUE(filled(a, 2 * huge, 6));
	ASSERT_EQ(0, encrypt_mprotect(a, 2 * huge, RW, key2));
	EXPECT_TRUE(filled(a, 2 * huge, 6));
	/* Part of one. */
	ASSERT_EQ(0, encrypt_mprotect(a + huge / 2, self->page, RW, 0));
	EXPECT_TRUE(filled(a, 2 * huge, 6));
	ASSERT_EQ(0, munmap(a + self->page, huge));
	ASSERT_EQ(0, encrypt_mprotect(a, self->page, RW, 0));
	EXPECT_EQ(0, keyid_at(a));
}

TEST_HARNESS_MAIN
