// SPDX-License-Identifier: GPL-2.0
/*
 * mm_change huge|hugetlb|mixed|undo...: memory that changes its key or is copied, with
 * all that it is made of, looked at in DRAM.
 */
#include <pthread.h>
#include <sys/uio.h>
#include <time.h>
#include "mm.h"

#define SIZES	"/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled"

static void huge(void)
{
	char *p = map_huge(HUGE), *q;

	madvise(p, HUGE, MADV_HUGEPAGE);
	put_under(p, HUGE, A);
	fill(p, HUGE, 1);
	result(vma_field(p, "AnonHugePages:") == 2048, "a huge page");
	check("fault", p, HUGE, 1, A);
	in_child("copied by the child",
		 fill(p, HUGE, 9000);
		 check("copied by the child", p, HUGE, 9000, A));
	fill(p, HUGE, 2000);
	check("the parent's", p, HUGE, 2000, A);

	q = map_huge(HUGE);
	q = mremap(p, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, q);
	result(vma_field(q, "AnonHugePages:") == 2048, "it moves as a whole");
	check("moved", q, HUGE, 2000, A);
	munmap(q, PAGE);
	write_to("/sys/kernel/debug/split_huge_pages", "1");
	check("split", q + PAGE, HUGE - PAGE, 2001, A);
	munmap(q + PAGE, HUGE - PAGE);
}

static void hugetlb(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
	char *p;

	write_to("/proc/sys/vm/nr_hugepages", "8");
	p = mmap(NULL, 2 * HUGE, RW, flags, -1, 0);
	if (p == MAP_FAILED)
		err(1, "huge pages of hugetlbfs");
	put_under(p, 2 * HUGE, A);
	fill(p, 2 * HUGE, 100);
	check("fault", p, 2 * HUGE, 100, A);
	in_child("copied by the child",
		 fill(p, HUGE, 5000);
		 check("copied by the child", p, HUGE, 5000, A);
		 check("shared with the parent", p + HUGE, HUGE, 612, A));
	fill(p, HUGE, 200);
	check("the parent's", p, HUGE, 200, A);
	put_under(p, HUGE, B);
	check("under another key", p, HUGE, 200, B);
	check("its neighbour is not", p + HUGE, HUGE, 612, A);
	put_under(p, 2 * HUGE, NONE);
	check("under none", p, HUGE, 200, NONE);
	check("under none", p + HUGE, HUGE, 612, NONE);
	put_under(p, 2 * HUGE, A);
	fill(p, 2 * HUGE, 7000);
	munmap(p, 2 * HUGE);
	p = mmap(NULL, 8 * HUGE, RW, flags, -1, 0);
	result(p != MAP_FAILED && zeroed(p, 8 * HUGE), "the pool has all of them, with nothing in them");
	munmap(p, 8 * HUGE);
	write_to("/proc/sys/vm/nr_hugepages", "0");
}

/*
 * Three page tables with small pages, folios of 64K, one that has a part elsewhere, a
 * hole, the zero page, pages shared with a child, pages without access; a pin.
 */
static void mixed(void)
{
	const size_t len = 3 * HUGE;
	char *p = map_huge(len), c = 0;
	struct iovec v = { p + len - PAGE, PAGE };
	static char page[PAGE];
	int go[2], held[2], status;
	pid_t child;

	if (pipe(go) || pipe(held))
		err(1, "pipe");
	madvise(p, len, MADV_NOHUGEPAGE);
	write_to(SIZES, "always");
	madvise(p + HUGE, HUGE, MADV_HUGEPAGE);
	fill(p, len, 1);
	write_to(SIZES, "never");
	madvise(p + HUGE + PAGE, PAGE, MADV_DONTNEED);
	put_page(p + HUGE + PAGE, 1 + 513);
	madvise(p + 10 * PAGE, 10 * PAGE, MADV_DONTNEED);
	*(volatile char *)(p + 12 * PAGE);
	fflush(stdout);
	child = fork();
	if (!child) {
		bool good = read(go[0], &c, 1) == 1 && filled(p, 10 * PAGE, 1) &&
			    zeroed(p + 10 * PAGE, 10 * PAGE) &&
			    filled(p + 20 * PAGE, len - 20 * PAGE, 21);

		fflush(stdout);
		_exit(!good);
	}
	fill(p + 30 * PAGE, 5 * PAGE, 31);
	mprotect(p + 100 * PAGE, 3 * PAGE, PROT_NONE);

	put_page(p + len - PAGE, len / PAGE);
	if (vmsplice(held[1], &v, 1, 0) != PAGE)
		err(1, "vmsplice");
	fails("the last page is pinned: EBUSY", EBUSY, encrypt_mprotect(p, len, PROT_READ, serial[A]));
	result(!vma_keyid(p) && !vma_keyid(p + len - PAGE), "nothing is under the key");
	fill(p + 20 * PAGE, PAGE, 21);
	check("as before", p + 20 * PAGE, 80 * PAGE, 21, NONE);
	if (read(held[0], page, PAGE) != PAGE)
		err(1, "read");

	put_under(p, len, A);
	check("before the hole", p, 10 * PAGE, 1, A);
	check("after it", p + 20 * PAGE, len - 20 * PAGE, 21, A);
	result(zeroed(p + 10 * PAGE, 10 * PAGE), "the hole");
	fill(p + 10 * PAGE, 10 * PAGE, 11);
	check("the hole, filled", p + 10 * PAGE, 10 * PAGE, 11, A);
	put_under(p + HUGE - 3 * PAGE, HUGE + 6 * PAGE, B);
	check("the middle under another key", p + HUGE - 3 * PAGE, HUGE + 6 * PAGE, 510, B);
	check("what is before it", p, HUGE - 3 * PAGE, 1, A);
	check("what is after it", p + 2 * HUGE + 3 * PAGE, HUGE - 3 * PAGE, 1028, A);
	result(write(go[1], "", 1) == 1 && waitpid(child, &status, 0) == child && !status,
	       "the child has what it had");
	put_under(p, len, NONE);
	check("under none", p, len, 1, NONE);
	munmap(p, len);
}

