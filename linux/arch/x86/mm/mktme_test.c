// SPDX-License-Identifier: GPL-2.0
/* KUnit tests of mktme.c, which includes this file: machines with MKTME only. */

#include <kunit/test.h>
#include <linux/io.h>

static int mktme_test_init(struct kunit *test)
{
	if (!mktme_enabled())
		kunit_skip(test, "no MKTME here");
	return 0;
}

static const struct mktme_key_params mktme_test_params = {
	.type = MKTME_TYPE_NO_ENCRYPT,
};

/* Each KeyID is given out once, 0 never, and those that come back again. */
static void mktme_test_allocator(struct kunit *test)
{
	unsigned int used, n, keyid, *keyids;

	keyids = kunit_kcalloc(test, mktme_max_keyid, sizeof(*keyids), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, keyids);

	mutex_lock(&mktme_lock);
	used = mktme_nr_keyids;
	for (n = 0; (keyid = mktme_alloc_keyid()); n++) {
		if (n < mktme_max_keyid)
			keyids[n] = keyid;
		KUNIT_EXPECT_LE(test, keyid, mktme_max_keyid);
		KUNIT_EXPECT_TRUE(test, !n || keyid > keyids[n - 1]);
	}
	KUNIT_EXPECT_EQ(test, n, mktme_max_keyid - used);
	KUNIT_EXPECT_EQ(test, mktme_nr_keyids, mktme_max_keyid);

	if (n) {
		mktme_free_keyid(keyids[n / 2]);
		KUNIT_EXPECT_EQ(test, mktme_alloc_keyid(), keyids[n / 2]);
	}
	while (n)
		mktme_free_keyid(keyids[--n]);
	KUNIT_EXPECT_EQ(test, mktme_nr_keyids, used);
	mutex_unlock(&mktme_lock);
}

/* What goes to the hardware is what the specification says, byte by byte. */
static void mktme_test_program_struct(struct kunit *test)
{
	struct mktme_key_params params = {
		.type = MKTME_TYPE_USER,
		.algorithm = MKTME_AES_XTS_256,
		.key = { 1, [31] = 2 },
		.tweak = { 3, [31] = 4 },
	};
	struct mktme_key_program *program;
	u8 *bytes;

	program = kunit_kzalloc(test, sizeof(*program), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, program);
	bytes = (u8 *)program;
	KUNIT_EXPECT_TRUE(test, IS_ALIGNED((unsigned long)program, 256));
	mktme_fill_program(program, 0x1234, &params);
	KUNIT_EXPECT_EQ(test, bytes[0], 0x34);
	KUNIT_EXPECT_EQ(test, bytes[1], 0x12);
	KUNIT_EXPECT_EQ(test, bytes[2], 0);	/* SET_KEY_DIRECT */
	KUNIT_EXPECT_EQ(test, bytes[3], 4);	/* AES-XTS-256 */
	KUNIT_EXPECT_EQ(test, bytes[64], 1);
	KUNIT_EXPECT_EQ(test, bytes[64 + 31], 2);
	KUNIT_EXPECT_EQ(test, bytes[128], 3);
	KUNIT_EXPECT_EQ(test, bytes[128 + 31], 4);
	KUNIT_EXPECT_NULL(test, memchr_inv(bytes + 4, 0, 60));
	KUNIT_EXPECT_NULL(test, memchr_inv(bytes + 96, 0, 32));
}

