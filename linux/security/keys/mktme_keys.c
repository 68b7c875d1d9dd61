// SPDX-License-Identifier: GPL-2.0
/*
 * The key type "mktme": keys that memory is encrypted with.
 *
 * A key owns a hardware KeyID.  Its material goes into the hardware and is
 * forgotten: there is nothing to read.  See Documentation/arch/x86/mktme/.
 */

#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/hex.h>
#include <linux/init.h>
#include <linux/key-type.h>
#include <linux/key.h>
#include <linux/mktme.h>
#include <linux/parser.h>
#include <linux/random.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

#include <uapi/linux/mktme.h>

/* Beside the KeyID, at index 0: what it was programmed with, as numbers. */
enum {
	mktme_data_type = 1,
	mktme_data_algorithm,
};

/* Twice the longest that makes sense. */
#define MKTME_MAX_PAYLOAD	512

enum mktme_opt {
	OPT_TYPE, OPT_ALGORITHM, OPT_KEY, OPT_TWEAK, OPT_ERROR
};

static const match_table_t mktme_options = {
	{ OPT_TYPE,		MKTME_OPT_TYPE "=%s" },
	{ OPT_ALGORITHM,	MKTME_OPT_ALGORITHM "=%s" },
	{ OPT_KEY,		MKTME_OPT_KEY "=%s" },
	{ OPT_TWEAK,		MKTME_OPT_TWEAK "=%s" },
	{ OPT_ERROR,		NULL }
};

static const struct {
	const char *name;
	enum mktme_key_type type;
} mktme_types[] = {
	{ MKTME_TYPE_NAME_CPU,		MKTME_TYPE_CPU },
	{ MKTME_TYPE_NAME_USER,		MKTME_TYPE_USER },
	{ MKTME_TYPE_NAME_NO_ENCRYPT,	MKTME_TYPE_NO_ENCRYPT },
};

static const struct {
	const char *name;
	enum mktme_algorithm algorithm;
} mktme_algorithms[] = {
	{ MKTME_ALGORITHM_AES_XTS_128,	MKTME_AES_XTS_128 },
	{ MKTME_ALGORITHM_AES_XTS_256,	MKTME_AES_XTS_256 },
};

static int mktme_parse_type(const char *name, enum mktme_key_type *type)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mktme_types); i++) {
		if (!strcmp(name, mktme_types[i].name)) {
			*type = mktme_types[i].type;
			return 0;
		}
	}
	return -EINVAL;
}

static int mktme_parse_algorithm(const char *name,
				 enum mktme_algorithm *algorithm)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mktme_algorithms); i++) {
		if (!strcmp(name, mktme_algorithms[i].name)) {
			*algorithm = mktme_algorithms[i].algorithm;
			return mktme_algorithm_enabled(*algorithm) ? 0 : -EINVAL;
		}
	}
	return -EINVAL;
}

static int mktme_parse_hex(u8 *dst, const char *hex, size_t size)
{
	if (strlen(hex) != 2 * size || hex2bin(dst, hex, size))
		return -EINVAL;
	return 0;
}

/*
 * Parse a payload, which is cut to pieces.  The words may come in any order,
 * so that key lengths are checked only when all are known.
 */
static int mktme_parse(char *payload, struct mktme_key_params *params)
{
	const char *value[OPT_ERROR] = { };
	substring_t args[MAX_OPT_ARGS];
	size_t size;
	char *word;
	int opt, ret;

	while ((word = strsep(&payload, " \t\n"))) {
		if (!*word)
			continue;
		opt = match_token(word, mktme_options, args);
		if (opt == OPT_ERROR || value[opt])
			return -EINVAL;
		value[opt] = args[0].from;
	}

	if (!value[OPT_TYPE])
		return -EINVAL;
	ret = mktme_parse_type(value[OPT_TYPE], &params->type);
	if (ret)
		return ret;

	if (params->type == MKTME_TYPE_NO_ENCRYPT) {
		if (value[OPT_ALGORITHM] || value[OPT_KEY] || value[OPT_TWEAK])
			return -EINVAL;
		return 0;
	}

	if (!value[OPT_ALGORITHM])
		return -EINVAL;
	ret = mktme_parse_algorithm(value[OPT_ALGORITHM], &params->algorithm);
	if (ret)
		return ret;
	size = mktme_key_size(params->algorithm);

	if (params->type == MKTME_TYPE_USER) {
		if (!value[OPT_KEY] || !value[OPT_TWEAK])
			return -EINVAL;
	} else {
		/* The CPU mixes it with entropy of its own. */
		get_random_bytes(params->key, size);
		get_random_bytes(params->tweak, size);
	}
	if (value[OPT_KEY])
		ret = mktme_parse_hex(params->key, value[OPT_KEY], size);
	if (!ret && value[OPT_TWEAK])
		ret = mktme_parse_hex(params->tweak, value[OPT_TWEAK], size);
	return ret;
}

