/* SPDX-License-Identifier: GPL-2.0 */
/* What tests of mm need beside mktme_test.h */
#ifndef MKTME_MM_H
#define MKTME_MM_H

#include "mktme_test.h"

/* Bytes of pages under a KeyID, or -1: what the VMAs say is another matter. */
static inline long key_bytes(long keyid)
{
	char path[64];
	FILE *f;
	long ret;

	snprintf(path, sizeof(path), "/sys/kernel/mm/mktme/keyids/%ld/bytes",
		 keyid);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%ld", &ret) != 1)
		ret = -1;
	if (f)
		fclose(f);
	return ret;
}

/* The KeyID that a key has now. */
static inline long key_keyid(serial_t key)
{
	char *probe = map_anon(getpagesize());
	long keyid;

	if (encrypt_mprotect(probe, getpagesize(), RW, key))
		return -1;
	keyid = keyid_at(probe);
	munmap(probe, getpagesize());
	return keyid;
}

/* For tests that need another key beside the one that their fixture has. */
#define MAKE_KEY2()							\
do {									\
	SKIP_WITHOUT_KEYIDS(2, 1);					\
	self->key2 = new_key("two", CPU_KEY);				\
	ASSERT_LT(0, self->key2);					\
	self->keyid2 = key_keyid(self->key2);				\
	ASSERT_LT(0, self->keyid2);					\
	ASSERT_NE(self->keyid, self->keyid2);				\
} while (0)

/* A field of a VMA in smaps, in kB, or -1. */
static inline long smaps_kb(const void *addr, const char *field)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long s, e, a = (unsigned long)addr;
	bool here = false;
	char line[512], name[64];
	long kb, ret = -1;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &s, &e) == 2)
			here = a >= s && a < e;
		else if (here && sscanf(line, "%63[^:]: %ld kB", name, &kb) == 2 &&
			 !strcmp(name, field))
			ret = kb;
	}
	if (f)
		fclose(f);
	return ret;
}

static inline bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static inline bool write_number(const char *path, long val)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", val);
	return write_file(path, text);
}

/* The first line of a file, or an empty one. */
static inline char *read_line(const char *path, char *line, int size)
{
	FILE *f = fopen(path, "r");

	if (!f || !fgets(line, size, f))
		line[0] = 0;
	if (f)
		fclose(f);
	return line;
}

/* A setting of the machine: put_back() makes it what it was. */
struct setting {
	char path[128], was[64];
};

/* Where one of several words is chosen, that has brackets around it. */
static inline bool set(struct setting *s, const char *path, const char *text)
{
	char line[128], *p;

	read_line(path, line, sizeof(line));
	p = strchr(line, '[');
	p = p ? p + 1 : line;
	p[strcspn(p, "]\n")] = 0;
	if (!p[0] || !write_file(path, text))
		return false;
	snprintf(s->path, sizeof(s->path), "%s", path);
	snprintf(s->was, sizeof(s->was), "%.63s", p);
	return true;
}

/* Nothing to do where set() has not been called, or failed. */
static inline void put_back(struct setting *s)
{
	if (s->path[0])
		write_file(s->path, s->was);
	s->path[0] = 0;
}

/* Have a cgroup's children have the misc controller; then put_back_misc(). */
static inline bool set_misc(bool *ours)
{
	const char *path = "/sys/fs/cgroup/cgroup.subtree_control";
	char line[256];

	read_line(path, line, sizeof(line));
	*ours = !strstr(line, "misc") && write_file(path, "+misc");
	return *ours || strstr(line, "misc");
}

static inline void put_back_misc(bool ours)
{
	if (ours)
		write_file("/sys/fs/cgroup/cgroup.subtree_control", "-misc");
}

static inline uint64_t phys_addr(const void *addr)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (pread(fd, &entry, 8, (uintptr_t)addr / getpagesize() * 8) != 8)
		entry = 0;
	close(fd);
	return (entry & ((1ULL << 55) - 1)) * getpagesize();
}

/* Does the child touch the address and die of the signal? */
static inline bool dies_of(int sig, volatile char *addr)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		*addr;
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
	       WTERMSIG(status) == sig;
}

#endif /* MKTME_MM_H */
