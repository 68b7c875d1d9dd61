/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Multi-key total memory encryption: what mm, the key service and drivers need
 * to know of it.  The hardware's side is arch/x86/mm/mktme.c, that of the
 * address space mm/encrypt_mprotect.c, the keys' security/keys/mktme_keys.c.
 */
#ifndef _LINUX_MKTME_H
#define _LINUX_MKTME_H

#include <linux/types.h>

struct folio;
struct mktme_key;
struct mm_struct;
struct page;
struct seq_file;
struct vm_area_struct;
struct zone;

#ifdef CONFIG_X86_MKTME

#include <linux/jump_label.h>

DECLARE_STATIC_KEY_FALSE(mktme_enabled_key);

/* Can memory be put under a key here?  False for good after boot, or true. */
static __always_inline bool mktme_enabled(void)
{
	return static_branch_unlikely(&mktme_enabled_key);
}

/* How a key comes about: the value is the command of MKTME_KEY_PROGRAM. */
enum mktme_key_type {
	MKTME_TYPE_USER		= 0,	/* key material from user space */
	MKTME_TYPE_CPU		= 1,	/* random, known to the CPU alone */
	MKTME_TYPE_NO_ENCRYPT	= 3,	/* DRAM holds plaintext */
};

/* Encryption algorithms: bit numbers in IA32_TME_ACTIVATE[63:48]. */
enum mktme_algorithm {
	MKTME_AES_XTS_128	= 0,
	MKTME_AES_XTS_256	= 2,
};

#define MKTME_MAX_KEY_SIZE	32

/**
 * struct mktme_key_params - what a KeyID is to be programmed with
 * @type: where the key comes from
 * @algorithm: meaningless for %MKTME_TYPE_NO_ENCRYPT
 * @key: data key, or entropy for the CPU's generator
 * @tweak: tweak key, likewise
 *
 * @key and @tweak are mktme_key_size(@algorithm) bytes, the rest is zero.
 */
struct mktme_key_params {
	enum mktme_key_type type;
	enum mktme_algorithm algorithm;
	u8 key[MKTME_MAX_KEY_SIZE];
	u8 tweak[MKTME_MAX_KEY_SIZE];
};

static inline size_t mktme_key_size(enum mktme_algorithm algorithm)
{
	return algorithm == MKTME_AES_XTS_256 ? 32 : 16;
}

bool mktme_algorithm_enabled(enum mktme_algorithm algorithm);

struct mktme_key *mktme_key_create(const struct mktme_key_params *params,
				   struct mktme_key *old);
void mktme_key_destroy(struct mktme_key *key);
void mktme_key_get(struct mktme_key *key);
void mktme_key_put(struct mktme_key *key);
bool mktme_key_in_vmas(const struct mktme_key *key);
unsigned int mktme_key_keyid(const struct mktme_key *key);
struct mktme_key *mktme_key_lookup(s32 serial);
void mktme_key_supersede(struct mktme_key *key, bool superseded);
bool mktme_key_superseded(const struct mktme_key *key);
void mktme_key_join(struct mktme_key *key, struct mktme_key *other);
int mktme_replace_joined_keys(struct mktme_key *key, struct mktme_key *new);
int mktme_key_erase(struct mktme_key *key);
int mktme_wait_collected(void);
int mktme_replace_vma_keys(struct mktme_key *old, struct mktme_key *new,
			   bool back);
void __mktme_fork(struct mm_struct *mm, struct mm_struct *oldmm);

/*
 * In place of the key of VMAs whose key was erased.  They can't be accessed, by
 * nobody, though pages may be in them until these are collected.
 */
extern struct mktme_key mktme_erased_key;

/* Serialized like vm_flags: no fault is under way when it becomes true. */
#define vma_mktme_erased(vma)						\
	(mktme_enabled() && (vma)->mktme_key == &mktme_erased_key)

unsigned int page_keyid(const struct page *page);
struct mktme_key *page_mktme_key(const struct page *page);
void __mktme_prep_folio(struct folio *folio, struct mktme_key *key, bool zero);
struct folio *mktme_take_kept(struct mktme_key *key, int nid, bool zero);
void __mktme_drain_kept(struct zone *zone, bool force);
bool __mktme_free_pages(struct page *page, unsigned int order);
void mktme_release_poisoned(struct page *page);
void mktme_reencrypt_folio(struct folio *folio, struct mktme_key *key,
			   void *buf);
bool mktme_in_use(void);

/* Before mktme_enabled() tells: false if it will be false. */
#define mktme_expected()	(mktme_keyid_mask != 0)

/* Used in macros since the page flags are not known here yet. */
#define mktme_page_pgprot(page, prot)					\
({									\
	pgprot_t __mktme_prot = (prot);					\
									\
	if (PageEncrypted(page))					\
		pgprot_val(__mktme_prot) |= __mktme_page_keyid_bits(page); \
	__mktme_prot;							\
})
u64 __mktme_page_keyid_bits(const struct page *page);
extern phys_addr_t mktme_keyid_mask;

