// SPDX-License-Identifier: GPL-2.0
/* The key type "mktme": payloads, permissions, and what becomes of KeyIDs. */

#include "mktme_test.h"

#define HEX16	"000102030405060708090a0b0c0d0e0f"
#define HEX32	"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

FIXTURE(keys)
{
};

FIXTURE_SETUP(keys)
{
	SKIP_UNLESS_ALONE();
	/* Each test has a process keyring of its own: it runs in a child. */
}

FIXTURE_TEARDOWN(keys)
{
}

#define A128	"algorithm=aes-xts-128 "
#define A256	"algorithm=aes-xts-256 "

TEST_F(keys, good_payloads)
{
	static const char * const good[] = {
		"type=cpu " A128,
		"type=cpu " A256,
		A128 "type=cpu",
		"type=no-encrypt",
		"type=user " A128 "key=" HEX16 " tweak=" HEX16,
		"tweak=" HEX16 " key=" HEX16 " " A128 "type=user\n",
		"type=user  \t" A256 "key=" HEX32 " tweak=" HEX32,
		"type=cpu " A128 "key=" HEX16,
		"type=cpu " A128 "key=" HEX16 " tweak=" HEX16,
	};
	serial_t key;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		if ((strstr(good[i], A128) && !has_algorithm("aes-xts-128")) ||
		    (strstr(good[i], A256) && !has_algorithm("aes-xts-256")))
			continue;
		key = new_key("good", good[i]);
		EXPECT_LT(0, key)
			TH_LOG("%s: %s", good[i], strerror(errno));
		unlink_key(key);
	}
	EXPECT_TRUE(keyids_fall_to(0));
}

TEST_F(keys, bad_payloads)
{
	static const char * const bad[] = {
		" ",
		"cpu",
		"type",
		"type=",
		"type=cpu",
		"type=none",
		"type=cpux " A128,
		"type=CPU " A128,
		A128,
		"type=cpu algorithm=aes-xts-512",
		"type=cpu algorithm=aes-cbc-128",
		"type=cpu algorithm=",
		"type=cpu type=cpu " A128,
		"type=cpu " A128 A128,
		"type=cpu " A128 "color=red",
		"type=cpu " A128 "key=",
		"type=cpu " A128 "key=" HEX32,
		"type=no-encrypt " A128,
		"type=no-encrypt key=" HEX16,
		"type=user " A128,
		"type=user " A128 "key=" HEX16,
		"type=user " A128 "tweak=" HEX16,
		"type=user " A128 "key=" HEX16 " tweak=" HEX16 " tweak=" HEX16,
		"type=user " A128 "key=" HEX16 "0 tweak=" HEX16,
		"type=user " A128 "key=" HEX32 " tweak=" HEX16,
		"type=user " A128 "key=" HEX16 " tweak=" HEX32,
		"type=user " A256 "key=" HEX16 " tweak=" HEX16,
		"type=user " A128 "key=g00102030405060708090a0b0c0d0e0f tweak=" HEX16,
		"type=user " A128 "key=0x0102030405060708090a0b0c0d0e0f tweak=" HEX16,
	};
	char big[4096];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		errno = 0;
		EXPECT_EQ(-1, new_key("bad", bad[i]));
		EXPECT_EQ(EINVAL, errno)
			TH_LOG("%s", bad[i]);
	}

	EXPECT_EQ(-1, add_key(MKTME_KEY_TYPE, "bad", NULL, 0));
	EXPECT_EQ(EINVAL, errno);
	/* With a NUL inside, and far too long, though with nothing but blanks. */
	EXPECT_EQ(-1, add_key(MKTME_KEY_TYPE, "bad", "type=cpu\0" A128,
			      sizeof("type=cpu\0" A128)));
	EXPECT_EQ(EINVAL, errno);
	memset(big, ' ', sizeof(big));
	memcpy(big, "type=cpu " A128, strlen("type=cpu " A128));
	EXPECT_EQ(-1, add_key(MKTME_KEY_TYPE, "bad", big, sizeof(big)));
	EXPECT_EQ(EINVAL, errno);

	EXPECT_EQ(0, read_sysfs(SYSFS "keyids_in_use"));
}

