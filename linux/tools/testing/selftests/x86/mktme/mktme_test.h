/* SPDX-License-Identifier: GPL-2.0 */
#ifndef MKTME_TEST_H
#define MKTME_TEST_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/mktme.h>

#include "../../kselftest_harness.h"

/* Half a minute can pass while a machine, or an emulator, is busy with others. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 300

#define RW		(PROT_READ | PROT_WRITE)
#define SYSFS		"/sys/kernel/mm/mktme/"
#define CPU_KEY		cpu_payload()	/* any will do */
#define USER_128	"type=user algorithm=aes-xts-128 "		\
			"key=000102030405060708090a0b0c0d0e0f "		\
			"tweak=101112131415161718191a1b1c1d1e1f"
#define USER_256	"type=user algorithm=aes-xts-256 "		\
			"key=000102030405060708090a0b0c0d0e0f"		\
			"202122232425262728292a2b2c2d2e2f "		\
			"tweak=101112131415161718191a1b1c1d1e1f"	\
			"303132333435363738393a3b3c3d3e3f"

/* Not in the uapi headers: see keyctl_setperm(3). */
#define KEY_POS_VIEW	0x01000000
#define KEY_POS_SETATTR	0x20000000
#define KEY_POS_ALL	0x3f000000
#define KEY_USR_VIEW	0x00010000
#define KEY_USR_SEARCH	0x00080000
#define KEY_OTH_SEARCH	0x00000008

typedef int32_t serial_t;

/* Has firmware enabled it? */
static inline bool has_algorithm(const char *algorithm)
{
	FILE *f = fopen(SYSFS "algorithms", "r");
	bool found = false;
	char name[32];

	while (f && !found && fscanf(f, "%31s", name) == 1)
		found = !strcmp(name, algorithm);
	if (f)
		fclose(f);
	return found;
}

#define SKIP_WITHOUT_ALGORITHM(algorithm)				\
do {									\
	if (!has_algorithm(algorithm))					\
		SKIP(return, algorithm " is not enabled");		\
} while (0)

#define USER_KEY	(has_algorithm("aes-xts-128") ? USER_128 : USER_256)
#define USER_LONG_KEY	(has_algorithm("aes-xts-256") ? USER_256 : USER_128)

static inline const char *cpu_payload(void)
{
	return has_algorithm("aes-xts-128") ? "type=cpu algorithm=aes-xts-128" :
					      "type=cpu algorithm=aes-xts-256";
}

static inline int encrypt_mprotect(void *addr, size_t len, int prot,
				   serial_t serial)
{
	return syscall(__NR_encrypt_mprotect, addr, len, prot, serial);
}

static inline serial_t add_key(const char *type, const char *name,
			       const void *payload, size_t len)
{
	return syscall(__NR_add_key, type, name, payload, len,
		       KEY_SPEC_PROCESS_KEYRING);
}

/* Names are the caller's: an equal one would replace the key. */
/* What another test had may be on its way back for a moment: try for 5 seconds. */
static inline serial_t new_key(const char *name, const char *payload)
{
	serial_t key;
	int i;

	for (i = 0; i < 500; i++) {
		key = add_key(MKTME_KEY_TYPE, name, payload, strlen(payload));
		if (key >= 0 || errno != ENOSPC)
			break;
		usleep(10000);
	}
	return key;
}

static inline long keyctl(int op, unsigned long a, unsigned long b,
			  unsigned long c, unsigned long d)
{
	return syscall(__NR_keyctl, op, a, b, c, d);
}

static inline long revoke_key(serial_t key)
{
	return keyctl(KEYCTL_REVOKE, key, 0, 0, 0);
}

static inline long unlink_key(serial_t key)
{
	return keyctl(KEYCTL_UNLINK, key, KEY_SPEC_PROCESS_KEYRING, 0, 0);
}

/* A number from a file in sysfs, or -1. */
static inline long read_sysfs(const char *path)
{
	FILE *f = fopen(path, "r");
	long val = -1;

	if (f) {
		if (fscanf(f, "%ld", &val) != 1)
			val = -1;
		fclose(f);
	}
	return val;
}

/* KeyIDs come back after a grace period: wait for up to 10 s. */
static inline bool keyids_fall_to(long want)
{
	int i;

	for (i = 0; i < 1000; i++) {
		if (read_sysfs(SYSFS "keyids_in_use") == want)
			return true;
		usleep(10000);
	}
	return false;
}