/* A page's entry with the KeyID that the page has now. */
#define mktme_rekey_pte(pte, page)					\
	__pte((pte_val(pte) & ~PTE_KEYID_MASK) | __mktme_page_keyid_bits(page))
#define mktme_rekey_pmd(pmd, page)					\
	__pmd((pmd_val(pmd) & ~PTE_KEYID_MASK) | __mktme_page_keyid_bits(page))

/* Bus addresses have the KeyID where physical addresses have it. */
#define mktme_dma_addr(page, addr)					\
	((dma_addr_t)(addr) | (PageEncrypted(page) ?			\
			       __mktme_page_keyid_bits(page) : 0))
/* Likewise for who has but the address, which can be that of no page. */
#define mktme_phys_keyid_bits(phys)					\
({									\
	unsigned long __mktme_pfn = PHYS_PFN(phys);			\
									\
	mktme_enabled() && pfn_valid(__mktme_pfn) &&			\
	PageEncrypted(pfn_to_page(__mktme_pfn)) ?			\
		__mktme_page_keyid_bits(pfn_to_page(__mktme_pfn)) : 0;	\
})
#define mktme_strip_keyid(addr)						\
	((addr) & ~(mktme_enabled() ? mktme_keyid_mask : 0))

/* A device that can't have these bits in its addresses is bounced. */
#define mktme_dma_mask()	(mktme_enabled() ? mktme_keyid_mask : 0)

/* Neighbours in memory, but can one bus address serve both? */
#define mktme_pages_mergeable(a, b)					\
	(!mktme_enabled() || page_keyid(a) == page_keyid(b))

/*
 * Before the pages of a freed folio go where anyone may take them from.  True if
 * they don't, for the key may need them soon.
 */
#define mktme_free_pages(page, order)					\
	(PageEncrypted(page) && __mktme_free_pages(page, order))

static inline void mktme_drain_kept(struct zone *zone, bool force)
{
	if (mktme_enabled())
		__mktme_drain_kept(zone, force);
}

/* Memory under a key is found by way of the mms that have it. */
static inline void mktme_fork(struct mm_struct *mm, struct mm_struct *oldmm)
{
	if (mktme_enabled())
		__mktme_fork(mm, oldmm);
}

/* A copy of a page lives under the key of the original. */
#define mktme_prep_copy(dst, src)					\
do {									\
	if (folio_test_encrypted(src))					\
		__mktme_prep_folio(dst, page_mktme_key(&(src)->page), false); \
} while (0)

/* For a folio that vma_alloc_folio() did not allocate. */
#define mktme_prep_for_vma(folio, vma)					\
do {									\
	if (vma_mktme_key(vma))						\
		__mktme_prep_folio(folio, vma_mktme_key(vma), false);	\
} while (0)

#define vma_mktme_key(vma)	(mktme_enabled() ? (vma)->mktme_key : NULL)

extern struct page_ext_operations mktme_page_ext_ops;

/* Copies of a VMA take a reference of their own. */
#define vma_dup_mktme_key(vma)						\
do {									\
	if (vma_mktme_key(vma))						\
		mktme_key_get((vma)->mktme_key);			\
} while (0)

#define vma_put_mktme_key(vma)						\
do {									\
	if (vma_mktme_key(vma))						\
		mktme_key_put((vma)->mktme_key);			\
} while (0)

void vma_show_mktme_keyid(struct seq_file *m, struct vm_area_struct *vma);

#else /* CONFIG_X86_MKTME */

static inline bool mktme_enabled(void) { return false; }
static inline bool mktme_in_use(void) { return false; }

#define mktme_expected()	false

#define mktme_page_pgprot(page, prot)	(prot)
#define mktme_dma_addr(page, addr)	((dma_addr_t)(addr))
#define mktme_phys_keyid_bits(phys)	0
#define mktme_strip_keyid(addr)		(addr)
#define mktme_dma_mask()		0
#define mktme_pages_mergeable(a, b)	true
#define mktme_prep_copy(dst, src)	do { } while (0)
#define mktme_prep_for_vma(folio, vma)	do { } while (0)
#define mktme_free_pages(page, order)	false
#define vma_mktme_key(vma)		((struct mktme_key *)NULL)

static inline struct mktme_key *page_mktme_key(const struct page *page)
{
	return NULL;
}

static inline bool vma_mktme_erased(const struct vm_area_struct *vma)
{
	return false;
}

static inline void mktme_fork(struct mm_struct *mm, struct mm_struct *oldmm) { }
static inline void __mktme_prep_folio(struct folio *folio,
				      struct mktme_key *key, bool zero) { }
static inline struct folio *mktme_take_kept(struct mktme_key *key, int nid,
					    bool zero)
{
	return NULL;
}

static inline void mktme_drain_kept(struct zone *zone, bool force) { }
static inline void mktme_release_poisoned(struct page *page) { }
static inline void vma_dup_mktme_key(struct vm_area_struct *vma) { }
static inline void vma_put_mktme_key(struct vm_area_struct *vma) { }
static inline void vma_show_mktme_keyid(struct seq_file *m,
					struct vm_area_struct *vma) { }

#endif /* CONFIG_X86_MKTME */
#endif /* _LINUX_MKTME_H */
