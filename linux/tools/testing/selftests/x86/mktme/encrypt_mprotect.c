// SPDX-License-Identifier: GPL-2.0
/* encrypt_mprotect(): arguments, errors, and what happens to VMAs. */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "mktme_mm.h"

#define PAGES	16

FIXTURE(enc)
{
	long page;
	size_t len;
	char *mem;
	serial_t key, key2;
	long keyid, keyid2;
};

FIXTURE_SETUP(enc)
{
	SKIP_WITHOUT_MKTME();
	SKIP_WITHOUT_KEYIDS(1, 0);
	self->page = sysconf(_SC_PAGESIZE);
	self->len = PAGES * self->page;
	/* With a hole on both sides. */
	self->mem = mmap(NULL, self->len + 2 * self->page, RW,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
	munmap(self->mem, self->page);
	self->mem += self->page;
	munmap(self->mem + self->len, self->page);

	self->key = new_key("one", USER_KEY);
	ASSERT_LT(0, self->key);
	self->keyid = key_keyid(self->key);
	ASSERT_LT(0, self->keyid);
}

FIXTURE_TEARDOWN(enc)
{
}

#define EXPECT_ERR(err, call)						\
do {									\
	errno = 0;							\
	EXPECT_EQ(-1, (call));						\
	EXPECT_EQ((err), errno);					\
} while (0)

TEST_F(enc, bad_ranges)
{
	char *mem = self->mem;

	EXPECT_ERR(EINVAL, encrypt_mprotect(mem + 1, self->page, RW, self->key));
	EXPECT_ERR(EINVAL, encrypt_mprotect(mem, self->page - 1, RW, self->key));
	EXPECT_ERR(EINVAL, encrypt_mprotect(mem, 1, RW, self->key));
	EXPECT_ERR(EINVAL, encrypt_mprotect((void *)-self->page,
					    2 * self->page, RW, self->key));
	EXPECT_ERR(EINVAL, encrypt_mprotect(mem, -self->page, RW, self->key));
	EXPECT_ERR(ENOMEM, encrypt_mprotect(mem - self->page, 2 * self->page,
					    RW, self->key));
	EXPECT_ERR(ENOMEM, encrypt_mprotect(mem, self->len + self->page,
					    RW, self->key));
	EXPECT_EQ(0, encrypt_mprotect(mem, 0, RW, self->key));
	EXPECT_EQ(0, keyid_at(mem));

	/* A hole in the middle: the part in front of it is left alone. */
	munmap(mem + 4 * self->page, self->page);
	EXPECT_ERR(ENOMEM, encrypt_mprotect(mem, self->len, PROT_READ, self->key));
	EXPECT_EQ(0, keyid_at(mem));
	mem[0] = 1;
}

TEST_F(enc, bad_prot)
{
	EXPECT_ERR(EINVAL, encrypt_mprotect(self->mem, self->len, 0x40000000,
					    self->key));
	EXPECT_ERR(EINVAL, encrypt_mprotect(self->mem, self->len,
					    RW | PROT_GROWSDOWN, self->key));
	EXPECT_EQ(0, keyid_at(self->mem));
}

TEST_F(enc, bad_keys)
{
	serial_t user = add_key("user", "plain", "x", 1);
	serial_t key;

	SKIP_WITHOUT_KEYIDS(2, 1);
	ASSERT_LT(0, user);
	EXPECT_ERR(EINVAL, encrypt_mprotect(self->mem, self->len, RW, user));
	EXPECT_ERR(EINVAL, encrypt_mprotect(self->mem, self->len, RW,
					    KEY_SPEC_PROCESS_KEYRING));
	EXPECT_ERR(EINVAL, encrypt_mprotect(self->mem, self->len, RW, -1000));
	EXPECT_ERR(ENOKEY, encrypt_mprotect(self->mem, self->len, RW, 0x7ffffff0));

	key = new_key("revoked", CPU_KEY);
	ASSERT_EQ(0, revoke_key(key));
	EXPECT_ERR(EKEYREVOKED, encrypt_mprotect(self->mem, self->len, RW, key));

	key = new_key("expired", CPU_KEY);
	ASSERT_EQ(0, keyctl(KEYCTL_SET_TIMEOUT, key, 1, 0, 0));
	sleep(2);
	EXPECT_ERR(EKEYEXPIRED, encrypt_mprotect(self->mem, self->len, RW, key));
	ASSERT_EQ(0, unlink_key(key));

	/* No search permission, not even for the possessor. */
	key = new_key("denied", CPU_KEY);
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, key, KEY_POS_VIEW | KEY_USR_VIEW |
			    KEY_POS_SETATTR, 0, 0));
	EXPECT_ERR(EACCES, encrypt_mprotect(self->mem, self->len, RW, key));
	ASSERT_EQ(0, unlink_key(key));

	key = new_key("gone", CPU_KEY);
	ASSERT_EQ(0, unlink_key(key));
	usleep(100000);
	EXPECT_ERR(ENOKEY, encrypt_mprotect(self->mem, self->len, RW, key));

	EXPECT_EQ(0, keyid_at(self->mem));
}