/* "KeyID:" of the VMA at addr in smaps; *start and *end are its bounds. */
static inline long vma_keyid(const void *addr, unsigned long *start,
			     unsigned long *end)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long s, e, a = (unsigned long)addr;
	bool here = false;
	long keyid = -1;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &s, &e) == 2) {
			here = a >= s && a < e;
			if (here && start)
				*start = s;
			if (here && end)
				*end = e;
		} else if (here && sscanf(line, "KeyID: %ld", &keyid) == 1) {
			break;
		}
	}
	if (f)
		fclose(f);
	return keyid;
}

static inline long keyid_at(const void *addr)
{
	return vma_keyid(addr, NULL, NULL);
}

static inline void *map_anon(size_t len)
{
	return mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Have DRAM hold what the caches hold. */
static inline void write_back(const void *addr, size_t len)
{
	const char *p = addr, *end = p + len;

	for (; p < end; p += 64)
		__builtin_ia32_clflush(p);
	__builtin_ia32_mfence();
}

static inline void fill(void *addr, size_t len, unsigned int seed)
{
	uint32_t *p = addr, *end = addr + len;

	for (; p < end; p++)
		*p = seed = seed * 1664525 + 1013904223;
}

static inline bool filled(const void *addr, size_t len, unsigned int seed)
{
	const uint32_t *p = addr, *end = addr + len;

	for (; p < end; p++) {
		seed = seed * 1664525 + 1013904223;
		if (*p != seed)
			return false;
	}
	return true;
}

static inline bool zero(const void *addr, size_t len)
{
	const char *p = addr;

	return !*p && !memcmp(p, p + 1, len - 1);
}

/* The number behind a name in /proc/self/status, of this base, or -1. */
static inline long status_number(const char *name, int base)
{
	FILE *f = fopen("/proc/self/status", "r");
	size_t len = strlen(name);
	char line[256];
	long val = -1;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && line[len] == ':')
			val = strtol(line + len + 1, NULL, base);
	if (f)
		fclose(f);
	return val;
}

/* The effective capabilities in the initial user namespace, a bit each. */
static inline uint64_t capabilities(void)
{
	unsigned long inside, outside, count;
	FILE *f = fopen("/proc/self/uid_map", "r");
	bool initial = f && fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3 &&
		       !inside && !outside && count == UINT32_MAX;

	if (f)
		fclose(f);
	return initial ? status_number("CapEff", 16) : 0;
}

/* What makes keys is enough. */
#define SKIP_WITHOUT_MKTME()						\
do {									\
	if (access(SYSFS, F_OK))					\
		SKIP(return, "no MKTME here");				\
	if (!(capabilities() & 1ULL << CAP_SYS_RESOURCE))		\
		SKIP(return, "needs CAP_SYS_RESOURCE");			\
} while (0)

/* To be somebody else, mount, see what is root's, set how the machine works. */
#define SKIP_UNLESS_ROOT()						\
do {									\
	uint64_t __all =						\
		(2ULL << read_sysfs("/proc/sys/kernel/cap_last_cap")) - 1; \
									\
	SKIP_WITHOUT_MKTME();						\
	if (geteuid() || (capabilities() & __all) != __all)		\
		SKIP(return, "needs root, with all capabilities");	\
} while (0)

/*
 * Are more in use?  Those of the test before may still be on their way back:
 * fewer come within 2 s.
 */
static inline bool keyids_left(long most)
{
	long now, last = -1;
	int same = 0;

	while (same < 20) {
		now = read_sysfs(SYSFS "keyids_in_use");
		if (now >= 0 && now <= most)
			return false;
		same = now == last ? same + 1 : 0;
		last = now;
		usleep(100000);
	}
	return true;
}

/* For tests that count KeyIDs, or take all of them. */
#define SKIP_UNLESS_ALONE()						\
do {									\
	SKIP_UNLESS_ROOT();						\
	if (keyids_left(0))						\
		SKIP(return, "KeyIDs are in use by others");		\
} while (0)

/* So many, of which the test has some already? */
static inline bool has_keyids(long n, long own)
{
	long total = read_sysfs(SYSFS "keyids_total");

	return total >= n && !keyids_left(total - n + own);
}

#define SKIP_WITHOUT_KEYIDS(n, own)					\
do {									\
	if (!has_keyids(n, own))					\
		SKIP(return, "needs " #n " KeyIDs");			\
} while (0)

/* Locked memory of this process. */
static inline long locked_kb(void)
{
	return status_number("VmLck", 10);
}

#endif /* MKTME_TEST_H */
