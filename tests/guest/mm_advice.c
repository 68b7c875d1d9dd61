// SPDX-License-Identifier: GPL-2.0
/*
 * mm_advice WHAT...: calls that change what memory under a key is: advice, KSM,
 * userfaultfd, locks, seals, huge pages of all sizes.
 */
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#include "mm.h"

#define LEN	(16 * PAGE)
#define THP	"/sys/kernel/mm/transparent_hugepage/"
#define KSM	"/sys/kernel/mm/ksm/"

#ifndef __NR_mseal
#define __NR_mseal 462
#endif
#ifndef UFFDIO_MOVE
struct uffdio_move {
	uint64_t dst, src, len, mode;
	int64_t move;
};
#define UFFDIO_MOVE	_IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#define FEATURE_MOVE	(1 << 16)

/* What each advice does to memory under a key, as documented */
static void advice(void)
{
	enum { KEPT, ZEROED, REFUSED };
	static const struct {
		const char *name;
		int advice, does;
	} table[] = {
		{ "NORMAL", MADV_NORMAL, KEPT },
		{ "RANDOM", MADV_RANDOM, KEPT },
		{ "SEQUENTIAL", MADV_SEQUENTIAL, KEPT },
		{ "WILLNEED", MADV_WILLNEED, KEPT },
		{ "DONTNEED", MADV_DONTNEED, ZEROED },
		{ "DONTNEED_LOCKED", 24, ZEROED },
		{ "FREE", MADV_FREE, KEPT },
		{ "REMOVE", MADV_REMOVE, REFUSED },
		{ "DONTFORK", MADV_DONTFORK, KEPT },
		{ "DOFORK", MADV_DOFORK, KEPT },
		{ "MERGEABLE", MADV_MERGEABLE, KEPT },
		{ "UNMERGEABLE", MADV_UNMERGEABLE, KEPT },
		{ "HUGEPAGE", MADV_HUGEPAGE, KEPT },
		{ "NOHUGEPAGE", MADV_NOHUGEPAGE, KEPT },
		{ "DONTDUMP", MADV_DONTDUMP, KEPT },
		{ "DODUMP", MADV_DODUMP, KEPT },
		{ "COLD", MADV_COLD, KEPT },
		{ "PAGEOUT", MADV_PAGEOUT, KEPT },
		{ "POPULATE_READ", 22, KEPT },
		{ "POPULATE_WRITE", 23, KEPT },
		{ "WIPEONFORK", MADV_WIPEONFORK, KEPT },
		{ "KEEPONFORK", MADV_KEEPONFORK, KEPT },
	};
	char *p = map_under(LEN, A), what[64];

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		int r;

		snprintf(what, sizeof(what), "MADV_%s", table[i].name);
		fill(p, LEN, 10 * i);
		errno = 0;
		r = madvise(p, LEN, table[i].advice);
		if (table[i].does == REFUSED ? r != -1 || errno != EINVAL : r)
			printf("# %s: %d, %s\n", what, r, strerror(errno));
		result(table[i].does == REFUSED ? r == -1 && errno == EINVAL : !r,
		       "%s: is %s", what, table[i].does == REFUSED ? "refused" : "taken");
		if (table[i].does == ZEROED) {
			result(zeroed(p, LEN), "%s: reads as zero", what);
			fill(p, LEN, 10 * i);
		}
		check(what, p, LEN, 10 * i, A);
	}

	madvise(p, LEN, MADV_WIPEONFORK);
	in_child("MADV_WIPEONFORK: in the child, zero under the same key",
		 if (!zeroed(p, LEN) || vma_keyid(p) != keyid[A]) _exit(1);
		 fill(p, LEN, 5000);
		 check("MADV_WIPEONFORK, child", p, LEN, 5000, A));
	madvise(p, LEN, MADV_KEEPONFORK);
	munmap(p, LEN);

	/* By another process */
	p = map_huge(HUGE);
	put_under(p, HUGE, A);
	fill(p, HUGE, 6000);
	/* Shared with the children, it would be read-only, and not be collapsed. */
	madvise(p, HUGE, MADV_DONTFORK);
	static const struct {
		const char *name;
		int advice;
	} remote[] = {
		{ "COLD", MADV_COLD }, { "PAGEOUT", MADV_PAGEOUT },
		{ "WILLNEED", MADV_WILLNEED }, { "COLLAPSE", MADV_COLLAPSE },
	};
	pid_t parent = getpid();
	for (size_t i = 0; i < 4; i++) {
		snprintf(what, sizeof(what), "process_madvise, MADV_%s", remote[i].name);
		in_child(what,
			 struct { void *p; size_t len; } iov = { p, HUGE };
			 int fd = syscall(434 /* pidfd_open */, parent, 0);
			 if (syscall(440, fd, &iov, 1L, remote[i].advice, 0) != (long)HUGE)
				_exit(errno));
		check(what, p, HUGE, 6000, A);
	}
	munmap(p, HUGE);
}

