// SPDX-License-Identifier: GPL-2.0
/*
 * mm_move WHAT...: pages under a key that move: on demand, by compaction, by NUMA
 * balancing, out of memory that goes away, away from memory that is broken.
 */
#include <linux/mempolicy.h>
#include <sched.h>
#include <setjmp.h>

#include "mm.h"

#define LEN	(16 * PAGE)

static int node_of(void *p)
{
	int status = -1;

	if (syscall(__NR_move_pages, 0, 1L, &p, NULL, &status, 0))
		err(1, "move_pages");
	return status;
}

static long bind_to(void *p, size_t len, int node, int flags)
{
	unsigned long mask = 1UL << node;

	return syscall(__NR_mbind, p, len, MPOL_BIND, &mask, 8, flags);
}

static char *on_node(size_t len, int node, int key, bool huge)
{
	char *p = map_huge(len);

	if (huge)
		madvise(p, len, MADV_HUGEPAGE);
	else
		madvise(p, len, MADV_NOHUGEPAGE);
	if (bind_to(p, len, node, 0))
		err(1, "mbind");
	put_under(p, len, key);
	fill(p, len, 1);
	if (node_of(p) != node)
		errx(1, "not on node %d", node);
	return p;
}

static void on_demand(void)
{
	unsigned long from = 2, to = 1;
	int i, nodes[16], status[16];
	void *pages[16];
	char *p;

	for (int huge = 0; huge < 2; huge++) {
		size_t len = huge ? HUGE : LEN;
		const char *size = huge ? "huge" : "small";
		char what[64];

		p = on_node(len, 0, A, huge);
		for (i = 0; i < 16; i++) {
			pages[i] = p + i * PAGE;
			nodes[i] = 1;
		}
		syscall(__NR_mbind, p, len, MPOL_DEFAULT, NULL, 0, 0);
		result(!syscall(__NR_move_pages, 0, huge ? 1L : 16L, pages, nodes,
				status, MPOL_MF_MOVE) && node_of(p) == 1,
		       "move_pages, %s", size);
		snprintf(what, sizeof(what), "after move_pages, %s", size);
		check(what, p, len, 1, A);

		result(!syscall(__NR_migrate_pages, 0, 8, &from, &to) &&
		       node_of(p) == 0, "migrate_pages, %s", size);
		snprintf(what, sizeof(what), "after migrate_pages, %s", size);
		check(what, p, len, 1, A);
		if (huge)
			result(vma_field(p, "AnonHugePages:") == 2048, "still huge");

		put_under(p, len, B);
		result(!bind_to(p, len, 1, MPOL_MF_MOVE | MPOL_MF_STRICT) &&
		       node_of(p) == 1, "mbind, %s", size);
		snprintf(what, sizeof(what), "after mbind, %s", size);
		check(what, p, len, 1, B);
		munmap(p, len);
	}
}

static void compaction(void)
{
	size_t len = 128 << 20, apart = 256 << 20, moved = 0;
	char *p = map(len), *between, *hole;
	unsigned long *where = malloc(len / PAGE * sizeof(*where));
	bool good = true;

	madvise(p, len, MADV_NOHUGEPAGE);
	put_under(p, len, A);
	/* What is at the top already stays there: have some of it further down. */
	fill(p, len / 2, 5000);
	between = mmap(NULL, apart, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		       -1, 0);
	if (between == MAP_FAILED)
		err(1, "mmap");
	fill(p + len / 2, len / 2, 5000 + len / 2 / PAGE);
	munmap(between, apart);
	/* Every other page is free. */
	for (hole = p + PAGE; hole < p + len; hole += 2 * PAGE)
		madvise(hole, PAGE, MADV_DONTNEED);
	for (size_t i = 0; i < len / PAGE; i += 2)
		where[i] = pfn(p + i * PAGE);
	bool told = write_to("/proc/sys/vm/compact_memory", "1");

	/* It passes over what others hold at the moment */
	for (int try = 0; told && !moved && try < 100; try++) {
		if (try) {
			usleep(100000);
			told = write_to("/proc/sys/vm/compact_memory", "1");
		}
		for (size_t i = 0; i < len / PAGE; i += 2)
			moved += where[i] != pfn(p + i * PAGE);
	}
	result(told, "compact_memory");
	for (size_t i = 0; i < len / PAGE; i += 2)
		good &= page_is(p + i * PAGE, 5000 + i);
	printf("# %zu of %zu pages moved\n", moved, len / PAGE / 2);
	result(moved > 0, "compaction moves pages");
	result(good, "all of them have their contents");
	for (size_t i = 0, n = 0; i < len / PAGE && n < 4; i += 2) {
		if (where[i] != pfn(p + i * PAGE)) {
			check("a page that compaction moved", p + i * PAGE, PAGE, 5000 + i, A);
			n++;
		}
	}
	free(where);
	munmap(p, len);
}