static char *range;
static size_t range_len;
static volatile int turn, pinned, leave;

/* At each turn: wait up to 3 ms, then pin a page for half a second */
static void *pinner(void *arg)
{
	static char page[PAGE];
	unsigned int seed = 1;
	int held[2], seen = 0;

	if (pipe(held))
		err(1, "pipe");
	while (!leave) {
		struct iovec v;
		struct timespec t;
		long long until;

		if (turn == seen)
			continue;
		seen = turn;
		clock_gettime(CLOCK_MONOTONIC, &t);
		until = t.tv_sec * 1000000000ll + t.tv_nsec + rand_r(&seed) % 3000000;
		do
			clock_gettime(CLOCK_MONOTONIC, &t);
		while (t.tv_sec * 1000000000ll + t.tv_nsec < until);
		v.iov_base = range + rand_r(&seed) % (range_len / PAGE) * PAGE;
		v.iov_len = PAGE;
		if (vmsplice(held[1], &v, 1, SPLICE_F_NONBLOCK) == PAGE) {
			usleep(500000);
			if (read(held[0], page, PAGE) != PAGE)
				err(1, "read");
		}
		pinned = seen;
	}
	return NULL;
}

static bool executable(void *p)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start, end, a = (unsigned long)p;
	char line[512], prot[8];
	bool x = false;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %7s", &start, &end, prot) == 3 && a >= start && a < end)
			x = prot[2] == 'x';
	if (f)
		fclose(f);
	return x;
}

/*
 * A pin that comes while pages are encrypted: what was done is undone.  That it failed
 * in the middle is told by the protection, which had been changed by then.
 */
static void undo(void)
{
	const size_t part = 2 * HUGE;
	int other = new_key();
	int undone = 0, wrong = 0, tries;
	pthread_t thread;

	range_len = 3 * part;
	range = map_huge(range_len);
	madvise(range, HUGE, MADV_NOHUGEPAGE);
	write_to(SIZES, "always");
	madvise(range + part + HUGE, HUGE, MADV_HUGEPAGE);
	put_under(range, part, A);
	put_under(range + part, part, B);
	fill(range, range_len, 1);
	write_to(SIZES, "never");
	pthread_create(&thread, NULL, pinner, NULL);

	for (tries = 1; tries <= 60 && undone < 5; tries++) {
		turn = tries;
		if (!encrypt_mprotect(range, range_len, RW | PROT_EXEC, other)) {
			wrong += !filled(range, range_len, 1);
			/* Back, when no page is pinned */
			while (pinned != tries)
				usleep(10000);
			put_under(range, part, A);
			put_under(range + part, part, B);
			put_under(range + 2 * part, part, NONE);
			continue;
		}
		wrong += errno != EBUSY;
		undone += executable(range);
		wrong += vma_keyid(range) != keyid[A] || vma_keyid(range + part) != keyid[B] ||
			 vma_keyid(range + 2 * part) || !filled(range, range_len, 1);
		mprotect(range, range_len, RW);
		while (pinned != tries)
			usleep(10000);
	}
	leave = 1;
	pthread_join(thread, NULL);
	printf("# %d of %d calls were undone\n", undone, tries - 1);
	result(undone >= 5, "calls that fail in the middle");
	result(!wrong, "nothing is wrong after any");
	check("undone", range, part, 1, A);
	check("undone", range + part, part, 1 + part / PAGE, B);
	check("undone", range + 2 * part, part, 1 + 2 * part / PAGE, NONE);
	munmap(range, range_len);
	unlink_key(other);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} parts[] = { { "huge", huge }, { "hugetlb", hugetlb }, { "mixed", mixed }, { "undo", undo } };

	for (int i = 1; i < argc; i++)
		for (size_t j = 0; j < sizeof(parts) / sizeof(parts[0]); j++)
			if (!strcmp(argv[i], parts[j].name))
				parts[j].run();
	return 0;
}