static void locks(void)
{
	char *p = map_under(LEN, A), *q;

	fill(p, LEN / 2, 1);
	works("mlock2(MLOCK_ONFAULT)", mlock2(p, LEN, 1));
	fill(p + LEN / 2, LEN / 2, 1 + LEN / PAGE / 2);
	check("mlock2", p, LEN, 1, A);
	put_under(p, LEN, B);
	check("mlock2, another key", p, LEN, 1, B);
	works("munlock", munlock(p, LEN));
	check("munlock", p, LEN, 1, B);
	put_under(p, LEN, NONE);
	check("no key", p, LEN, 1, NONE);
	put_under(p, LEN, A);
	works("mlockall", mlockall(MCL_CURRENT));
	works("munlockall", munlockall());

	q = (char *)syscall(__NR_mremap, p, LEN, LEN, MREMAP_MAYMOVE | 4 /* DONTUNMAP */, 0L);
	result(q != MAP_FAILED, "mremap(MREMAP_DONTUNMAP)");
	check("mremap(MREMAP_DONTUNMAP): the new", q, LEN, 1, A);
	result(zeroed(p, LEN), "mremap(MREMAP_DONTUNMAP): the old reads as zero");
	fill(p, LEN, 50);
	check("mremap(MREMAP_DONTUNMAP): the old, written", p, LEN, 50, A);
	munmap(p, LEN);

	/* Huge pages that end up where none can be */
	p = map_huge(HUGE);
	madvise(p, HUGE, MADV_HUGEPAGE);
	put_under(p, HUGE, A);
	fill(p, HUGE, 60);
	munmap(q, LEN);
	q = map_huge(2 * HUGE);
	q = mremap(p, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, q + PAGE);
	check("mremap of a huge page, unaligned", q, HUGE, 60, A);
	munmap(q, HUGE);

	p = map_under(LEN, A);
	fill(p, LEN, 70);
	if (syscall(__NR_mseal, p, LEN, 0)) {
		result(false, "mseal");
		return;
	}
	fails("sealed: another key", EPERM, encrypt_mprotect(p, LEN, RW, serial[B]));
	fails("sealed: no key", EPERM, encrypt_mprotect(p, LEN, RW, 0));
	fails("sealed: part of it", EPERM, encrypt_mprotect(p + PAGE, PAGE, RW, serial[B]));
	fails("sealed: munmap", EPERM, munmap(p, LEN));
	check("sealed", p, LEN, 70, A);
}