/*
 * prep->payload.data[0] is what the hardware is programmed with, until
 * ->free_preparse() wipes it; nothing of it stays in the key.  NULL to erase.
 */
static int mktme_preparse(struct key_preparsed_payload *prep)
{
	struct mktme_key_params *params;
	char *payload, *words;
	int ret;

	/* KeyIDs are few. */
	if (!capable(CAP_SYS_RESOURCE))
		return -EPERM;
	if (!mktme_enabled())
		return -EOPNOTSUPP;
	if (!prep->data || !prep->datalen || prep->datalen > MKTME_MAX_PAYLOAD ||
	    memchr(prep->data, 0, prep->datalen))
		return -EINVAL;

	payload = kmemdup_nul(prep->data, prep->datalen, GFP_KERNEL);
	if (!payload)
		return -ENOMEM;
	prep->quotalen = sizeof(*params);
	words = strim(payload);
	if (!strcmp(words, MKTME_OPT_ERASE)) {
		kfree_sensitive(payload);
		return 0;
	}
	params = kzalloc_obj(*params);
	ret = params ? mktme_parse(words, params) : -ENOMEM;
	kfree_sensitive(payload);
	/* It is about to take a KeyID.  Later, locks are held. */
	if (!ret)
		ret = mktme_wait_collected();
	if (ret) {
		kfree_sensitive(params);
		return ret;
	}
	prep->payload.data[0] = params;
	return 0;
}

static void mktme_free_preparse(struct key_preparsed_payload *prep)
{
	kfree_sensitive(prep->payload.data[0]);
}

static void mktme_set(struct key *key, const struct mktme_key_params *params,
		      struct mktme_key *mktme_key)
{
	/* For ->describe(), also when the KeyID is gone. */
	key->payload.data[mktme_data_type] = (void *)params->type;
	key->payload.data[mktme_data_algorithm] = (void *)params->algorithm;
	rcu_assign_keypointer(key, mktme_key);
}

static int mktme_instantiate(struct key *key, struct key_preparsed_payload *prep)
{
	struct mktme_key_params *params = prep->payload.data[0];
	struct mktme_key *mktme_key;
	int ret;

	/* There is nothing to erase yet. */
	if (!params)
		return -EINVAL;

	ret = key_payload_reserve(key, prep->quotalen);
	if (ret)
		return ret;

	mktme_key = mktme_key_create(params, NULL);
	if (IS_ERR(mktme_key))
		return PTR_ERR(mktme_key);
	mktme_set(key, params, mktme_key);
	return 0;
}

/* Called with key->sem held for writing, or when nobody else knows the key. */
static void mktme_drop(struct key *key)
{
	struct mktme_key *mktme_key = key->payload.data[0];

	if (mktme_key) {
		rcu_assign_keypointer(key, NULL);
		mktme_key_destroy(mktme_key);
	}
}

/* All memory under @old goes under @new and keeps its contents, or none does. */
static int mktme_rotate(struct mktme_key *old, struct mktme_key *new)
{
	bool superseded = mktme_key_superseded(old);
	int ret;

	mktme_key_supersede(old, true);
	ret = mktme_replace_joined_keys(old, new);
	/* Pages, and what could not go back, can be under either from here on. */
	mktme_key_join(old, new);
	if (!ret)
		return 0;

	/*
	 * A page that is pinned on the way back stays under the new key, which
	 * lasts until it is gone.  Its VMA is the old key's all the same, so
	 * that erasing that unmaps the page, and both are erased.  So is what
	 * can't be reached before this is killed: its VMAs stay the new key's.
	 */
	mktme_key_supersede(new, true);
	mktme_key_supersede(old, superseded);
	mktme_replace_vma_keys(new, old, true);
	return ret;
}

/*
 * Called with key->sem held for writing, which mktme_key_lookup() waits for.
 * Needs write permission for the key, and the right to make one.
 */