TEST_F(enc, search_permission_suffices)
{
	pid_t pid;
	int status;

	SKIP_UNLESS_ROOT();
	MAKE_KEY2();
	/* The child is nobody, and does not possess the key. */
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key,
			    KEY_POS_ALL | KEY_OTH_SEARCH, 0, 0));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0);
		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(1);
		if (encrypt_mprotect(self->mem, self->len, RW, self->key))
			_exit(2);
		fill(self->mem, self->len, 5);
		if (!filled(self->mem, self->len, 5))
			_exit(3);
		/* The other key, not handed over. */
		if (!encrypt_mprotect(self->mem, self->len, RW, self->key2) ||
		    errno != EACCES)
			_exit(4);
		/* A new one takes a capability. */
		if (new_key("mine", CPU_KEY) > 0 || errno != EPERM)
			_exit(5);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(enc, memory_that_can_not_be_encrypted)
{
	FILE *tmp = tmpfile();
	char *shared, *file, *exe;

	shared = mmap(NULL, self->page, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EXPECT_ERR(EINVAL, encrypt_mprotect(shared, self->page, RW, self->key));

	ASSERT_NE(NULL, tmp);
	ASSERT_EQ(0, ftruncate(fileno(tmp), self->page));
	file = mmap(NULL, self->page, RW, MAP_PRIVATE, fileno(tmp), 0);
	ASSERT_NE(MAP_FAILED, file);
	EXPECT_ERR(EINVAL, encrypt_mprotect(file, self->page, RW, self->key));

	exe = (char *)((unsigned long)&map_anon & -self->page);
	EXPECT_ERR(EINVAL, encrypt_mprotect(exe, self->page,
					    PROT_READ | PROT_EXEC, self->key));

	/* Good, bad: the good one stays as it is. */
	ASSERT_EQ(self->mem + self->page,
		  mmap(self->mem + self->page, self->page, RW,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_ERR(EINVAL, encrypt_mprotect(self->mem, 2 * self->page,
					    PROT_READ, self->key));
	EXPECT_EQ(0, keyid_at(self->mem));
	self->mem[0] = 1;
}

#ifndef __NR_mseal
#define __NR_mseal 462
#endif

TEST_F(enc, sealed)
{
	if (syscall(__NR_mseal, self->mem, self->len, 0))
		SKIP(return, "no mseal()");
	EXPECT_ERR(EPERM, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ(0, keyid_at(self->mem));
}

TEST_F(enc, new_memory)
{
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ(self->keyid, keyid_at(self->mem));
	EXPECT_TRUE(zero(self->mem, self->len));
	fill(self->mem, self->len, 1);
	EXPECT_TRUE(filled(self->mem, self->len, 1));
	EXPECT_LE((long)self->len, read_sysfs(SYSFS "encrypted_bytes"));
}

TEST_F(enc, contents_are_kept)
{
	MAKE_KEY2();
	fill(self->mem, self->len, 2);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_TRUE(filled(self->mem, self->len, 2));

	/* rekey */
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key2));
	EXPECT_EQ(self->keyid2, keyid_at(self->mem));
	EXPECT_TRUE(filled(self->mem, self->len, 2));

	/* unkey */
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	EXPECT_EQ(0, keyid_at(self->mem));
	EXPECT_TRUE(filled(self->mem, self->len, 2));
	fill(self->mem, self->len, 3);
	EXPECT_TRUE(filled(self->mem, self->len, 3));
}

TEST_F(enc, sparse_contents_are_kept)
{
	int i;

	for (i = 0; i < PAGES; i += 3)
		fill(self->mem + i * self->page, self->page, i);
	/* The zero page, too. */
	EXPECT_EQ(0, *(volatile char *)(self->mem + self->page));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	for (i = 0; i < PAGES; i++) {
		char *p = self->mem + i * self->page;

		if (i % 3) {
			EXPECT_TRUE(zero(p, self->page));
		} else {
			EXPECT_TRUE(filled(p, self->page, i));
		}
		fill(p, self->page, 100 + i);
	}
	for (i = 0; i < PAGES; i++)
		EXPECT_TRUE(filled(self->mem + i * self->page, self->page, 100 + i));
}

TEST_F(enc, no_encrypt_type)
{
	serial_t key;

	SKIP_WITHOUT_KEYIDS(2, 1);
	key = new_key("none", "type=no-encrypt");
	ASSERT_LT(0, key);
	fill(self->mem, self->len, 4);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, key));
	EXPECT_TRUE(filled(self->mem, self->len, 4));
	EXPECT_LT(0, keyid_at(self->mem));
}