TEST_F(keys, not_readable)
{
	serial_t key = new_key("secret", USER_KEY);
	char buf[256];

	ASSERT_LT(0, key);
	EXPECT_EQ(-1, keyctl(KEYCTL_READ, key, (unsigned long)buf, sizeof(buf), 0));
	EXPECT_EQ(EOPNOTSUPP, errno);
}

TEST_F(keys, shown_in_proc_keys)
{
	static const struct {
		const char *name, *payload, *shown;
	} keys[] = {
		{ "shown-a", USER_128, "shown-a: user aes-xts-128 KeyID " },
		{ "shown-b", "type=cpu " A256, "shown-b: cpu aes-xts-256 KeyID " },
		{ "shown-c", "type=no-encrypt", "shown-c: no-encrypt KeyID " },
	};
	char buf[65536];
	FILE *f;
	size_t i, n;

	SKIP_WITHOUT_ALGORITHM("aes-xts-128");
	SKIP_WITHOUT_ALGORITHM("aes-xts-256");
	SKIP_WITHOUT_KEYIDS(3, 0);
	for (i = 0; i < ARRAY_SIZE(keys); i++)
		ASSERT_LT(0, new_key(keys[i].name, keys[i].payload));

	f = fopen("/proc/keys", "r");
	ASSERT_NE(NULL, f);
	n = fread(buf, 1, sizeof(buf) - 1, f);
	buf[n] = 0;
	fclose(f);
	for (i = 0; i < ARRAY_SIZE(keys); i++)
		EXPECT_NE(NULL, strstr(buf, keys[i].shown));
	/* Nothing of the key itself. */
	EXPECT_EQ(NULL, strstr(buf, "0001020304"));
}

TEST_F(keys, needs_capability)
{
	struct __user_cap_header_struct hdr = { _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { };

	ASSERT_EQ(0, syscall(__NR_capget, &hdr, data));
	data[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective &=
		~CAP_TO_MASK(CAP_SYS_RESOURCE);
	ASSERT_EQ(0, syscall(__NR_capset, &hdr, data));

	EXPECT_EQ(-1, new_key("powerless", CPU_KEY));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, read_sysfs(SYSFS "keyids_in_use"));
}

TEST_F(keys, all_keyids)
{
	long i, total = read_sysfs(SYSFS "keyids_total"), round;
	char name[32];

	ASSERT_LT(0, total);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < total; i++) {
			snprintf(name, sizeof(name), "key-%ld", i);
			ASSERT_LT(0, new_key(name, CPU_KEY))
				TH_LOG("%ld of %ld: %s", i, total, strerror(errno));
		}
		EXPECT_EQ(total, read_sysfs(SYSFS "keyids_in_use"));
		EXPECT_EQ(-1, new_key("one-more", CPU_KEY));
		EXPECT_EQ(ENOSPC, errno);

		ASSERT_EQ(0, keyctl(KEYCTL_CLEAR, KEY_SPEC_PROCESS_KEYRING, 0, 0, 0));
		ASSERT_TRUE(keyids_fall_to(0));
	}
}

TEST_F(keys, revoke_frees_the_keyid)
{
	serial_t key = new_key("revoked", CPU_KEY);

	ASSERT_LT(0, key);
	EXPECT_EQ(1, read_sysfs(SYSFS "keyids_in_use"));
	ASSERT_EQ(0, revoke_key(key));
	EXPECT_TRUE(keyids_fall_to(0));
	/* And once only. */
	unlink_key(key);
	usleep(100000);
	EXPECT_EQ(0, read_sysfs(SYSFS "keyids_in_use"));
}

TEST_F(keys, invalidate_frees_the_keyid)
{
	serial_t key = new_key("invalid", CPU_KEY);

	ASSERT_LT(0, key);
	ASSERT_EQ(0, keyctl(KEYCTL_INVALIDATE, key, 0, 0, 0));
	EXPECT_TRUE(keyids_fall_to(0));
}

TEST_HARNESS_MAIN