static int mktme_update(struct key *key, struct key_preparsed_payload *prep)
{
	struct mktme_key *old = dereference_key_locked(key);
	struct mktme_key_params *params = prep->payload.data[0];
	struct mktme_key *new;
	int ret;

	/* It may have been revoked while this waited for the semaphore. */
	if (test_bit(KEY_FLAG_REVOKED, &key->flags))
		return -EKEYREVOKED;

	if (!params) {
		/* There has never been anything to erase. */
		if (key_is_negative(key))
			return -EINVAL;
		ret = old ? mktme_key_erase(old) : 0;
		if (!ret)
			mktme_drop(key);
		return ret;
	}

	ret = key_payload_reserve(key, prep->quotalen);
	if (ret)
		return ret;
	new = mktme_key_create(params, old);
	if (IS_ERR(new))
		return PTR_ERR(new);
	ret = old ? mktme_rotate(old, new) : 0;
	if (ret) {
		mktme_key_destroy(new);
		return ret;
	}
	mktme_set(key, params, new);
	if (old)
		mktme_key_destroy(old);
	/* It was to be negative for a while only. */
	if (key_is_negative(key))
		key->expiry = prep->expiry;
	return 0;
}

/* No new memory from now on; what is under the key stays as it is. */
static void mktme_revoke(struct key *key)
{
	key_payload_reserve(key, 0);
	mktme_drop(key);
}

static void mktme_destroy(struct key *key)
{
	mktme_drop(key);
}

/* Called under RCU, which the KeyID's release waits for. */
static void mktme_describe(const struct key *key, struct seq_file *m)
{
	unsigned long type = (unsigned long)key->payload.data[mktme_data_type];
	unsigned long algorithm =
		(unsigned long)key->payload.data[mktme_data_algorithm];
	const struct mktme_key *mktme_key;
	int i;

	seq_puts(m, key->description);
	if (!key_is_positive(key))
		return;

	for (i = 0; i < ARRAY_SIZE(mktme_types); i++)
		if (mktme_types[i].type == type)
			seq_printf(m, ": %s", mktme_types[i].name);
	for (i = 0; i < ARRAY_SIZE(mktme_algorithms); i++)
		if (type != MKTME_TYPE_NO_ENCRYPT &&
		    mktme_algorithms[i].algorithm == algorithm)
			seq_printf(m, " %s", mktme_algorithms[i].name);
	mktme_key = dereference_key_rcu(key);
	if (mktme_key)
		seq_printf(m, " KeyID %u", mktme_key_keyid(mktme_key));
}

static struct key_type key_type_mktme = {
	.name		= MKTME_KEY_TYPE,
	/* Who is given a key to use must not take it from its owner. */
	.flags		= KEY_TYPE_GUARDED,
	.preparse	= mktme_preparse,
	.free_preparse	= mktme_free_preparse,
	.instantiate	= mktme_instantiate,
	.update		= mktme_update,
	.revoke		= mktme_revoke,
	.destroy	= mktme_destroy,
	.describe	= mktme_describe,
};

/**
 * mktme_key_lookup - find the KeyID behind a key's serial number
 * @serial: serial number, or one of the special ones of keyctl(2)
 *
 * Context: Process context; asks for search permission with the caller's
 * credentials, takes the key's semaphore.
 * Return: The KeyID, with a reference that mktme_key_put() drops, or an
 * ERR_PTR: -EINVAL for a key of another type, -ENOKEY (if it was erased, too),
 * -EKEYREVOKED, -EKEYEXPIRED, what it was rejected with, -EACCES, or -ERESTARTSYS
 * where a signal came while it was under construction; -EINTR if killed later.
 */
struct mktme_key *mktme_key_lookup(key_serial_t serial)
{
	struct mktme_key *mktme_key;
	key_ref_t ref;
	struct key *key;
	int ret;

	ref = lookup_user_key(serial, 0, KEY_NEED_SEARCH);
	if (IS_ERR(ref))
		return ERR_CAST(ref);
	key = key_ref_to_ptr(ref);

	if (key->type != &key_type_mktme) {
		mktme_key = ERR_PTR(-EINVAL);
		goto put;
	}

	/* Whoever erases the key, or rotates it, can be waiting for long. */
	mktme_key = ERR_PTR(-EINTR);
	if (down_read_killable(&key->sem))
		goto put;
	ret = key_validate(key);
	mktme_key = dereference_key_locked(key);
	/* It was erased, or could not be, so that what it encrypts by is open? */
	if (!ret && (!mktme_key || mktme_key_superseded(mktme_key)))
		ret = -ENOKEY;
	if (ret)
		mktme_key = ERR_PTR(ret);
	else
		mktme_key_get(mktme_key);
	up_read(&key->sem);
put:
	key_ref_put(ref);
	return mktme_key;
}

static int __init mktme_keys_init(void)
{
	return mktme_enabled() ? register_key_type(&key_type_mktme) : 0;
}
late_initcall(mktme_keys_init);

#ifdef CONFIG_X86_MKTME_KUNIT_TEST
#include "mktme_keys_test.c"
#endif
