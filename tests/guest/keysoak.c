// SPDX-License-Identifier: GPL-2.0
/*
 * keysoak SECONDS CHECK: threads of a few processes make keys, put memory under them,
 * rotate, erase and drop them at random, so many that KeyIDs run out all the time.
 * Memory must be what was written to it, or erased.  Every few seconds all rest, and
 * the command CHECK (by sh) compares what is in use; once more when all are gone.
 * Says how often what was done.  Exit status 0: all was right.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <keyutils.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/mktme.h>

#define RW		(PROT_READ | PROT_WRITE)
#define PROCESSES	3
#define THREADS		3
#define WORKERS		(PROCESSES * THREADS)
#define REGIONS		4	/* of a worker; the first half under keys of its own */
#define KEYS		3	/* of a worker */
#define SHARED		8	/* keys of all */
#define PAGES		8	/* of a region, which has two halves */
#define PAGE		4096
#define LEN		(PAGES * PAGE)
#define HALF		(LEN / 2)
#define REST		6	/* seconds */

#define HEX16		"000102030405060708090a0b0c0d0e0f"
#define HEX16B		"f0e1d2c3b4a5968778695a4b3c2d1e0f"
static const char *const payloads[] = {
	"type=cpu algorithm=aes-xts-128",
	"type=cpu algorithm=aes-xts-256",
	"type=no-encrypt",
	"type=user algorithm=aes-xts-128 key=" HEX16 " tweak=" HEX16B,
	"type=user algorithm=aes-xts-256 key=" HEX16 HEX16B " tweak=" HEX16B HEX16,
};

static struct {
	bool stop, bad;
	int pause, resume, resting;
	int key[SHARED];
	long made, full, used, rotated, erased, dropped, forked, sigbus;
} *all;

struct region {
	char *mem;
	uint32_t seed;		/* of what was written; 0: nothing yet, all is zero */
	int key[2];		/* of each half; 0 for none, -1 for one that was dropped */
};

struct worker {
	unsigned int id, seed, n;
	int key[KEYS], pipe[2];
	bool pinned;
	struct region region[REGIONS];
};

static __thread sigjmp_buf env;

static void on_sigbus(int sig)
{
	siglongjmp(env, sig);
}

static void count(long *n)
{
	__atomic_fetch_add(n, 1, __ATOMIC_RELAXED);
}

static void bad(struct worker *w, const char *what, long value)
{
	__atomic_store_n(&all->bad, true, __ATOMIC_SEQ_CST);
	fprintf(stderr, "worker %u: %s: %ld\n", w->id, what, value);
}

static unsigned int dice(struct worker *w, unsigned int sides)
{
	return rand_r(&w->seed) / 16 % sides;
}

static bool own(struct worker *w, struct region *r)
{
	return r < w->region + REGIONS / 2;
}

static int put_under(void *p, size_t len, int key)
{
	return syscall(__NR_encrypt_mprotect, p, len, RW, key);
}