static void ksm(void)
{
	char *plain[2], *under[2], *other = map_under(LEN, B), *zero = map_under(LEN, A);
	long scans;
	int i;

	for (i = 0; i < 2; i++) {
		plain[i] = map(LEN);
		under[i] = map(LEN);
		fill(plain[i], LEN, 800);
		fill(under[i], LEN, 800);
		madvise(plain[i], LEN, MADV_MERGEABLE);
		/* The advice before the key, and after it */
		if (i)
			madvise(under[i], LEN, MADV_MERGEABLE);
		put_under(under[i], LEN, A);
		if (!i)
			madvise(under[i], LEN, MADV_MERGEABLE);
	}
	fill(other, LEN, 800);
	madvise(other, LEN, MADV_MERGEABLE);
	memset(zero, 0, LEN);
	madvise(zero, LEN, MADV_MERGEABLE);
	prctl(67 /* PR_SET_MEMORY_MERGE */, 1, 0, 0, 0);
	write_to(KSM "use_zero_pages", "1");
	write_to(KSM "pages_to_scan", "50000");
	write_to(KSM "sleep_millisecs", "1");
	scans = number_in(KSM "full_scans");
	write_to(KSM "run", "1");
	for (i = 0; i < 2400 && (number_in(KSM "full_scans") < scans + 4 ||
				pfn(plain[0]) != pfn(plain[1])); i++)
		usleep(50000);
	printf("# %ld scans, %ld pages shared\n", number_in(KSM "full_scans") - scans,
	       number_in(KSM "pages_sharing"));
	result(pfn(plain[0]) == pfn(plain[1]), "KSM merges pages under no key");
	result(pfn(under[0]) != pfn(under[1]) && pfn(under[0]) != pfn(plain[0]) &&
	       pfn(other) != pfn(plain[0]) && pfn(zero) != pfn(zero + PAGE),
	       "KSM merges no page under a key");
	check("KSM, under a key", under[0], LEN, 800, A);
	check("KSM, under another", other, LEN, 800, B);

	/* A page that was merged comes under a key, and is a page of its own then. */
	put_under(plain[0], LEN, B);
	result(pfn(plain[0]) != pfn(plain[1]), "merged, then put under a key");
	check("merged, then under a key", plain[0], LEN, 800, B);
	check("the others", plain[1], LEN, 800, NONE);
	write_to(KSM "run", "2");
	prctl(67, 0, 0, 0, 0);
	check("unmerged", under[1], LEN, 800, A);
	write_to(KSM "run", "0");
	for (i = 0; i < 2; i++) {
		munmap(plain[i], LEN);
		munmap(under[i], LEN);
	}
	munmap(other, LEN);
	munmap(zero, LEN);
}

static int uffd_on(void *p, size_t len, uint64_t mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features =
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | FEATURE_MOVE |
		UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS };
	struct uffdio_register reg = { { (uintptr_t)p, len }, mode };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		err(1, "userfaultfd");
	return fd;
}

static int uffd_move(int fd, void *dst, void *src, size_t len)
{
	struct uffdio_move move = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = len };

	return ioctl(fd, UFFDIO_MOVE, &move);
}

static void *write_one(void *p)
{
	*(volatile char *)(p + PAGE - 1) ^= 0xff;
	return NULL;
}