static void balancing(void)
{
	char *p = on_node(LEN, 0, A, false), *q = on_node(HUGE, 0, B, true);
	cpu_set_t set;
	int i;

	CPU_ZERO(&set);
	CPU_SET(1, &set);
	sched_setaffinity(0, sizeof(set), &set);
	syscall(__NR_mbind, p, LEN, MPOL_DEFAULT, NULL, 0, 0);
	syscall(__NR_mbind, q, HUGE, MPOL_DEFAULT, NULL, 0, 0);
	write_to("/sys/kernel/debug/sched/numa_balancing/scan_delay_ms", "1");
	write_to("/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms", "10");
	write_to("/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", "100");
	write_to("/proc/sys/kernel/numa_balancing", "1");
	for (i = 0; i < 20000 && (node_of(p) != 1 || node_of(q) != 1); i++)
		for (int j = 0; j < 2000; j++)
			for (size_t k = 0; k < LEN; k += PAGE)
				*(volatile char *)(p + k), *(volatile char *)(q + k);
	write_to("/proc/sys/kernel/numa_balancing", "0");
	result(node_of(p) == 1, "NUMA balancing moves a small page");
	result(node_of(q) == 1, "NUMA balancing moves a huge page");
	check("after NUMA balancing", p, LEN, 1, A);
	check("after NUMA balancing, huge", q, HUGE, 1, B);
	munmap(p, LEN);
	munmap(q, HUGE);
}

static bool set_blocks(unsigned long first, unsigned long n, const char *state)
{
	bool good = true;
	char path[80];

	for (unsigned long i = first; i < first + n; i++) {
		snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%lu/state", i);
		good &= write_to(path, "%s", state);
	}
	return good;
}

/* Memory that is plugged in, has pages under keys, and is pulled out again */
static void hotplug(void)
{
	unsigned long block, first = 0, n = 0, in = 0, start, end;
	char *p, *huge, *kept, path[80];
	size_t len = 32 << 20;
	FILE *f = fopen("/sys/devices/system/memory/block_size_bytes", "r");

	fscanf(f, "%lx", &block);
	fclose(f);
	host("qmp object-add {\"qom-type\":\"memory-backend-ram\",\"id\":\"new\",\"size\":268435456}");
	result(host("qmp device_add {\"driver\":\"pc-dimm\",\"id\":\"dimm\",\"memdev\":\"new\",\"node\":0}"),
	       "a DIMM is plugged in");
	/* Where is it? */
	for (int try = 0; try < 100 && !n; try++) {
		usleep(100000);
		for (unsigned long i = 0; i < 64; i++) {
			snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%lu", i);
			if (access(path, F_OK))
				continue;
			snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%lu/online", i);
			if (number_in(path) == 0) {
				if (!n++)
					first = i;
			}
		}
	}
	result(n, "the kernel has seen it");
	printf("# %lu blocks of %#lx from %lu\n", n, block, first);
	usleep(300000);
	n = 256 * (1 << 20) / block;
	result(set_blocks(first, n, "online_movable"), "it is online");
	start = first * block / PAGE;
	end = (first + n) * block / PAGE;

	p = map_huge(len);
	madvise(p, len, MADV_NOHUGEPAGE);
	put_under(p, len, A);
	fill(p, len, 7000);
	huge = map_huge(2 * HUGE);
	madvise(huge, 2 * HUGE, MADV_HUGEPAGE);
	put_under(huge, 2 * HUGE, B);
	fill(huge, 2 * HUGE, 90000);
	for (size_t i = 0; i < len; i += PAGE)
		in += pfn(p + i) >= start && pfn(p + i) < end;
	printf("# %lu pages are in it\n", in);
	result(in > 0 && pfn(huge) >= start && pfn(huge) < end,
	       "it has pages under keys");

	/* Freed pages, which the kernel keeps for their key, are to go too. */
	kept = map(64 * PAGE);
	madvise(kept, 64 * PAGE, MADV_NOHUGEPAGE);
	put_under(kept, 64 * PAGE, A);
	fill(kept, 64 * PAGE, 1);
	in = 0;
	for (size_t i = 0; i < 64 * PAGE; i += PAGE)
		in += pfn(kept + i) >= start && pfn(kept + i) < end;
	result(in, "and pages that are then freed");
	munmap(kept, 64 * PAGE);

	result(set_blocks(first, n, "offline"), "it goes offline");
	for (in = 0; in < len / PAGE; in++)
		if (pfn(p + in * PAGE) >= start && pfn(p + in * PAGE) < end)
			break;
	result(in == len / PAGE && (pfn(huge) < start || pfn(huge) >= end),
	       "no page is left there");
	check("moved out of memory that went offline", p, len, 7000, A);
	check("likewise, huge", huge, 2 * HUGE, 90000, B);
	/* It comes back, and is used again */
	result(set_blocks(first, n, "online_movable"), "it comes online again");
	kept = map(512 << 20);
	madvise(kept, 512 << 20, MADV_NOHUGEPAGE);
	put_under(kept, 512 << 20, B);
	in = 0;
	for (size_t i = 0; i < 512 << 20 && in < 8; i += PAGE) {
		*(volatile char *)(kept + i) = 0;
		if (pfn(kept + i) < start || pfn(kept + i) >= end)
			continue;
		put_page(kept + i, 200000 + in);
		if (in % 4 == 0)
			check("a page of it", kept + i, PAGE, 200000 + in, B);
		in++;
	}
	result(in == 8, "it has pages under keys again");
	munmap(kept, 512 << 20);
	result(set_blocks(first, n, "offline"), "it goes offline again");
	result(host("qmp device_del {\"id\":\"dimm\"}"), "it is pulled out");
	usleep(500000);
	result(filled(p, len, 7000) && filled(huge, 2 * HUGE, 90000),
	       "all have their contents");
	munmap(p, len);
	munmap(huge, 2 * HUGE);
}