TEST_F(enc, prot_is_as_in_mprotect)
{
	int status;
	pid_t pid;

	MAKE_KEY2();
	fill(self->mem, self->len, 5);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, PROT_READ, self->key));
	EXPECT_TRUE(filled(self->mem, self->len, 5));
	pid = fork();
	if (!pid) {
		*(volatile char *)self->mem = 1;
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);

	/* mprotect() keeps the key, and PROT_NONE does not lose anything. */
	ASSERT_EQ(0, mprotect(self->mem, self->len, PROT_NONE));
	EXPECT_EQ(self->keyid, keyid_at(self->mem));
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, PROT_NONE, self->key2));
	ASSERT_EQ(0, mprotect(self->mem, self->len, RW));
	EXPECT_EQ(self->keyid2, keyid_at(self->mem));
	EXPECT_TRUE(filled(self->mem, self->len, 5));
	fill(self->mem, self->len, 6);
	EXPECT_TRUE(filled(self->mem, self->len, 6));
}

/* The second half may not be executable: the first one stays as it is. */
TEST_F(enc, prot_that_is_not_allowed)
{
	size_t half = self->len / 2;

	ASSERT_EQ(0, mprotect(self->mem, half, RW | PROT_EXEC));
	fill(self->mem, self->len, 7);
	if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0))
		SKIP(return, "no PR_SET_MDWE");
	EXPECT_ERR(EACCES, encrypt_mprotect(self->mem, self->len,
					    PROT_READ | PROT_EXEC, self->key));
	EXPECT_EQ(0, keyid_at(self->mem));
	EXPECT_EQ(0, keyid_at(self->mem + half));
	fill(self->mem, self->len, 8);
	EXPECT_TRUE(filled(self->mem, self->len, 8));
}

TEST_F(enc, fork_inherits_memory)
{
	int status;
	pid_t pid;

	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len / 2, 7);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* Read shared, write copied, fault anew: all by the same KeyID. */
		if (keyid_at(self->mem) != self->keyid)
			_exit(1);
		if (!filled(self->mem, self->len / 2, 7))
			_exit(2);
		fill(self->mem, self->len, 8);
		if (!filled(self->mem, self->len, 8))
			_exit(3);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(filled(self->mem, self->len / 2, 7));
	EXPECT_TRUE(zero(self->mem + self->len / 2, self->len / 2));
	fill(self->mem, self->len, 9);
	EXPECT_TRUE(filled(self->mem, self->len, 9));
}