static void renew(struct worker *w, struct region *r)
{
	if (r->mem)
		munmap(r->mem, LEN);
	*r = (struct region){
		.mem = mmap(NULL, LEN, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
	};
	if (r->mem == MAP_FAILED)
		err(1, "mmap");
}

static uint32_t next(uint32_t val)
{
	return val * 1664525 + 1013904223;
}

static void fill(struct worker *w, struct region *r)
{
	uint32_t val = r->seed = ++w->n << 8 | w->id | 0x80, *p;

	for (p = (uint32_t *)r->mem; (char *)p < r->mem + LEN; p++)
		*p = val = next(val);
}

/* Each page is what was written to it, or, where somebody else may have erased it, zero. */
static bool right(struct region *r, bool or_zero)
{
	uint32_t val = r->seed, *p = (uint32_t *)r->mem, any;
	int page, i;
	bool same;

	for (page = 0; page < PAGES; page++) {
		for (same = true, any = 0, i = 0; i < PAGE / 4; i++, p++) {
			val = r->seed ? next(val) : 0;
			same &= *p == val;
			any |= *p;
		}
		if (!same && !(or_zero && !any))
			return false;
	}
	return true;
}

static bool shut(char *p)
{
	if (sigsetjmp(env, 1))
		return true;
	(void)*(volatile char *)p;
	return false;
}

static void look(struct worker *w, struct region *r)
{
	bool mine = own(w, r);
	unsigned int write = dice(w, 2);
	volatile bool filling = false;

	if (sigsetjmp(env, 1)) {
		count(&all->sigbus);
		if (mine)
			bad(w, "SIGBUS, and nobody had erased", 0);
		/*
		 * Erased by somebody: empty, or once more as if new.  Where only one
		 * half was, and amid fill(), the other can still have what was before.
		 */
		if (filling || put_under(r->mem, LEN, 0))
			renew(w, r);
		r->key[0] = r->key[1] = 0;
		return;
	}
	if (!right(r, !mine))
		bad(w, "memory is wrong, of a key of its own", mine);
	if (write) {
		filling = true;
		fill(w, r);
	}
}

static void make(struct worker *w)
{
	int *slot = dice(w, 2) ? &w->key[dice(w, KEYS)] : &all->key[dice(w, SHARED)];
	const char *payload = payloads[dice(w, sizeof(payloads) / sizeof(*payloads))];
	int key, none = 0;
	char name[32];

	if (__atomic_load_n(slot, __ATOMIC_SEQ_CST))
		return;
	snprintf(name, sizeof(name), "soak-%u-%u", w->id, ++w->n);
	key = add_key(MKTME_KEY_TYPE, name, payload, strlen(payload), KEY_SPEC_USER_KEYRING);
	if (key == -1) {
		if (errno != ENOSPC)
			bad(w, "add_key", errno);
		count(&all->full);
		return;
	}
	count(&all->made);
	if (keyctl_setperm(key, KEY_POS_ALL | KEY_USR_ALL))
		bad(w, "setperm", errno);
	if (!__atomic_compare_exchange_n(slot, &none, key, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		keyctl_unlink(key, KEY_SPEC_USER_KEYRING);
}

static void use(struct worker *w, struct region *r)
{
	int key = own(w, r) ? w->key[dice(w, KEYS)] : all->key[dice(w, SHARED)];
	unsigned int half = dice(w, 3);	/* 2: both */

	if (!dice(w, 4))
		key = 0;
	if (!put_under(r->mem + (half == 1 ? HALF : 0), half == 2 ? LEN : HALF, key)) {
		if (half != 1)
			r->key[0] = key;
		if (half != 0)
			r->key[1] = key;
		count(&all->used);
	} else if (errno == EBUSY) {
		if (!w->pinned)
			bad(w, "EBUSY, and nothing was pinned", 0);
	} else if (own(w, r) || (errno != ENOKEY && errno != EKEYREVOKED && errno != EKEYEXPIRED)) {
		bad(w, "encrypt_mprotect", errno);
	}
}

static void rotate(struct worker *w)
{
	const char *payload = payloads[dice(w, sizeof(payloads) / sizeof(*payloads))];
	int mine = dice(w, 2), key = mine ? w->key[dice(w, KEYS)] : all->key[dice(w, SHARED)];

	if (!key)
		return;
	if (!keyctl_update(key, payload, strlen(payload)))
		count(&all->rotated);
	/* Full, or pinned.  Others may have dropped one that is shared. */
	else if (errno != ENOSPC && errno != EBUSY &&
		 (mine || (errno != ENOKEY && errno != EKEYREVOKED && errno != EKEYEXPIRED)))
		bad(w, "rotate", errno);
}

static void erase(struct worker *w)
{
	int mine = dice(w, 2), key, i, half;
	struct region *r;

	if (!mine) {
		key = all->key[dice(w, SHARED)];
		if (key && !keyctl_update(key, "erase", 5))
			count(&all->erased);
		return;
	}
	i = dice(w, KEYS);
	key = w->key[i];
	if (!key)
		return;
	if (keyctl_update(key, "erase", 5)) {
		bad(w, "erase", errno);
		return;
	}
	count(&all->erased);
	for (r = w->region; own(w, r); r++) {
		if (r->key[0] != key && r->key[1] != key)
			continue;
		for (half = 0; half < 2; half++)
			if (shut(r->mem + half * HALF) != (r->key[half] == key))
				bad(w, "erased, as it should be", half);
		renew(w, r);
	}
	keyctl_unlink(key, KEY_SPEC_USER_KEYRING);
	w->key[i] = 0;
}

static void drop(struct worker *w)
{
	int mine = dice(w, 2), key, i, half;
	int *slot = mine ? &w->key[dice(w, KEYS)] : &all->key[dice(w, SHARED)];
	struct region *r;

	key = __atomic_exchange_n(slot, 0, __ATOMIC_SEQ_CST);
	if (!key)
		return;
	count(&all->dropped);
	for (i = 0; i < REGIONS; i++) {
		r = &w->region[i];
		for (half = 0; half < 2; half++)
			if (r->key[half] == key)
				r->key[half] = -1;
	}
	switch (dice(w, 4)) {
	case 0:
		keyctl_set_timeout(key, 1);
		break;
	case 1:
		keyctl_invalidate(key);
		break;
	case 2:
		keyctl_revoke(key);
		/* fall through */
	default:
		keyctl_unlink(key, KEY_SPEC_USER_KEYRING);
	}
}

static void child(struct worker *w)
{
	struct region *r = &w->region[dice(w, REGIONS / 2)];
	pid_t pid = fork();
	int status;

	if (!pid) {
		if (sigsetjmp(env, 1))
			_exit(1);
		if (!right(r, false))
			_exit(2);
		fill(w, r);
		_exit(right(r, false) ? 0 : 3);
	}
	if (pid < 0)
		return;
	count(&all->forked);
	if (waitpid(pid, &status, 0) != pid || status)
		bad(w, "a child's memory", status);
}

static void move(struct worker *w, struct region *r)
{
	char *to = mremap(r->mem, LEN, LEN, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);

	/* Only one mapping can be moved, and halves differ. */
	if (to == MAP_FAILED)
		return;
	munmap(r->mem, LEN);
	r->mem = to;
}

/* Pages in a pipe are held by nothing else. */
static void pin(struct worker *w, struct region *r)
{
	struct iovec iov = { r->mem + HALF - PAGE, 2 * PAGE };
	char buf[2 * PAGE];

	if (w->pinned) {
		if (read(w->pipe[0], buf, sizeof(buf)) < 0)
			bad(w, "read", errno);
		w->pinned = false;
	} else if (vmsplice(w->pipe[1], &iov, 1, SPLICE_F_NONBLOCK) > 0) {
		w->pinned = true;
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct region *r;
	int i, round = 0;

	if (pipe(w->pipe))
		err(1, "pipe");
	for (i = 0; i < REGIONS; i++)
		renew(w, &w->region[i]);
	while (!all->stop && !all->bad) {
		if (all->pause != round) {
			round = all->pause;
			__atomic_fetch_add(&all->resting, 1, __ATOMIC_SEQ_CST);
			while (all->resume != round)
				usleep(1000);
		}
		r = &w->region[dice(w, REGIONS)];
		switch (dice(w, 16)) {
		case 0 ... 3:	make(w); break;
		case 4 ... 6:	use(w, r); break;
		case 7 ... 9:	look(w, r); break;
		case 10:	rotate(w); break;
		case 11:	erase(w); break;
		case 12:	drop(w); break;
		case 13:	child(w); break;
		case 14:	move(w, r); break;
		case 15:	dice(w, 3) ? renew(w, r) : pin(w, r); break;
		}
	}
	for (i = 0; i < REGIONS; i++)
		munmap(w->region[i].mem, LEN);
	close(w->pipe[0]);
	close(w->pipe[1]);
	return NULL;
}

static int process(int first)
{
	static struct worker worker[THREADS];
	pthread_t thread[THREADS];
	int i;

	for (i = 0; i < THREADS; i++) {
		worker[i].id = first + i;
		worker[i].seed = 7919 * (first + i) + 20261124;
		if (pthread_create(&thread[i], NULL, work, &worker[i]))
			err(1, "pthread_create");
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	return all->bad;
}

/* A busy machine may need more time to get there. */
static bool seen_all(void)
{
	return all->full && all->made > 9 && all->used > 9 && all->rotated &&
	       all->erased && all->dropped;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_sigbus };
	int i, status, left = PROCESSES, checks = 0;
	time_t end, rest;

	if (argc != 3)
		errx(2, "usage: keysoak SECONDS CHECK");
	all = mmap(NULL, sizeof(*all), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		err(1, "mmap");
	sigaction(SIGBUS, &sa, NULL);
	for (i = 0; i < PROCESSES; i++)
		if (!fork())
			_exit(process(i * THREADS));

	end = time(NULL) + atoi(argv[1]);
	do {
		rest = time(NULL) + REST;
		while (time(NULL) < rest && !all->bad && !waitpid(-1, NULL, WNOHANG))
			usleep(10000);
		all->pause++;
		while (all->resting < WORKERS && !all->bad)
			usleep(10000);
		if (all->bad)
			break;
		if (system(argv[2])) {
			all->bad = true;
			break;
		}
		checks++;
		all->resting = 0;
		all->resume = all->pause;
	} while (time(NULL) < end || !(all->bad || seen_all()));
	all->stop = true;
	all->resume = all->pause;
	while (left--)
		if (wait(&status) < 0 || status)
			all->bad = true;
	keyctl_clear(KEY_SPEC_USER_KEYRING);
	if (!all->bad && system(argv[2]))
		all->bad = true;
	printf("keys: made %ld full %ld used %ld rotated %ld erased %ld dropped %ld forked %ld sigbus %ld checks %d\n",
	       all->made, all->full, all->used, all->rotated, all->erased, all->dropped,
	       all->forked, all->sigbus, checks);
	return all->bad;
}
