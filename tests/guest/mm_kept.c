// SPDX-License-Identifier: GPL-2.0
/*
 * mm_kept: pages that are freed under a key and return to it.  For each line
 * "flushes N WHAT" tools/insns.c has counted something: N is what it should be.
 */
#include "count.h"
#include "mm.h"

#define LINES	64UL
#define MAX	512UL	/* pages that a CPU keeps */
#define N	128UL

#define FLUSHES(pages, what, code)					\
	COUNT(code, "flushes %lu %s\n", (pages) * LINES, what)

static void touch(char *p, size_t len)
{
	for (size_t i = 0; i < len; i += PAGE)
		*(volatile char *)(p + i) = 0;
}

static void let_go(char *p, size_t len)
{
	if (madvise(p, len, MADV_DONTNEED))
		err(1, "MADV_DONTNEED");
}

static void end_of(int key, long in_use)
{
	unlink_key(serial[key]);
	result(keyids_fall_to(in_use - 1), "its KeyID comes back");
}

int main(void)
{
	char *p, *q, *many, *other;

	p = map_under(N * PAGE, A);
	q = map_under(N * PAGE, B);
	many = map_under(2 * MAX * PAGE, A);
	other = map_under(MAX * PAGE, B);
	/* Page tables, so that nothing else is allocated below */
	madvise(p, N * PAGE, MADV_NOHUGEPAGE);
	madvise(q, N * PAGE, MADV_NOHUGEPAGE);
	madvise(many, 2 * MAX * PAGE, MADV_NOHUGEPAGE);
	madvise(other, MAX * PAGE, MADV_NOHUGEPAGE);

	FLUSHES(N, "pages come under a key", touch(p, N * PAGE));
	fill(p, N * PAGE, 100);
	FLUSHES(0, "they are freed", let_go(p, N * PAGE));
	result(encrypted_bytes() == 0, "they are not counted as under the key");
	FLUSHES(0, "they come back to it", touch(p, N * PAGE));
	result(zeroed(p, N * PAGE), "with nothing in them");
	fill(p, N * PAGE, 200);
	check("come back", p, N * PAGE, 200, A);
	result(encrypted_bytes() == (long)(N * PAGE), "they are counted");
	let_go(p, N * PAGE);

	FLUSHES(N, "pages come under another key", touch(q, N * PAGE));
	fill(q, N * PAGE, 300);
	check("none of the other key's", q, N * PAGE, 300, B);
	FLUSHES(0, "they are freed too", let_go(q, N * PAGE));
	FLUSHES(0, "the first key's come back, though the other's were freed last",
		touch(p, N * PAGE));
	result(zeroed(p, N * PAGE), "with nothing in them");

	let_go(p, N * PAGE);	/* N of A, N of B */
	FLUSHES(2 * MAX - N, "more pages come under a key", touch(many, 2 * MAX * PAGE));
	fill(many, 2 * MAX * PAGE, 5000);
	check("more pages", many, 2 * MAX * PAGE, 5000, A);
	FLUSHES(2 * MAX - (MAX - N), "what is too much is not kept", let_go(many, 2 * MAX * PAGE));
	FLUSHES(2 * MAX - (MAX - N), "as many as are kept come back", touch(many, 2 * MAX * PAGE));
	result(zeroed(many, 2 * MAX * PAGE), "with nothing in them");
	let_go(many, 2 * MAX * PAGE);	/* MAX - N of A, N of B */

	FLUSHES(MAX - N, "the other key's are left in peace", touch(other, MAX * PAGE));
	FLUSHES(MAX - N, "who has most makes room for who has less", let_go(other, MAX * PAGE));
	FLUSHES(2 * MAX - MAX / 2, "until each has half", touch(many, 2 * MAX * PAGE));
	let_go(many, 2 * MAX * PAGE);

	munmap(p, N * PAGE);
	munmap(q, N * PAGE);
	munmap(many, 2 * MAX * PAGE);
	munmap(other, MAX * PAGE);
	FLUSHES(MAX / 2, "the key goes, and what was kept for it", end_of(A, keyids_in_use()));
	return 0;
}
