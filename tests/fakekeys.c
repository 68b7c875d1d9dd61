// SPDX-License-Identifier: GPL-2.0
/*
 * For LD_PRELOAD: a host with keys of type "mktme" and encrypt_mprotect(), as far as
 * QEMU can tell, and a log (FAKEKEYS_LOG) of what happens to keys and to memory under
 * them.  As in Linux, a key in the process keyring can be invalidated by the thread that
 * made it, and adding a key by the same description changes the one that is there.
 * If FAKEKEYS_FAIL is set there is a limit to memory under keys: one page at a time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/keyctl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NR_ENCRYPT_MPROTECT 548
#define FIRST 1000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct key { char description[64]; pid_t thread; int gone; } keys[100];
static int nr_keys;
static struct range { char *addr; size_t size; int serial; } ranges[1000];
static int nr_ranges;

static void say(const char *fmt, ...)
{
	static FILE *f;
	va_list ap;

	if (!f)
		f = fopen(getenv("FAKEKEYS_LOG"), "a");
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fflush(f);
}

static size_t mapped(int serial)
{
	size_t sum = 0;

	for (int i = 0; i < nr_ranges; i++)
		sum += ranges[i].serial == serial ? ranges[i].size : 0;
	return sum;
}

static long fail(int error)
{
	errno = error;
	return -1;
}

static struct key *find(int serial)
{
	struct key *key = &keys[serial - FIRST];

	return serial >= FIRST && serial < FIRST + nr_keys && !key->gone ? key : NULL;
}

static long add_key(const char *description, const char *payload, size_t size)
{
	int i;

	for (i = 0; i < nr_keys; i++)
		if (!keys[i].gone && !strcmp(keys[i].description, description))
			break;
	say("%s %d %s: %.*s\n", i < nr_keys ? "update" : "add", FIRST + i, description, (int)size, payload);
	if (i == nr_keys) {
		snprintf(keys[i].description, sizeof(keys[i].description), "%s", description);
		keys[i].thread = gettid();
		nr_keys++;
	}
	return FIRST + i;
}

static long encrypt(char *addr, size_t size, int serial)
{
	if (!find(serial))
		return fail(ENOKEY);
	if (getenv("FAKEKEYS_FAIL") && size > 4096)
		return fail(ENOMEM);
	if (size > 4096)
		say("encrypt %d %zu\n", serial, size);
	ranges[nr_ranges++] = (struct range) { addr, size, serial };
	return 0;
}

static long keyctl(int cmd, int serial, char *buf, size_t size)
{
	struct key *key = find(serial);

	switch (cmd) {
	case KEYCTL_DESCRIBE:
		return key ? snprintf(buf, size, "mktme;0;0;3f010000;%s", key->description) + 1 : fail(ENOKEY);
	case KEYCTL_INVALIDATE:
		if (!key)
			return fail(ENOKEY);
		if (key->thread != gettid()) {
			say("invalidate %d is refused\n", serial);
			return fail(EACCES);
		}
		say("invalidate %d with %zu bytes mapped\n", serial, mapped(serial));
		key->gone = 1;
		return 0;
	default:
		return fail(ENOKEY);
	}
}

long syscall(long nr, ...)
{
	static long (*real)(long, ...);
	long a[6], ret;
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (nr != SYS_add_key && nr != SYS_keyctl && nr != SYS_request_key && nr != NR_ENCRYPT_MPROTECT) {
		if (!real)
			real = dlsym(RTLD_NEXT, "syscall");
		return real(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	}
	pthread_mutex_lock(&lock);
	ret = nr == SYS_add_key ? add_key((char *)a[1], (char *)a[2], a[3]) :
	      nr == SYS_keyctl ? keyctl(a[0], a[1], (char *)a[2], a[3]) :
	      nr == SYS_request_key ? fail(ENOKEY) :
	      encrypt((char *)a[0], a[1], a[3]);
	pthread_mutex_unlock(&lock);
	return ret;
}

/* What is under a key is unmapped as a whole, at times with its guard page. */
int munmap(void *addr, size_t size)
{
	static int (*real)(void *, size_t);

	if (!real)
		real = dlsym(RTLD_NEXT, "munmap");
	pthread_mutex_lock(&lock);
	for (int i = nr_ranges; i-- > 0; ) {
		struct range *r = &ranges[i];

		if (r->addr >= (char *)addr && r->addr < (char *)addr + size) {
			if (r->size > 4096)
				say("unmap %d %zu\n", r->serial, r->size);
			*r = ranges[--nr_ranges];
		}
	}
	pthread_mutex_unlock(&lock);
	return real(addr, size);
}

int madvise(void *addr, size_t size, int advice)
{
	static int (*real)(void *, size_t, int);

	if (!real)
		real = dlsym(RTLD_NEXT, "madvise");
	pthread_mutex_lock(&lock);
	for (int i = 0; advice == MADV_POPULATE_WRITE && i < nr_ranges; i++)
		if (ranges[i].addr == addr && size > 4096)
			say("populate %d %zu\n", ranges[i].serial, size);
	pthread_mutex_unlock(&lock);
	return real(addr, size, advice);
}
