// SPDX-License-Identifier: GPL-2.0
/*
 * libFuzzer on the payloads of keys of the type "mktme": security/keys/mktme_keys.c
 * itself, built for user space with the headers beside this file.  What it accepts
 * must be what the documentation says is a payload, and nothing else.
 */
#include "security/keys/mktme_keys.c"

static bool with_capability = true, with_memory = true;
static struct mktme_key_params programmed;
static int keys;

bool capable(int cap)
{
	return with_capability;
}

void *kzalloc(size_t size, gfp_t flags)
{
	return with_memory ? calloc(1, size) : NULL;
}

int mktme_wait_collected(void) { return 0; }

struct mktme_key *mktme_key_create(const struct mktme_key_params *params, struct mktme_key *old)
{
	programmed = *params;
	keys++;
	return (struct mktme_key *)&programmed;
}

void mktme_key_destroy(struct mktme_key *key)
{
	keys--;
}

bool mktme_algorithm_enabled(enum mktme_algorithm algorithm)
{
	return true;
}

unsigned int mktme_key_keyid(const struct mktme_key *key)
{
	return ~0;
}

int mktme_key_erase(struct mktme_key *key)
{
	return 0;
}

int mktme_replace_vma_keys(struct mktme_key *old, struct mktme_key *new, bool back)
{
	return 0;
}

int mktme_replace_joined_keys(struct mktme_key *key, struct mktme_key *new)
{
	return 0;
}

void mktme_key_join(struct mktme_key *key, struct mktme_key *other) { }
void mktme_key_supersede(struct mktme_key *key, bool superseded) { }

bool mktme_key_superseded(const struct mktme_key *key)
{
	return false;
}

void mktme_key_get(struct mktme_key *key) { }

/* What the documentation says, in other words than the parser. */
struct value {
	const char *start;
	size_t len;
};

static bool equal(struct value v, const char *s)
{
	return v.len == strlen(s) && !memcmp(v.start, s, v.len);
}

static bool hex(struct value v, size_t digits)
{
	size_t i;

	for (i = 0; i < v.len; i++)
		if (!isxdigit((unsigned char)v.start[i]))
			return false;
	return v.len == digits;
}

static bool blank(unsigned char c)
{
	return (c >= 9 && c <= 13) || c == ' ' || c == 0xa0;
}

enum { NOTHING, KEY, ERASE };

static int expected(const char *p, size_t len)
{
	static const char * const names[] = { "type=", "algorithm=", "key=", "tweak=" };
	enum { TYPE, ALGORITHM, DATA, TWEAK, NAMES };
	struct value v[NAMES] = { };
	const char *end, *word;
	size_t digits, n;
	int i;

	if (!len || len > MKTME_MAX_PAYLOAD || memchr(p, 0, len))
		return NOTHING;
	/* The kernel's isspace() has 0xa0 too. */
	while (len && blank(*p)) {
		p++;
		len--;
	}
	while (len && blank(p[len - 1]))
		len--;
	if (len == 5 && !memcmp(p, "erase", 5))
		return ERASE;
	end = p + len;

	while (p < end) {
		if (strchr(" \t\n", *p)) {
			p++;
			continue;
		}
		for (word = p; p < end && !strchr(" \t\n", *p); p++)
			;
		for (i = 0; i < NAMES; i++) {
			n = strlen(names[i]);
			if (p - word >= n && !memcmp(word, names[i], n))
				break;
		}
		if (i == NAMES || v[i].start)
			return NOTHING;
		v[i] = (struct value){ word + n, p - word - n };
	}

	if (v[TYPE].start && equal(v[TYPE], "no-encrypt"))
		return v[ALGORITHM].start || v[DATA].start || v[TWEAK].start ? NOTHING : KEY;
	if (!v[TYPE].start || !v[ALGORITHM].start)
		return NOTHING;
	if (equal(v[TYPE], "user")) {
		if (!v[DATA].start || !v[TWEAK].start)
			return NOTHING;
	} else if (!equal(v[TYPE], "cpu")) {
		return NOTHING;
	}
	digits = equal(v[ALGORITHM], "aes-xts-128") ? 32 :
		 equal(v[ALGORITHM], "aes-xts-256") ? 64 : 0;
	if (!digits || (v[DATA].start && !hex(v[DATA], digits)) ||
	    (v[TWEAK].start && !hex(v[TWEAK], digits)))
		return NOTHING;
	return KEY;
}

#define CHECK(cond)							\
do {									\
	if (!(cond)) {							\
		fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond); \
		abort();						\
	}								\
} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct key_preparsed_payload prep = { .data = data, .datalen = len };
	int want = expected((const char *)data, len), ret;
	struct key key = { .description = "fuzz" };
	const struct mktme_key_params *params;
	struct seq_file m = { };
	size_t size;

	ret = key_type_mktme.preparse(&prep);
	CHECK(ret == (want == NOTHING ? -EINVAL : 0));
	params = prep.payload.data[0];
	CHECK(!!params == (want == KEY));
	if (params) {
		size = params->type == MKTME_TYPE_NO_ENCRYPT ? 0 :
			mktme_key_size(params->algorithm);
		CHECK(size <= MKTME_MAX_KEY_SIZE);
		CHECK(!memchr_inv(params->key + size, 0, MKTME_MAX_KEY_SIZE - size));
		CHECK(!memchr_inv(params->tweak + size, 0, MKTME_MAX_KEY_SIZE - size));
	}

	ret = key_type_mktme.instantiate(&key, &prep);
	CHECK(ret == (want == KEY ? 0 : -EINVAL));
	CHECK(keys == (want == KEY));
	if (!ret) {
		key.state = KEY_IS_POSITIVE;
		key_type_mktme.describe(&key, &m);
		CHECK(m.count < sizeof(m.buf));
		/* Update with itself, then the end of it. */
		CHECK(!key_type_mktme.update(&key, &prep));
		CHECK(keys == 1);
		key_type_mktme.revoke(&key);
		key_type_mktme.destroy(&key);
	}
	CHECK(!keys);
	key_type_mktme.free_preparse(&prep);

	/* Errors leave nothing behind: the leak checker looks. */
	if (len % 64 == 1) {
		memset(&prep.payload, 0, sizeof(prep.payload));
		with_memory = false;
		ret = key_type_mktme.preparse(&prep);
		CHECK(ret == -EINVAL || ret == -ENOMEM || (!ret && want == ERASE));
		with_memory = true;
		key_type_mktme.free_preparse(&prep);

		memset(&prep.payload, 0, sizeof(prep.payload));
		with_capability = false;
		CHECK(key_type_mktme.preparse(&prep) == -EPERM);
		with_capability = true;
		key_type_mktme.free_preparse(&prep);
	}
	return 0;
}