static sigjmp_buf bus;
static int bus_code;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	bus_code = info->si_code;
	siglongjmp(bus, 1);
}

static void signal_here(void)
{
	struct sigaction sa = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &sa, NULL);
}

/* Is it SIGBUS to read there? */
static bool poisoned(void *p)
{
	signal_here();
	bus_code = 0;
	if (!sigsetjmp(bus, 1)) {
		*(volatile char *)p;
		return false;
	}
	return bus_code == BUS_MCEERR_AR;
}

/* A hardware error in a page of a huge one: what is lost, and that the key is not held */
static void broken_huge(const char *what, bool hugetlb)
{
	long in_use = keyids_in_use(), bytes = encrypted_bytes();
	int key = new_key(), status;
	pid_t pid;

	if (hugetlb)
		write_to("/proc/sys/vm/nr_hugepages", "4");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		char *q = hugetlb ? mmap(NULL, 2 * HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS |
					 MAP_HUGETLB, -1, 0) : map_huge(2 * HUGE);

		if (q == MAP_FAILED)
			_exit(1);
		if (!hugetlb)
			madvise(q, 2 * HUGE, MADV_HUGEPAGE);
		if (encrypt_mprotect(q, 2 * HUGE, RW, key))
			_exit(2);
		fill(q, 2 * HUGE, 600);
		signal_here();
		if (!sigsetjmp(bus, 1) && madvise(q + 5 * PAGE, PAGE, MADV_HWPOISON))
			_exit(3);
		if (!poisoned(q + 5 * PAGE) || !filled(q + HUGE, HUGE, 600 + 512))
			_exit(4);
		/* One of hugetlbfs goes as a whole */
		if (!hugetlb && (!filled(q, 5 * PAGE, 600) ||
				 !filled(q + 6 * PAGE, HUGE - 6 * PAGE, 606)))
			_exit(5);
		if (encrypt_mprotect(q + HUGE, HUGE, RW, serial[B]) ||
		    !filled(q + HUGE, HUGE, 600 + 512))
			_exit(6);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	result(!status, "hard offline, %s: SIGBUS there, the rest is right", what);
	if (status)
		printf("# status %#x\n", status);
	unlink_key(key);
	result(keyids_fall_to(in_use) && encrypted_bytes() == bytes, "%s: it has left its key", what);
	if (hugetlb)
		write_to("/proc/sys/vm/nr_hugepages", "0");
}