/* A page table entry has its page's KeyID, whatever is done to it. */
static void mktme_test_page_tables(struct kunit *test)
{
	struct mktme_key *key = mktme_key_create(&mktme_test_params, NULL);
	struct folio *folio = folio_alloc(GFP_KERNEL, PMD_ORDER);
	struct page *page;
	u64 bits;
	pte_t pte;
	pmd_t pmd;

	KUNIT_ASSERT_FALSE(test, IS_ERR(key));
	KUNIT_ASSERT_NOT_NULL(test, folio);
	page = folio_page(folio, 0);
	pte = mk_pte(page, PAGE_SHARED);
	KUNIT_EXPECT_EQ(test, pte_val(pte) & PTE_KEYID_MASK, 0);

	__mktme_prep_folio(folio, key, true);
	KUNIT_EXPECT_TRUE(test, PageHighMem(page));
	KUNIT_EXPECT_EQ(test, page_keyid(page), key->keyid);
	KUNIT_EXPECT_EQ(test, page_keyid(page + 1), key->keyid);
	KUNIT_EXPECT_EQ(test, mktme_key_bytes(key), PMD_SIZE);
	bits = (u64)key->keyid << mktme_keyid_shift;

	pte = mk_pte(page, PAGE_SHARED);
	KUNIT_EXPECT_EQ(test, pte_val(pte) & PTE_KEYID_MASK, bits);
	KUNIT_EXPECT_EQ(test, pte_pfn(pte), page_to_pfn(page));
	KUNIT_EXPECT_PTR_EQ(test, pte_page(pte), page);
	pte = pte_modify(pte, PAGE_READONLY);
	KUNIT_EXPECT_FALSE(test, pte_write(pte));
	KUNIT_EXPECT_EQ(test, pte_val(pte) & PTE_KEYID_MASK, bits);
	/* Inverted for L1TF, and back. */
	pte = pte_modify(pte, PAGE_NONE);
	KUNIT_EXPECT_EQ(test, pte_pfn(pte), page_to_pfn(page));
	pte = pte_modify(pte, PAGE_SHARED);
	KUNIT_EXPECT_EQ(test, pte_val(pte) & PTE_KEYID_MASK, bits);
	pte = pte_mkdirty(pte_mkyoung(pte_wrprotect(pte)));
	KUNIT_EXPECT_EQ(test, pte_val(pte) & PTE_KEYID_MASK, bits);
	pte = mktme_rekey_pte(mk_pte(ZERO_PAGE(0), PAGE_READONLY), page);
	KUNIT_EXPECT_EQ(test, pte_val(pte) & PTE_KEYID_MASK, bits);

	pmd = folio_mk_pmd(folio, PAGE_SHARED);
	KUNIT_EXPECT_EQ(test, pmd_val(pmd) & PTE_KEYID_MASK, bits);
	KUNIT_EXPECT_EQ(test, pmd_pfn(pmd), page_to_pfn(page));
	pmd = pmd_modify(pmd, PAGE_READONLY);
	KUNIT_EXPECT_EQ(test, pmd_val(pmd) & PTE_KEYID_MASK, bits);
	pmd = pmd_modify(pmd, PAGE_NONE);
	KUNIT_EXPECT_EQ(test, pmd_pfn(pmd), page_to_pfn(page));
	pmd = pmd_modify(pmd, PAGE_SHARED);
	KUNIT_EXPECT_EQ(test, pmd_val(pmd) & PTE_KEYID_MASK, bits);

	KUNIT_EXPECT_EQ(test, mktme_dma_addr(page, page_to_phys(page)),
			page_to_phys(page) | bits);
	KUNIT_EXPECT_EQ(test, mktme_phys_keyid_bits(page_to_phys(page)), bits);
	KUNIT_EXPECT_EQ(test, mktme_strip_keyid(page_to_phys(page) | bits),
			page_to_phys(page));

	folio_put(folio);
	mktme_key_destroy(key);
}

static struct kunit_case mktme_test_cases[] = {
	KUNIT_CASE(mktme_test_allocator),
	KUNIT_CASE(mktme_test_program_struct),
	KUNIT_CASE(mktme_test_page_tables),
	{}
};

static struct kunit_suite mktme_test_suite = {
	.name = "mktme",
	.init = mktme_test_init,
	.test_cases = mktme_test_cases,
};

kunit_test_suite(mktme_test_suite);