static void userfault(void)
{
	char *p = map_under(LEN, A), *src = map(LEN), *from = map_under(LEN, B);
	int fd = uffd_on(p, LEN, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
	struct uffdio_copy copy = { .dst = (uintptr_t)p, .src = (uintptr_t)src,
				    .len = 2 * PAGE };
	struct uffdio_zeropage zero = { { (uintptr_t)p + 4 * PAGE, PAGE } };
	struct uffdio_writeprotect wp = { { (uintptr_t)p, PAGE },
					  UFFDIO_WRITEPROTECT_MODE_WP };
	struct uffd_msg msg = { };
	pthread_t thread;

	fill(src, LEN, 900);
	fill(from, LEN, 902);
	works("UFFDIO_COPY", ioctl(fd, UFFDIO_COPY, &copy));
	check("UFFDIO_COPY", p, 2 * PAGE, 900, A);
	/* The source is not mapped where the copy is tried first. */
	copy = (struct uffdio_copy) { .dst = (uintptr_t)p + 2 * PAGE,
		.src = (uintptr_t)from, .len = 2 * PAGE };
	works("UFFDIO_COPY from memory under another key", ioctl(fd, UFFDIO_COPY, &copy));
	check("UFFDIO_COPY from memory under another key", p + 2 * PAGE, 2 * PAGE, 902, A);
	works("UFFDIO_ZEROPAGE", ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	result(zeroed(p + 4 * PAGE, PAGE), "UFFDIO_ZEROPAGE reads as zero");
	put_page(p + 4 * PAGE, 904);
	check("UFFDIO_ZEROPAGE, then written", p + 4 * PAGE, PAGE, 904, A);

	works("UFFDIO_WRITEPROTECT", ioctl(fd, UFFDIO_WRITEPROTECT, &wp));
	pthread_create(&thread, NULL, write_one, p);
	result(read(fd, &msg, sizeof(msg)) == sizeof(msg) &&
	       msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP, "the write is seen");
	wp.mode = 0;
	ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	pthread_join(thread, NULL);
	write_one(p);
	check("UFFDIO_WRITEPROTECT", p, PAGE, 900, A);
	wp.mode = UFFDIO_WRITEPROTECT_MODE_WP;
	ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	put_under(p, PAGE, B);
	wp.mode = 0;
	result(!!(pagemap(p) >> 57 & 1), "another key keeps the write protection");
	ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	check("write-protected, then under another key", p, PAGE, 900, B);
	put_under(p, PAGE, A);

	/* Move, within a key and across */
	munmap(from, LEN);
	from = map_under(LEN, A);
	fill(from, LEN, 950);
	works("UFFDIO_MOVE within a key", uffd_move(fd, p + 8 * PAGE, from, 2 * PAGE));
	check("UFFDIO_MOVE within a key", p + 8 * PAGE, 2 * PAGE, 950, A);
	put_under(from + 4 * PAGE, 2 * PAGE, B);
	fails("UFFDIO_MOVE from another key", EINVAL,
	      uffd_move(fd, p + 12 * PAGE, from + 4 * PAGE, PAGE));
	check("what was not moved", from + 4 * PAGE, 2 * PAGE, 954, B);
	fails("UFFDIO_MOVE from memory under no key", EINVAL,
	      uffd_move(fd, p + 12 * PAGE, src, PAGE));
	close(fd);
	munmap(p, LEN);
	munmap(from, LEN);
	munmap(src, LEN);

	/* Huge: as a whole, and in part */
	p = map_huge(HUGE);
	put_under(p, HUGE, A);
	from = map_huge(HUGE);
	madvise(from, HUGE, MADV_HUGEPAGE);
	put_under(from, HUGE, A);
	fill(from, HUGE, 1000);
	fd = uffd_on(p, HUGE, UFFDIO_REGISTER_MODE_MISSING);
	works("UFFDIO_MOVE of a huge page", uffd_move(fd, p, from, HUGE));
	check("UFFDIO_MOVE of a huge page", p, HUGE, 1000, A);
	madvise(p, HUGE, MADV_DONTNEED);
	put_under(from, HUGE, B);
	madvise(from, HUGE, MADV_HUGEPAGE);
	fill(from, HUGE, 1000);
	fails("UFFDIO_MOVE of a huge page from another key", EINVAL, uffd_move(fd, p, from, HUGE));
	check("the huge page that was not moved", from, HUGE, 1000, B);
	close(fd);
	munmap(p, HUGE);
	munmap(from, HUGE);
}

/* A write by another thread is seen, goes on, and is taken back */
static void write_protected(const char *what, int fd, char *p)
{
	struct uffdio_writeprotect wp = { { (uintptr_t)p, HUGE }, 0 };
	struct pollfd poll_fd = { fd, POLLIN };
	struct uffd_msg msg = { };
	pthread_t thread;

	pthread_create(&thread, NULL, write_one, p);
	result(poll(&poll_fd, 1, 10000) == 1 && read(fd, &msg, sizeof(msg)) == sizeof(msg) &&
	       msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP, "%s: the write is seen", what);
	ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	pthread_join(thread, NULL);
	write_one(p);
}

static void userfault_hugetlb(void)
{
	struct uffdio_writeprotect wp = { { 0, HUGE }, UFFDIO_WRITEPROTECT_MODE_WP };
	struct uffdio_continue cont = { { 0, HUGE }, 0, 0 };
	char *p, *shared;
	int fd, file;

	write_to("/proc/sys/vm/nr_hugepages", "6");
	p = mmap(NULL, HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (p == MAP_FAILED)
		err(1, "huge pages of hugetlbfs");
	put_under(p, HUGE, A);
	fill(p, HUGE, 1);
	fd = uffd_on(p, HUGE, UFFDIO_REGISTER_MODE_WP);
	wp.range.start = (uintptr_t)p;
	works("hugetlb: UFFDIO_WRITEPROTECT", ioctl(fd, UFFDIO_WRITEPROTECT, &wp));
	write_protected("hugetlb", fd, p);
	check("hugetlb, written", p, HUGE, 1, A);
	ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	put_under(p, HUGE, B);
	write_protected("hugetlb, write-protected, then under another key", fd, p);
	check("hugetlb, likewise", p, HUGE, 1, B);
	close(fd);
	munmap(p, HUGE);

	/* The file's page is under no key, and can't be mapped where one is. */
	file = memfd_create("huge", MFD_HUGETLB);
	if (ftruncate(file, HUGE))
		err(1, "ftruncate");
	shared = mmap(NULL, HUGE, RW, MAP_SHARED, file, 0);
	p = mmap(NULL, HUGE, RW, MAP_PRIVATE, file, 0);
	if (shared == MAP_FAILED || p == MAP_FAILED)
		err(1, "huge pages of a memfd");
	fill(shared, HUGE, 3000);
	put_under(p, HUGE, A);
	fd = uffd_on(p, HUGE, UFFDIO_REGISTER_MODE_MINOR);
	cont.range.start = (uintptr_t)p;
	fails("hugetlb: UFFDIO_CONTINUE", EINVAL, ioctl(fd, UFFDIO_CONTINUE, &cont));
	close(fd);
	check("the file's page, copied", p, HUGE, 3000, A);
	check("the file's page", shared, HUGE, 3000, NONE);
	munmap(p, HUGE);
	munmap(shared, HUGE);
	close(file);
	write_to("/proc/sys/vm/nr_hugepages", "0");
}

static bool wait_huge(void *p, long kb)
{
	for (int i = 0; i < 2400 && vma_field(p, "AnonHugePages:") < kb; i++)
		usleep(50000);
	return vma_field(p, "AnonHugePages:") >= kb;
}

static void collapse(void)
{
	char *p = map_huge(4 * HUGE), *q;
	int gone[2];

	/* Small pages, holes, the zero page; next to it another key, in the same 2M */
	madvise(p, 4 * HUGE, MADV_NOHUGEPAGE);
	put_under(p, HUGE + HUGE / 2, A);
	put_under(p + HUGE + HUGE / 2, HUGE / 2 + HUGE, B);
	fill(p, 4 * HUGE, 2000);
	works("MADV_COLLAPSE", madvise(p, HUGE, MADV_NOHUGEPAGE) ||
	      madvise(p, 4 * HUGE, MADV_HUGEPAGE) || madvise(p, HUGE, MADV_COLLAPSE));
	result(vma_field(p, "AnonHugePages:") == 2048, "MADV_COLLAPSE makes a huge page");
	check("MADV_COLLAPSE", p, HUGE, 2000, A);
	madvise(p + HUGE, HUGE, MADV_COLLAPSE);
	check("not collapsed, one key", p + HUGE, HUGE / 2, 2000 + 512, A);
	check("not collapsed, other key", p + HUGE + HUGE / 2, HUGE / 2, 2000 + 768, B);

	write_to(THP "khugepaged/scan_sleep_millisecs", "1");
	write_to(THP "khugepaged/alloc_sleep_millisecs", "1");
	write_to(THP "khugepaged/pages_to_scan", "100000");
	result(wait_huge(p + 2 * HUGE, 2048), "khugepaged makes a huge page");
	check("khugepaged", p + 2 * HUGE, HUGE, 2000 + 1024, B);
	check("khugepaged, under no key", p + 3 * HUGE, HUGE, 2000 + 1536, NONE);
	check("khugepaged, next to another key", p + HUGE + HUGE / 2, HUGE / 2, 2000 + 768, B);
	result(vma_field(p, "AnonHugePages:") == 2048, "no huge page across two keys");
	munmap(p, 4 * HUGE);

	/* Few pages: the rest of the huge page is zero. */
	p = map_huge(HUGE);
	put_under(p, HUGE, A);
	fill(p, LEN, 3000);
	result(!*(volatile char *)(p + LEN), "the zero page");
	works("MADV_COLLAPSE of few pages", madvise(p, HUGE, MADV_COLLAPSE));
	check("MADV_COLLAPSE of few pages", p, LEN, 3000, A);
	result(zeroed(p + LEN, HUGE - LEN), "and zeroes");
	munmap(p, HUGE);

	/* Shared with a child, which goes on with its own */
	q = map_huge(HUGE);
	put_under(q, HUGE, B);
	fill(q, HUGE, 3500);
	pipe(gone);
	in_child("collapsed in the child",
		 put_page(q, 3500);
		 if (madvise(q, HUGE, MADV_COLLAPSE)) _exit(1);
		 if (!filled(q, HUGE, 3500)) _exit(2);
		 check("collapsed in the child", q, HUGE, 3500, B);
		 fill(q, HUGE, 4000);
		 check("collapsed in the child, written", q, HUGE, 4000, B));
	check("its parent", q, HUGE, 3500, B);
	munmap(q, HUGE);
}

static void sizes(void)
{
	static const int kb[] = { 16, 32, 64, 128, 256, 512, 1024 };
	char path[128], what[64];
	char *p;

	for (size_t i = 0; i < sizeof(kb) / sizeof(*kb); i++) {
		long before;

		snprintf(path, sizeof(path), THP "hugepages-%dkB/enabled", kb[i]);
		if (!write_to(path, "always")) {
			result(false, "huge pages of %d kB", kb[i]);
			continue;
		}
		snprintf(path, sizeof(path), THP "hugepages-%dkB/stats/anon_fault_alloc", kb[i]);
		before = number_in(path);
		p = map_huge(HUGE);
		put_under(p, HUGE, A);
		fill(p, HUGE, 100);
		result(number_in(path) > before, "%d kB pages are used", kb[i]);
		snprintf(what, sizeof(what), "%d kB pages", kb[i]);
		check(what, p, HUGE, 100, A);
		snprintf(what, sizeof(what), "%d kB pages, copied", kb[i]);
		in_child(what, fill(p, HUGE / 2, 700);
			 check(what, p, HUGE / 2, 700, A);
			 check(what, p + HUGE / 2, HUGE / 2, 356, A));
		put_under(p + PAGE, HUGE / 2, B);
		snprintf(what, sizeof(what), "%d kB pages, part under another key", kb[i]);
		check(what, p, PAGE, 100, A);
		check(what, p + PAGE, HUGE / 2, 101, B);
		check(what, p + PAGE + HUGE / 2, HUGE / 2 - PAGE, 357, A);
		munmap(p, HUGE);
		snprintf(path, sizeof(path), THP "hugepages-%dkB/enabled", kb[i]);
		write_to(path, "never");
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} what[] = {
		{ "advice", advice },
		{ "locks", locks },
		{ "ksm", ksm },
		{ "userfault", userfault },
		{ "userfault-hugetlb", userfault_hugetlb },
		{ "collapse", collapse },
		{ "sizes", sizes },
	};

	for (int i = 1; i < argc; i++)
		for (size_t j = 0; j < sizeof(what) / sizeof(*what); j++)
			if (!strcmp(argv[i], what[j].name))
				what[j].run();
	return 0;
}