TEST_F(enc, rekey_of_shared_pages_leaves_the_other_side)
{
	int status, go[2];
	char c = 0;
	pid_t pid;

	MAKE_KEY2();
	ASSERT_EQ(0, pipe(go));
	fill(self->mem, self->len, 10);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (read(go[0], &c, 1) != 1)
			_exit(1);
		if (keyid_at(self->mem) != self->keyid)
			_exit(2);
		_exit(filled(self->mem, self->len, 10) ? 0 : 3);
	}
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key2));
	EXPECT_TRUE(filled(self->mem, self->len, 10));
	fill(self->mem, self->len, 11);
	ASSERT_EQ(1, write(go[1], &c, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(filled(self->mem, self->len, 11));
	EXPECT_EQ(self->keyid2, keyid_at(self->mem));
}

TEST_F(enc, split_and_merge)
{
	unsigned long start, end, m = (unsigned long)self->mem;

	MAKE_KEY2();
	fill(self->mem, self->len, 12);
	/* The middle: three VMAs. */
	ASSERT_EQ(0, encrypt_mprotect(self->mem + 4 * self->page, 4 * self->page,
				      RW, self->key));
	EXPECT_EQ(0, vma_keyid(self->mem, &start, &end));
	EXPECT_EQ(m + 4 * self->page, end);
	EXPECT_EQ(self->keyid, vma_keyid(self->mem + 4 * self->page, &start, &end));
	EXPECT_EQ(m + 4 * self->page, start);
	EXPECT_EQ(m + 8 * self->page, end);
	EXPECT_EQ(0, keyid_at(self->mem + 8 * self->page));
	EXPECT_TRUE(filled(self->mem, self->len, 12));

	/* Another key right behind: no merge.  The same: merged. */
	ASSERT_EQ(0, encrypt_mprotect(self->mem + 8 * self->page, self->page,
				      RW, self->key2));
	EXPECT_EQ(self->keyid2, vma_keyid(self->mem + 8 * self->page, &start, &end));
	EXPECT_EQ(m + 8 * self->page, start);
	EXPECT_EQ(m + 9 * self->page, end);
	ASSERT_EQ(0, encrypt_mprotect(self->mem + 8 * self->page, self->page,
				      RW, self->key));
	EXPECT_EQ(self->keyid, vma_keyid(self->mem + 8 * self->page, &start, &end));
	EXPECT_EQ(m + 4 * self->page, start);
	EXPECT_EQ(m + 9 * self->page, end);

	/* All of it, over three VMAs. */
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key2));
	EXPECT_EQ(self->keyid2, vma_keyid(self->mem, &start, &end));
	EXPECT_EQ(m, start);
	EXPECT_EQ(m + self->len, end);
	EXPECT_TRUE(filled(self->mem, self->len, 12));

	/* munmap() of the middle splits, too. */
	ASSERT_EQ(0, munmap(self->mem + 4 * self->page, self->page));
	EXPECT_EQ(self->keyid2, keyid_at(self->mem));
	EXPECT_EQ(self->keyid2, keyid_at(self->mem + 5 * self->page));

	/* New memory next to it does not merge with it. */
	ASSERT_EQ(self->mem + 4 * self->page,
		  mmap(self->mem + 4 * self->page, self->page, RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, keyid_at(self->mem + 4 * self->page));
}

TEST_F(enc, mremap_keeps_key_and_contents)
{
	char *to, *mem;

	fill(self->mem, self->len, 13);
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	to = map_anon(4 * self->len);
	ASSERT_NE(MAP_FAILED, to);
	/* Move, grow. */
	mem = mremap(self->mem, self->len, 2 * self->len,
		     MREMAP_MAYMOVE | MREMAP_FIXED, to);
	ASSERT_EQ(to, mem);
	EXPECT_EQ(self->keyid, keyid_at(mem));
	EXPECT_EQ(self->keyid, keyid_at(mem + 2 * self->len - 1));
	EXPECT_TRUE(filled(mem, self->len, 13));
	EXPECT_TRUE(zero(mem + self->len, self->len));
	/* Shrink, and go on with part of it elsewhere. */
	ASSERT_EQ(mem, mremap(mem, 2 * self->len, self->page, 0));
	EXPECT_EQ(self->keyid, keyid_at(mem));
	ASSERT_EQ(0, encrypt_mprotect(mem, self->page, RW, 0));
	EXPECT_EQ(0, keyid_at(mem));
}