static void broken(void)
{
	char *p = map_under(LEN, A), *huge = map_huge(HUGE);
	unsigned long was, bad[2];
	long in_use, bytes;
	int key, status;
	pid_t pid;

	fill(p, LEN, 300);
	was = pfn(p + PAGE);
	works("soft offline", madvise(p + PAGE, PAGE, MADV_SOFT_OFFLINE));
	result(pfn(p + PAGE) != was, "the page has moved");
	check("after soft offline", p, LEN, 300, A);
	write_to("/sys/kernel/debug/hwpoison/unpoison-pfn", "%lu", was);

	madvise(huge, HUGE, MADV_HUGEPAGE);
	put_under(huge, HUGE, B);
	fill(huge, HUGE, 400);
	was = pfn(huge + PAGE);
	works("soft offline, huge", madvise(huge + PAGE, PAGE, MADV_SOFT_OFFLINE));
	result(pfn(huge + PAGE) != was, "the page has moved");
	check("after soft offline, huge", huge, HUGE, 400, B);
	write_to("/sys/kernel/debug/hwpoison/unpoison-pfn", "%lu", was);
	munmap(huge, HUGE);

	/* Hard.  Under a key that is gone by the end. */
	in_use = keyids_in_use();
	bytes = encrypted_bytes();
	key = new_key();
	pid = fork();
	if (!pid) {
		char *q = map(LEN);
		int pipe_fd[2];

		if (encrypt_mprotect(q, LEN, RW, key))
			_exit(1);
		fill(q, LEN, 500);
		/* The signal comes at once, to whoever is concerned. */
		signal_here();
		if (!sigsetjmp(bus, 1) && madvise(q + PAGE, PAGE, MADV_HWPOISON))
			_exit(2);
		if (!poisoned(q + PAGE) || poisoned(q) || poisoned(q + 2 * PAGE))
			_exit(3);
		if (!page_is(q, 500) || !filled(q + 2 * PAGE, LEN - 2 * PAGE, 502))
			_exit(4);
		/* The kernel does not read it either. */
		if (pipe(pipe_fd) || write(pipe_fd[1], q + PAGE, PAGE) != -1 || errno != EFAULT)
			_exit(5);
		/* What is not broken can go under another key. */
		if (encrypt_mprotect(q + 2 * PAGE, LEN - 2 * PAGE, RW, serial[B]) ||
		    !filled(q + 2 * PAGE, LEN - 2 * PAGE, 502))
			_exit(6);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	result(!status, "hard offline: SIGBUS there, and there only");
	if (status)
		printf("# status %#x\n", status);
	unlink_key(key);
	/* It is never freed, and still does not hold the KeyID. */
	result(keyids_fall_to(in_use) && encrypted_bytes() == bytes,
	       "the broken page has left its key");
	printf("# %ld KeyIDs, %ld before; %ld bytes, %ld before\n", keyids_in_use(),
	       in_use, encrypted_bytes(), bytes);

	/* Which page is it?  The only one with KPF_HWPOISON. */
	int fd = open("/proc/kpageflags", O_RDONLY), n = 0;
	uint64_t flags[512];

	for (unsigned long i = 0; pread(fd, flags, sizeof(flags), i * 8) > 0; i += 512)
		for (int j = 0; j < 512; j++)
			if (flags[j] >> 19 & 1 && n < 2)
				bad[n++] = i + j;
	close(fd);
	result(n == 1, "it is the only one that is broken");
	if (n)
		result(write_to("/sys/kernel/debug/hwpoison/unpoison-pfn", "%lu", bad[0]),
		       "it is declared good");
	result(keyids_in_use() == in_use && encrypted_bytes() == bytes,
	       "and leaves it no second time");
	munmap(p, LEN);
	broken_huge("a huge page", false);
	broken_huge("one of hugetlbfs", true);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} what[] = {
		{ "demand", on_demand },
		{ "compaction", compaction },
		{ "balancing", balancing },
		{ "hotplug", hotplug },
		{ "broken", broken },
	};

	for (int i = 1; i < argc; i++)
		for (size_t j = 0; j < sizeof(what) / sizeof(*what); j++)
			if (!strcmp(argv[i], what[j].name))
				what[j].run();
	return 0;
}
