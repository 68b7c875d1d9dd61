// SPDX-License-Identifier: GPL-2.0
/* KUnit tests of mktme_keys.c, which includes this file: the payload's parser. */

#include <kunit/test.h>

#define HEX16	"000102030405060708090a0b0c0d0e0f"

static int mktme_keys_test_init(struct kunit *test)
{
	/* The algorithms are those that firmware has enabled. */
	if (!mktme_enabled() || !mktme_algorithm_enabled(MKTME_AES_XTS_128))
		kunit_skip(test, "no MKTME here");
	return 0;
}

static int mktme_test_parse(struct kunit *test, const char *payload,
			    struct mktme_key_params *params)
{
	char *copy = kunit_kstrdup(test, payload, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, copy);
	memset(params, 0, sizeof(*params));
	return mktme_parse(copy, params);
}

static void mktme_test_good(struct kunit *test)
{
	struct mktme_key_params params;

	KUNIT_EXPECT_EQ(test, 0, mktme_test_parse(test,
		"tweak=FF0102030405060708090a0b0c0d0e0f\n"
		"\tkey=" HEX16 " algorithm=aes-xts-128 type=user", &params));
	KUNIT_EXPECT_EQ(test, MKTME_TYPE_USER, params.type);
	KUNIT_EXPECT_EQ(test, MKTME_AES_XTS_128, params.algorithm);
	KUNIT_EXPECT_EQ(test, 0x0f, params.key[15]);
	KUNIT_EXPECT_EQ(test, 0xff, params.tweak[0]);
	KUNIT_EXPECT_NULL(test, memchr_inv(params.key + 16, 0, 16));

	KUNIT_EXPECT_EQ(test, 0, mktme_test_parse(test,
		"type=cpu algorithm=aes-xts-128", &params));
	KUNIT_EXPECT_EQ(test, MKTME_TYPE_CPU, params.type);
	KUNIT_EXPECT_NOT_NULL(test, memchr_inv(params.key, 0, 16));

	KUNIT_EXPECT_EQ(test, 0, mktme_test_parse(test, "type=no-encrypt", &params));
	KUNIT_EXPECT_EQ(test, MKTME_TYPE_NO_ENCRYPT, params.type);
}

static void mktme_test_bad(struct kunit *test)
{
	static const char * const bad[] = {
		"", " ", "type", "type=", "type=cpu", "type=no-encrypt type=cpu",
		"algorithm=aes-xts-128", "type=cpu algorithm=aes",
		"type=cpu algorithm=aes-xts-128 key=" HEX16 HEX16,
		"type=cpu algorithm=aes-xts-128 color=red",
		"type=cpu algorithm=aes-xts-128 algorithm=aes-xts-128",
		"type=user algorithm=aes-xts-128 key=" HEX16,
		"type=user algorithm=aes-xts-128 tweak=" HEX16,
		"type=user algorithm=aes-xts-128 key=" HEX16 "0 tweak=" HEX16,
		"type=no-encrypt algorithm=aes-xts-128", "erase", "erase type=cpu",
	};
	struct mktme_key_params params;
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		KUNIT_EXPECT_EQ_MSG(test, -EINVAL,
				    mktme_test_parse(test, bad[i], &params),
				    "%s", bad[i]);
}

static struct kunit_case mktme_keys_test_cases[] = {
	KUNIT_CASE(mktme_test_good),
	KUNIT_CASE(mktme_test_bad),
	{}
};

static struct kunit_suite mktme_keys_test_suite = {
	.name = "mktme_keys",
	.init = mktme_keys_test_init,
	.test_cases = mktme_keys_test_cases,
};

kunit_test_suite(mktme_keys_test_suite);