TEST_F(enc, dontneed_gives_new_zeroes)
{
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len, 14);
	ASSERT_EQ(0, madvise(self->mem, self->len, MADV_DONTNEED));
	EXPECT_TRUE(zero(self->mem, self->len));
	EXPECT_EQ(self->keyid, keyid_at(self->mem));
}

/* glibc before 2.40 passes no address with MREMAP_DONTUNMAP. */
static void *remap_keeping(void *mem, size_t len)
{
	return (void *)syscall(__NR_mremap, mem, len, len,
			       MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
}

/* Such memory can't be swapped out, and counts as if it were mlock()ed. */
TEST_F(enc, counts_as_locked)
{
	long kb = self->len / 1024, page_kb = self->page / 1024;
	struct rlimit limit = { self->len, self->len };
	int status;
	pid_t pid;
	char *mem;

	SKIP_UNLESS_ROOT();
	MAKE_KEY2();
	ASSERT_EQ(0, locked_kb());
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	EXPECT_EQ(kb, locked_kb());
	/* Not twice, be it by another key or by mlock() itself. */
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len / 2, RW, self->key2));
	EXPECT_EQ(kb, locked_kb());
	ASSERT_EQ(0, mlock(self->mem, self->len));
	EXPECT_EQ(kb, locked_kb());
	ASSERT_EQ(0, munlock(self->mem, self->len));
	EXPECT_EQ(kb, locked_kb());

	/* Whatever becomes of the VMA. */
	ASSERT_EQ(0, munmap(self->mem + self->len - self->page, self->page));
	EXPECT_EQ(kb - page_kb, locked_kb());
	mem = mremap(self->mem, self->page, 3 * self->page, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(kb + page_kb, locked_kb());
	ASSERT_EQ(0, munmap(mem, 3 * self->page));
	EXPECT_EQ(kb - 2 * page_kb, locked_kb());
	mem = remap_keeping(self->mem + self->page, self->page);
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(kb - page_kb, locked_kb());
	ASSERT_EQ(0, munmap(mem, self->page));

	pid = fork();
	if (!pid)
		_exit(locked_kb() == kb - 2 * page_kb ? 0 : 1);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);

	ASSERT_EQ(0, encrypt_mprotect(self->mem + self->page,
				      self->len - 2 * self->page, RW, 0));
	EXPECT_EQ(0, locked_kb());

	/* The limit binds those without CAP_IPC_LOCK. */
	ASSERT_EQ(0, keyctl(KEYCTL_SETPERM, self->key,
			    KEY_POS_ALL | KEY_OTH_SEARCH, 0, 0));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	pid = fork();
	if (!pid) {
		if (setresuid(65534, 65534, 65534))
			_exit(1);
		mem = map_anon(self->len + self->page);
		if (!encrypt_mprotect(mem, self->len + self->page, RW, self->key) ||
		    errno != ENOMEM || keyid_at(mem))
			_exit(2);
		if (encrypt_mprotect(mem, self->len, RW, self->key))
			_exit(3);
		if (remap_keeping(mem, self->page) != MAP_FAILED || errno != EAGAIN)
			_exit(4);
		limit.rlim_cur = 0;
		setrlimit(RLIMIT_MEMLOCK, &limit);
		mem = map_anon(self->page);
		if (!encrypt_mprotect(mem, self->page, RW, self->key) ||
		    errno != EPERM)
			_exit(5);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(enc, revoked_key_keeps_its_memory)
{
	ASSERT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, self->key));
	fill(self->mem, self->len / 2, 15);
	ASSERT_EQ(0, revoke_key(self->key));
	EXPECT_TRUE(filled(self->mem, self->len / 2, 15));
	/* The mapping goes on as it was. */
	fill(self->mem, self->len, 16);
	EXPECT_TRUE(filled(self->mem, self->len, 16));
	EXPECT_EQ(self->keyid, keyid_at(self->mem));
	EXPECT_ERR(EKEYREVOKED, encrypt_mprotect(self->mem, self->len, RW, self->key));
	/* Away from it one always can. */
	EXPECT_EQ(0, encrypt_mprotect(self->mem, self->len, RW, 0));
	EXPECT_TRUE(filled(self->mem, self->len, 16));
}

TEST_HARNESS_MAIN
