/* SPDX-License-Identifier: GPL-2.0 */
/* As much of the kernel as mktme_keys.c, lib/parser.c and lib/hexdump.c need. */
#ifndef FUZZ_KERNEL_H
#define FUZZ_KERNEL_H

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define CONFIG_X86_MKTME 1

typedef uint8_t u8, __u8;
typedef uint16_t u16, __u16;
typedef uint32_t u32, __u32;
typedef uint64_t u64, __u64, phys_addr_t, dma_addr_t;
typedef int32_t s32, __s32, key_serial_t;
typedef int64_t s64, __s64;
typedef int gfp_t;

#define __init
#define __must_check
#define noinline
#define __always_inline		inline __attribute__((always_inline))
#define fallthrough		__attribute__((fallthrough))
#define EXPORT_SYMBOL(x)
#define EXPORT_SYMBOL_GPL(x)
#define likely(x)		(x)
#define unlikely(x)		(x)
#define is_power_of_2(n)	(!((n) & ((n) - 1)))
#define get_unaligned(p)	(*(p))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define min(a, b)		((a) < (b) ? (a) : (b))
#define max(a, b)		((a) > (b) ? (a) : (b))

/* Errors as pointers */
#define IS_ERR(p)		((unsigned long)(p) >= (unsigned long)-4095)
#define PTR_ERR(p)		((int)(long)(p))
#define ERR_PTR(e)		((void *)(long)(e))
#define ERR_CAST(p)		((void *)(p))


/* Memory and strings */
#define GFP_KERNEL		0
void *kzalloc(size_t size, gfp_t flags);
#define kzalloc_obj(p)		((__typeof__(p) *)kzalloc(sizeof(p), GFP_KERNEL))
/* In a block of just that size, so that the address sanitizer sees its end. */
static inline char *kmemdup_nul(const char *s, size_t len, gfp_t flags)
{
	char *p = kzalloc(len + 1, flags);

	if (p)
		memcpy(p, s, len);
	return p;
}

static inline void *kmalloc(size_t size, gfp_t flags)
{
	return kzalloc(size, flags);
}

size_t malloc_usable_size(void *p);
static inline void kfree_sensitive(const void *p)
{
	if (p)
		memset((void *)p, 0, malloc_usable_size((void *)p));
	free((void *)p);
}

/* All that is allocated is payload, or the key in it: it must have been wiped. */
static inline void kfree(const void *p)
{
	const char *c = p;
	size_t i;

	for (i = 0; p && i < malloc_usable_size((void *)p); i++)
		if (c[i])
			abort();
	free((void *)p);
}

static inline char *strim(char *s)
{
	size_t len = strlen(s);
#define kspace(c)	(isspace((unsigned char)(c)) || (unsigned char)(c) == 0xa0)
	while (len && kspace(s[len - 1]))
		s[--len] = 0;
	while (kspace(*s))
		s++;
	return s;
}

static inline void *memchr_inv(const void *p, int c, size_t len)
{
	const unsigned char *s = p;

	for (; len; s++, len--)
		if (*s != (unsigned char)c)
			return (void *)s;
	return NULL;
}

#define simple_strtoul		strtoul
#define simple_strtol		strtol
#define kstrtouint(s, b, p)	(-EINVAL)
#define kstrtoull(s, b, p)	(-EINVAL)
#define kstrtoint(s, b, p)	(-EINVAL)
static inline void get_random_bytes(void *p, size_t len)
{
	memset(p, 0x5a, len);
}

/* Jump labels */
#define DECLARE_STATIC_KEY_FALSE(name)	extern bool name
#define static_branch_unlikely(key)	true

/* Capabilities and keys */
#define CAP_SYS_RESOURCE	24
bool capable(int cap);

struct seq_file {
	size_t count;
	char buf[4096];
};
#define seq_printf(m, ...)						\
	((m)->count += snprintf((m)->buf + (m)->count,			\
				sizeof((m)->buf) - (m)->count, __VA_ARGS__))
#define seq_puts(m, s)		seq_printf(m, "%s", s)

union key_payload {
	void *data[4];
};

struct key_preparsed_payload {
	union key_payload payload;
	const void *data;
	size_t datalen, quotalen;
	long long expiry;
};

#define KEY_TYPE_GUARDED	4
#define KEY_IS_POSITIVE		1
#define KEY_FLAG_REVOKED	2
#define test_bit(nr, p)		((*(p) >> (nr)) & 1)
struct key {
	int sem, state;
	unsigned long flags;
	const char *description;
	const struct key_type *type;
	union key_payload payload;
	long long expiry;
};

struct key_type {
	const char *name;
	unsigned int flags;
	int (*preparse)(struct key_preparsed_payload *prep);
	void (*free_preparse)(struct key_preparsed_payload *prep);
	int (*instantiate)(struct key *key, struct key_preparsed_payload *prep);
	int (*update)(struct key *key, struct key_preparsed_payload *prep);
	void (*revoke)(struct key *key);
	void (*destroy)(struct key *key);
	void (*describe)(const struct key *key, struct seq_file *m);
};

typedef struct key *key_ref_t;
#define KEY_NEED_SEARCH		4
#define lookup_user_key(serial, flags, perm)	((key_ref_t)ERR_PTR(-ENOKEY))
#define key_ref_to_ptr(ref)	(ref)
#define key_ref_put(ref)	((void)(ref))
#define key_validate(key)	0
#define key_is_positive(key)	((key)->state == KEY_IS_POSITIVE)
#define key_is_negative(key)	((key)->state < 0)
#define key_payload_reserve(key, size)	0
#define down_read_killable(sem)	0
#define up_read(sem)		((void)(sem))
#define dereference_key_locked(key)	((key)->payload.data[0])
#define dereference_key_rcu(key)	((key)->payload.data[0])
#define rcu_assign_keypointer(key, p)	((key)->payload.data[0] = (p))
#define register_key_type(type)	0
#define late_initcall(fn)	int (*initcall_##fn)(void) = (fn)

#endif
