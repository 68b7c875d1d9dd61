// SPDX-License-Identifier: GPL-2.0
/*
 * Multi-key total memory encryption: the hardware's KeyIDs and the pages
 * under them.
 *
 * Source of all facts: Intel Architecture Memory Encryption Technologies
 * specification, 336907, and PCONFIG in the SDM, volume 2.
 *
 * The rule that everything here hangs on: cache lines are tagged with the
 * KeyID and hold plaintext, and there is no coherence between two KeyIDs of
 * one page.  So a page's lines are written back under its old KeyID before
 * anything touches the page by a new one: under KeyID 0 when the page is
 * prepared for a key, under that key's when the page is freed.
 */

#define pr_fmt(fmt) "x86/mktme: " fmt

#include <linux/bitmap.h>
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/memory.h>
#include <linux/misc_cgroup.h>
#include <linux/mktme.h>
#include <linux/mm.h>
#include <linux/node.h>
#include <linux/page-isolation.h>
#include <linux/page_ext.h>
#include <linux/percpu-refcount.h>
#include <linux/random.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/stop_machine.h>
#include <linux/swap.h>
#include <linux/syscore_ops.h>
#include <linux/sysfs.h>
#include <linux/topology.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <asm/cacheflush.h>
#include <asm/cpu.h>
#include <asm/cpuid/api.h>
#include <asm/mktme.h>
#include <asm/msr.h>
#include <asm/processor.h>

#define CREATE_TRACE_POINTS
#include <trace/events/mktme.h>

DEFINE_STATIC_KEY_FALSE(mktme_enabled_key);
EXPORT_SYMBOL(mktme_enabled_key);

/* The address bits that hold the KeyID; 0 where firmware set none aside. */
phys_addr_t mktme_keyid_mask __ro_after_init;
EXPORT_SYMBOL(mktme_keyid_mask);
static unsigned int mktme_keyid_shift __ro_after_init;

/* IA32_TME_ACTIVATE as the boot CPU has it. */
static u64 mktme_activate __ro_after_init;
static bool mktme_inconsistent;

/* Keep the material of type=user keys, to program packages that come later. */
static bool mktme_storekeys __ro_after_init;

static int __init mktme_storekeys_setup(char *str)
{
	mktme_storekeys = true;
	return 1;
}
__setup("mktme_storekeys", mktme_storekeys_setup);

/* KeyIDs 1 to mktme_max_keyid are ours. */
static unsigned int mktme_max_keyid __ro_after_init;
static unsigned long mktme_algorithms __ro_after_init;

/*
 * struct mktme_key - a KeyID that is in use
 * @ref: One reference for the key in the key service, one for each VMA, one
 *	for each page.  Only when all are gone can the KeyID serve another key.
 * @keyid: the KeyID
 * @superseded: no more memory is to come under it: erased, or rotated away
 * @erased: there may be memory to collect that is, or was, under it.  Protected by
 *	mktme_lock.
 * @type: what a package that comes online is to be programmed with
 * @algorithm: likewise
 * @stored: likewise, for %MKTME_TYPE_USER and only if "mktme_storekeys" is set
 * @siblings: keys between which rotations moved pages, in a ring without a
 *	head: what is left under each of them is data of the same key in the
 *	key service.  Protected by mktme_lock.
 * @nr_pages: number of pages under the key
 * @nr_vmas: VMAs under it, and callers of encrypt_mprotect() who are at it
 * @misc_cg: the cgroup that is charged for the KeyID
 * @kobj: its directory in sysfs
 * @release_work: clears the key in the hardware and frees the KeyID
 */
struct mktme_key {
	struct percpu_ref ref;
	unsigned int keyid;
	bool superseded;
	bool erased;
	enum mktme_key_type type;
	enum mktme_algorithm algorithm;
	struct mktme_key_params *stored;
	struct list_head siblings;
	long __percpu *nr_pages;
	atomic_long_t nr_vmas;
	struct misc_cg *misc_cg;
	struct kobject kobj;
	struct work_struct release_work;
};

/* Stands in the VMAs whose key was erased.  Never has a page, never goes away. */
struct mktme_key mktme_erased_key;

/*
 * Serializes PCONFIG, and protects the bitmap, and the table: for writing, and
 * for those without a reference.  Nests within cpus_read_lock().
 */
static DEFINE_MUTEX(mktme_lock);
static unsigned long *mktme_keyids;	/* bitmap: in use */
static unsigned int mktme_nr_keyids;	/* bits set in it */
static unsigned int mktme_nr_erased;	/* keys that may have memory to collect */

/* By KeyID.  A page holds a reference on its key: its entry is stable. */
static struct mktme_key **mktme_key_table;

static struct workqueue_struct *mktme_wq;

/* Number of pages under any key: the sum is what counts. */
static DEFINE_PER_CPU(long, mktme_nr_pages);

/* Of those who wait for a KeyID that is on its way back. */
static DECLARE_WAIT_QUEUE_HEAD(mktme_keyid_wait);

/* The package that a node's memory is attached to, or -1 where none is known. */
static int mktme_node_package[MAX_NUMNODES] = {
	[0 ... MAX_NUMNODES - 1] = -1,
};

/* Nodes whose first memory is on its way.  Protected by mktme_lock. */
static nodemask_t mktme_coming_nodes;

/* The system goes down, and no key is programmed any more.  Likewise. */
static bool mktme_down;

/*
 * Detection
 */

/**
 * mktme_detect_cpu - note how a CPU's memory encryption is set up
 * @c: the CPU, with x86_phys_bits already without the KeyID's
 * @activate: its IA32_TME_ACTIVATE, enabled and locked, or 0
 * @keyid_bits: number of KeyID bits in an address, not 0
 *
 * The first call is for the boot CPU, before any other runs and before any
 * page table entry with a KeyID is made.
 */
void mktme_detect_cpu(struct cpuinfo_x86 *c, u64 activate,
		      unsigned int keyid_bits)
{
	if (c == &boot_cpu_data && !mktme_activate) {
		mktme_activate = activate;
		mktme_keyid_shift = c->x86_phys_bits;
		mktme_keyid_mask = GENMASK_ULL(c->x86_phys_bits + keyid_bits - 1,
					       c->x86_phys_bits);
		physical_mask &= ~mktme_keyid_mask;
	} else if (activate != mktme_activate ||
		   mktme_keyid_shift != c->x86_phys_bits) {
		pr_err_once("firmware has set up the CPUs differently\n");
		WRITE_ONCE(mktme_inconsistent, true);
	}
}

/* CPUID leaf 1BH: does PCONFIG program MKTME keys here? */
static bool __init mktme_pconfig_target(void)
{
	unsigned int eax, ebx, ecx, edx, subleaf;

	if (boot_cpu_data.cpuid_level < PCONFIG_CPUID_LEAF)
		return false;

	for (subleaf = 0; subleaf < PCONFIG_CPUID_MAX_SUBLEAF; subleaf++) {
		cpuid_count(PCONFIG_CPUID_LEAF, subleaf, &eax, &ebx, &ecx, &edx);
		switch (eax & PCONFIG_CPUID_TYPE_MASK) {
		case PCONFIG_CPUID_TYPE_INVALID:
			return false;
		case PCONFIG_CPUID_TYPE_TARGETS:
			if (ebx == PCONFIG_TARGET_MKTME ||
			    ecx == PCONFIG_TARGET_MKTME ||
			    edx == PCONFIG_TARGET_MKTME)
				return true;
			break;
		}
	}
	return false;
}

static unsigned int __init mktme_count_keyids(void)
{
	unsigned int max = (mktme_keyid_mask >> mktme_keyid_shift);
	u64 msr;

	if (rdmsrq_safe(MSR_IA32_TME_CAPABILITY, &msr))
		return 0;
	max = min_t(unsigned int, max, TME_CAPABILITY_MAX_KEYS(msr));

	/*
	 * TDX's private KeyIDs follow those that MKTME may use.  Without TDX
	 * the register is not there, or a hypervisor has it read as 0.
	 */
	if (!rdmsrq_safe(MSR_IA32_MKTME_KEYID_PARTITIONING, &msr) && msr)
		max = min_t(unsigned int, max, lower_32_bits(msr));

	return max;
}

/*
 * Pages
 */

static bool __init mktme_page_ext_need(void)
{
	return mktme_keyid_mask != 0;
}

struct page_ext_operations mktme_page_ext_ops = {
	.need = mktme_page_ext_need,
	.size = sizeof(u16),
};

static u16 *page_ext_keyid(struct page_ext *ext)
{
	return page_ext_data(ext, &mktme_page_ext_ops);
}

/**
 * page_keyid - the KeyID that a page is encrypted with
 * @page: any page, tail pages too
 *
 * Context: Any.
 * Return: The KeyID, stable as long as the caller keeps the page from being
 * freed and re-encrypted; 0 for a page under no key.
 */
unsigned int page_keyid(const struct page *page)
{
	struct page_ext *ext;
	unsigned int keyid;

	if (!PageEncrypted(page))
		return 0;

	ext = page_ext_get(page);
	keyid = READ_ONCE(*page_ext_keyid(ext));
	page_ext_put(ext);
	return keyid;
}
EXPORT_SYMBOL_GPL(page_keyid);

/**
 * page_mktme_key - the key that a page is under
 * @page: any page
 *
 * Context: Any.
 * Return: The key or NULL, without a reference: the page holds one.
 */
struct mktme_key *page_mktme_key(const struct page *page)
{
	unsigned int keyid = page_keyid(page);

	return keyid ? mktme_key_table[keyid] : NULL;
}

/* The KeyID where an address or a page table entry has it. */
u64 __mktme_page_keyid_bits(const struct page *page)
{
	return (u64)page_keyid(page) << mktme_keyid_shift;
}
EXPORT_SYMBOL(__mktme_page_keyid_bits);

static void count_pages(struct mktme_key *key, long nr)
{
	this_cpu_add(*key->nr_pages, nr);
	this_cpu_add(mktme_nr_pages, nr);
}

/* Without the flags, nobody looks at the KeyIDs. */
static void set_pages_encrypted(struct page *page, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		set_bit(PG_encrypted, &page[i].flags.f);
}

static void clear_pages_encrypted(struct page *page, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		clear_bit(PG_encrypted, &page[i].flags.f);
}

static void set_page_keyid(struct page *page, unsigned int keyid)
{
	struct page_ext *ext = page_ext_get(page);

	WRITE_ONCE(*page_ext_keyid(ext), keyid);
	page_ext_put(ext);
}

/* A window to a page under a KeyID that need not be the one it has. */
static void *map_page(struct page *page, unsigned int keyid)
{
	if (!keyid)
		return page_to_virt(page);
	return __kmap_local_pfn_prot(page_to_pfn(page),
		__pgprot(pgprot_val(PAGE_KERNEL) |
			 (u64)keyid << mktme_keyid_shift));
}

/* Write back and drop the lines of a page under a KeyID. */
static void flush_page(struct page *page, unsigned int keyid)
{
	void *addr = map_page(page, keyid);

	clflush_cache_range(addr, PAGE_SIZE);
	kunmap_local(addr);
}

/* Clear a page by the KeyID that it has. */
static void zero_page(struct page *page, unsigned int keyid)
{
	void *addr = map_page(page, keyid);

	clear_page(addr);
	kunmap_local(addr);
}

/* Huger than khugepaged's, which come in atomic context, takes a while. */
static void pause_before_page(unsigned long i)
{
	if (i && i % PTRS_PER_PTE == 0)
		cond_resched();
}

/**
 * __mktme_prep_folio - put a new folio under a key
 * @folio: just allocated, not mapped, its contents of no interest
 * @key: the key; the caller keeps it alive
 * @zero: clear the folio, by its new KeyID
 *
 * Without @zero, the folio must be written before it is read.
 *
 * Context: Any; may sleep if the folio is larger than a page table's.
 */
void __mktme_prep_folio(struct folio *folio, struct mktme_key *key, bool zero)
{
	unsigned long i, nr = folio_nr_pages(folio);

	percpu_ref_get_many(&key->ref, nr);
	count_pages(key, nr);

	for (i = 0; i < nr; i++) {
		struct page *page = folio_page(folio, i);

		pause_before_page(i);
		/* Nothing of the direct map's may be written back over it. */
		flush_page(page, 0);
		set_page_keyid(page, key->keyid);
		if (zero)
			zero_page(page, key->keyid);
	}
	set_pages_encrypted(&folio->page, nr);
}

/* Nobody can reach the pages, and no line of them is in any cache. */
static void take_pages_back(struct mktme_key *key, struct page *page,
			    unsigned long nr)
{
	clear_pages_encrypted(page, nr);
	percpu_ref_put_many(&key->ref, nr);
}

static void flush_and_take_back(struct mktme_key *key, struct page *page,
				unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		flush_page(page + i, key->keyid);
	take_pages_back(key, page, nr);
}

/*
 * Kept pages
 *
 * A page that returns to its key needs no flush, neither when it is freed nor
 * when it is allocated.  So each CPU keeps single pages that were freed, with
 * the reference on the key.  They are on lists by KeyID, so that those who share
 * a CPU, each with a key, hardly ever find each other's; and are handed out as
 * they came, the last one first.  Where there are too many of them, the longest
 * list loses its oldest page, unless it is the one that a page would be added
 * to: then that is not kept.
 *
 * As the page allocator's own lists for a CPU, they are drained when a range of
 * memory is to be emptied, and a shrinker drains them when memory is short.
 * Furthermore none of a key's pages is kept when no more memory can come under
 * it, or its KeyID is awaited.
 */
#define MKTME_MAX_KEPT	512
#define MKTME_KEPT_LISTS	16

struct mktme_kept {
	spinlock_t lock;
	unsigned int nr;
	unsigned short len[MKTME_KEPT_LISTS];
	struct list_head pages[MKTME_KEPT_LISTS];
};

static DEFINE_PER_CPU(struct mktme_kept, mktme_kept);

static unsigned int kept_list(const struct mktme_key *key)
{
	return key->keyid % MKTME_KEPT_LISTS;
}

static void remove_kept_page(struct mktme_kept *kept, unsigned int i,
			     struct page *page)
{
	list_del(&page->lru);
	kept->len[i]--;
	WRITE_ONCE(kept->nr, kept->nr - 1);
}

/* Make room for a page on list @i.  Returns: whether there is. */
static bool make_room(struct mktme_kept *kept, unsigned int i,
		      struct page **oldest)
{
	unsigned int j, longest = i;

	if (kept->nr < MKTME_MAX_KEPT)
		return true;
	for (j = 0; j < MKTME_KEPT_LISTS; j++)
		if (kept->len[j] > kept->len[longest])
			longest = j;
	if (longest == i)
		return false;
	*oldest = list_last_entry(&kept->pages[longest], struct page, lru);
	remove_kept_page(kept, longest, *oldest);
	return true;
}

static void free_kept_page(struct page *page)
{
	flush_and_take_back(page_mktme_key(page), page, 1);
	init_page_count(page);
	__free_page(page);
}

/* Not one of those that the page allocator complains of. */
static bool page_freed_well(struct page *page)
{
	return !page_ref_count(page) && atomic_read(&page->_mapcount) == -1 &&
	       !(page->flags.f & PAGE_FLAGS_CHECK_AT_FREE) && !PageHWPoison(page);
}

static bool keep_page(struct mktme_key *key, struct page *page)
{
	/* The lock protects it from other CPUs, which may be this task's next. */
	struct mktme_kept *kept = raw_cpu_ptr(&mktme_kept);
	unsigned int i = kept_list(key);
	struct page *oldest = NULL;
	unsigned long flags;
	bool keep;

	/* Freed memory is to be cleared, or would not be asked for here. */
	if (want_init_on_free() || page_poisoning_enabled_static() ||
	    page_to_nid(page) != numa_mem_id() || !page_freed_well(page))
		return false;

	spin_lock_irqsave(&kept->lock, flags);
	/* Whoever makes one of these so drains afterwards. */
	keep = !percpu_ref_is_dying(&key->ref) &&
	       !READ_ONCE(key->superseded) && !is_migrate_isolate_page(page) &&
	       make_room(kept, i, &oldest);
	if (keep) {
		page->mapping = NULL;
		page->private = 0;
		page->flags.f &= ~PAGE_FLAGS_CHECK_AT_PREP | __PG_ENCRYPTED;
		list_add(&page->lru, &kept->pages[i]);
		kept->len[i]++;
		WRITE_ONCE(kept->nr, kept->nr + 1);
	}
	spin_unlock_irqrestore(&kept->lock, flags);

	if (oldest)
		free_kept_page(oldest);
	return keep;
}

/**
 * mktme_take_kept - a page that was under a key before, and is free
 * @key: the key
 * @nid: the node that it is to be from
 * @zero: clear it
 *
 * It is as if a folio had been allocated and prepared by __mktme_prep_folio().
 *
 * Context: Any.
 * Return: The folio, of one page; NULL if this CPU has none at hand.
 */
struct folio *mktme_take_kept(struct mktme_key *key, int nid, bool zero)
{
	struct mktme_kept *kept = raw_cpu_ptr(&mktme_kept);
	unsigned int i = kept_list(key);
	struct page *page;
	unsigned long flags;

	spin_lock_irqsave(&kept->lock, flags);
	page = list_first_entry_or_null(&kept->pages[i], struct page, lru);
	if (page && page_mktme_key(page) == key && page_to_nid(page) == nid)
		remove_kept_page(kept, i, page);
	else
		page = NULL;
	spin_unlock_irqrestore(&kept->lock, flags);
	if (!page)
		return NULL;

	/* An error was noticed meanwhile. */
	if (unlikely(PageHWPoison(page))) {
		free_kept_page(page);
		return NULL;
	}

	count_pages(key, 1);
	page_cpupid_reset_last(page);
	init_page_count(page);
	if (zero)
		zero_page(page, key->keyid);
	return page_folio(page);
}

/*
 * Of a key and in a zone, or NULL for any.  Without @force, a page can be missed
 * that is being kept.  Returns the number of pages.
 */
static unsigned long drain_kept(struct mktme_key *key, struct zone *zone,
				bool force)
{
	unsigned long flags, nr = 0;
	int cpu;

	for_each_possible_cpu(cpu) {
		struct mktme_kept *kept = per_cpu_ptr(&mktme_kept, cpu);
		struct page *page, *next;
		LIST_HEAD(pages);
		unsigned int i;

		if (!force && !READ_ONCE(kept->nr))
			continue;
		spin_lock_irqsave(&kept->lock, flags);
		for (i = 0; i < MKTME_KEPT_LISTS; i++) {
			list_for_each_entry_safe(page, next, &kept->pages[i],
						 lru) {
				if ((key && page_mktme_key(page) != key) ||
				    (zone && page_zone(page) != zone))
					continue;
				remove_kept_page(kept, i, page);
				list_add_tail(&page->lru, &pages);
				nr++;
			}
		}
		spin_unlock_irqrestore(&kept->lock, flags);

		list_for_each_entry_safe(page, next, &pages, lru)
			free_kept_page(page);
		cond_resched();
	}
	return nr;
}

/**
 * __mktme_drain_kept - let go of the pages that are kept for their keys
 * @zone: where, or NULL for everywhere
 * @force: of all CPUs, also of those that don't seem to have any
 *
 * Pages that are freed meanwhile can be kept, unless with @force what prevents it
 * was there before the call.
 *
 * Context: Process context, may sleep.
 */
void __mktme_drain_kept(struct zone *zone, bool force)
{
	drain_kept(NULL, zone, force);
}

static unsigned long count_kept(struct shrinker *shrinker,
				struct shrink_control *sc)
{
	unsigned long nr = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		nr += READ_ONCE(per_cpu_ptr(&mktme_kept, cpu)->nr);
	return nr ?: SHRINK_EMPTY;
}

static unsigned long shrink_kept(struct shrinker *shrinker,
				 struct shrink_control *sc)
{
	unsigned long nr = drain_kept(NULL, NULL, false);

	mm_account_reclaimed_pages(nr);
	return nr ?: SHRINK_STOP;
}

/**
 * __mktme_free_pages - take freed pages back from their key
 * @page: the first of them, the head if they are a folio
 * @order: there are 2^@order, all under the same key
 *
 * No mapping of them is left.  They are fit for any use afterwards, but what
 * KeyID 0 reads from them is noise.
 *
 * Context: Any.
 * Return: true if the page is kept, and is not the caller's any more.
 */
bool __mktme_free_pages(struct page *page, unsigned int order)
{
	struct mktme_key *key = page_mktme_key(page);

	count_pages(key, -(1L << order));
	if (!order && keep_page(key, page))
		return true;
	flush_and_take_back(key, page, 1UL << order);
	return false;
}

/**
 * mktme_release_poisoned - take a page back from its key that is never freed
 * @page: a page with a hardware error, unmapped; the caller has the one reference
 *
 * Context: Any.
 */
void mktme_release_poisoned(struct page *page)
{
	struct mktme_key *key = page_mktme_key(page);

	if (!key)
		return;
	count_pages(key, -1);
	flush_and_take_back(key, page, 1);
}

/**
 * mktme_reencrypt_folio - change a folio's key and keep its contents
 * @folio: the folio; nobody can reach it by any mapping, CPU's or device's
 * @key: the key, kept alive by the caller; NULL for none
 * @buf: PAGE_SIZE bytes to work with; holds plaintext afterwards
 *
 * Context: Process context; may sleep if the folio is larger than a page table's.
 */
void mktme_reencrypt_folio(struct folio *folio, struct mktme_key *key,
			   void *buf)
{
	struct mktme_key *old = page_mktme_key(&folio->page);
	unsigned int old_keyid = old ? old->keyid : 0;
	unsigned int keyid = key ? key->keyid : 0;
	unsigned long i, nr = folio_nr_pages(folio);

	if (key) {
		percpu_ref_get_many(&key->ref, nr);
		count_pages(key, nr);
	}

	for (i = 0; i < nr; i++) {
		struct page *page = folio_page(folio, i);
		void *addr;

		pause_before_page(i);
		addr = map_page(page, old_keyid);
		memcpy(buf, addr, PAGE_SIZE);
		clflush_cache_range(addr, PAGE_SIZE);
		kunmap_local(addr);

		addr = map_page(page, keyid);
		memcpy(addr, buf, PAGE_SIZE);
		kunmap_local(addr);
		if (key)
			set_page_keyid(page, keyid);
	}

	if (key && !old)
		set_pages_encrypted(&folio->page, nr);
	if (old) {
		count_pages(old, -(long)nr);
		if (key)
			percpu_ref_put_many(&old->ref, nr);
		else
			take_pages_back(old, &folio->page, nr);
	}
}

/* Exact where nothing changes meanwhile; takes no lock. */
static unsigned long mktme_sum_bytes(long __percpu *nr_pages)
{
	long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(nr_pages, cpu));
	return max(sum, 0L) << PAGE_SHIFT;
}

static unsigned long mktme_key_bytes(const struct mktme_key *key)
{
	return mktme_sum_bytes(key->nr_pages);
}

/*
 * Programming
 */

/* MKTME_KEY_PROGRAM_STRUCT */
struct mktme_key_program {
	u16 keyid;
	u32 keyid_ctrl;
	u8 reserved[58];
	u8 key_field_1[64];
	u8 key_field_2[64];
} __packed __aligned(256);

struct mktme_pconfig {
	struct mktme_key_program *program;
	unsigned int error;
};

static void mktme_pconfig_local(void *arg)
{
	struct mktme_pconfig *pconfig = arg;
	unsigned long ret = MKTME_KEY_PROGRAM;
	bool failed;

	asm volatile(ASM_PCONFIG
		     : "+a" (ret), "=@ccz" (failed)
		     : "b" (pconfig->program)
		     : "memory");
	pconfig->error = failed ? ret : 0;
}

/*
 * The generator can run dry and the key table can be in use: both pass.  More
 * than a few milliseconds of either mean that something is broken.
 */
#define MKTME_PCONFIG_TRIES	100

static int mktme_pconfig_cpu(unsigned int cpu, struct mktme_key_program *program)
{
	struct mktme_pconfig pconfig = { .program = program };
	int try, ret;

	for (try = 0; try < MKTME_PCONFIG_TRIES; try++) {
		if (try)
			usleep_range(20, 100);

		ret = smp_call_function_single(cpu, mktme_pconfig_local,
					       &pconfig, true);
		if (ret)
			return ret;

		switch (pconfig.error) {
		case 0:
			return 0;
		case MKTME_PROG_ENTROPY_ERROR:
			ret = -EAGAIN;
			break;
		case MKTME_PROG_DEVICE_BUSY:
			ret = -EBUSY;
			break;
		default:
			pr_err("CPU %u refuses KeyID %u: PCONFIG error %u\n",
			       cpu, program->keyid, pconfig.error);
			return -EIO;
		}
	}

	pr_warn("CPU %u: KeyID %u not programmed, PCONFIG error %u persists\n",
		cpu, program->keyid, pconfig.error);
	return ret;
}

/* The package of a CPU that may never have been online. */
static int mktme_present_package(unsigned int cpu)
{
	return topology_get_logical_id(cpu_physical_id(cpu), TOPO_PKG_DOMAIN);
}

/* One online CPU of each package.  CPU hotplug is held off. */
static void mktme_package_cpus(struct cpumask *mask)
{
	unsigned int cpu, other;

	cpumask_clear(mask);
	for_each_online_cpu(cpu) {
		for_each_cpu(other, mask)
			if (topology_physical_package_id(other) ==
			    topology_physical_package_id(cpu))
				break;
		if (other >= nr_cpu_ids)
			cpumask_set_cpu(cpu, mask);
	}
}

/* An enabled algorithm must be named also where none is used. */
static u32 mktme_any_algorithm(void)
{
	return MKTME_KEYID_CTRL_ALG(__ffs(mktme_algorithms));
}

/* Clear a KeyID on the packages in @mask.  Returns false if one still has it. */
static bool mktme_clear(unsigned int keyid, const struct cpumask *mask,
			struct mktme_key_program *program)
{
	unsigned int cpu;
	bool cleared = true;

	memzero_explicit(program, sizeof(*program));
	program->keyid = keyid;
	program->keyid_ctrl = MKTME_KEYID_CLEAR_KEY | mktme_any_algorithm();

	for_each_cpu(cpu, mask)
		if (mktme_pconfig_cpu(cpu, program))
			cleared = false;
	trace_mktme_clear(keyid, cleared);
	return cleared;
}

/* The commands' and algorithms' encodings are those of the enums. */
static void mktme_fill_program(struct mktme_key_program *program,
			       unsigned int keyid,
			       const struct mktme_key_params *params)
{
	size_t size = mktme_key_size(params->algorithm);

	program->keyid = keyid;
	program->keyid_ctrl = params->type;
	if (params->type == MKTME_TYPE_NO_ENCRYPT) {
		program->keyid_ctrl |= mktme_any_algorithm();
		return;
	}

	program->keyid_ctrl |= MKTME_KEYID_CTRL_ALG(params->algorithm);
	memcpy(program->key_field_1, params->key, size);
	memcpy(program->key_field_2, params->tweak, size);
}

/*
 * Program a KeyID on the packages of the CPUs in @mask, or on none.
 *
 * Return: 0 or an error.  *@leaked tells that the KeyID may still have a key
 * on some package, which must then never be used.
 */
static int mktme_program(unsigned int keyid, const struct cpumask *mask,
			 const struct mktme_key_params *params, bool *leaked)
{
	struct mktme_key_program *program;
	cpumask_var_t done;
	unsigned int cpu;
	int ret = -ENOMEM;

	lockdep_assert_held(&mktme_lock);

	*leaked = false;
	/* kmalloc() of a power of two is aligned to it. */
	program = kzalloc_obj(*program);
	if (!program)
		return ret;
	if (!zalloc_cpumask_var(&done, GFP_KERNEL))
		goto free_program;

	mktme_fill_program(program, keyid, params);

	for_each_cpu(cpu, mask) {
		ret = mktme_pconfig_cpu(cpu, program);
		trace_mktme_program(keyid, cpu, params->type, ret);
		if (ret) {
			*leaked = !mktme_clear(keyid, done, program);
			break;
		}
		cpumask_set_cpu(cpu, done);
	}

	free_cpumask_var(done);
free_program:
	kfree_sensitive(program);
	return ret;
}

static void mktme_random_params(struct mktme_key_params *params,
				enum mktme_algorithm algorithm)
{
	memset(params, 0, sizeof(*params));
	params->type = MKTME_TYPE_CPU;
	params->algorithm = algorithm;
	/* The CPU mixes it with entropy of its own. */
	get_random_bytes(params->key, mktme_key_size(algorithm));
	get_random_bytes(params->tweak, mktme_key_size(algorithm));
}

static bool mktme_clear_on(unsigned int keyid, const struct cpumask *mask)
{
	struct mktme_key_program *program;
	bool cleared;

	lockdep_assert_held(&mktme_lock);

	program = kzalloc_obj(*program, GFP_KERNEL | __GFP_NOFAIL);
	cleared = mktme_clear(keyid, mask, program);
	kfree(program);
	return cleared;
}

static bool mktme_clear_everywhere(unsigned int keyid)
{
	cpumask_var_t packages;
	bool cleared = false;

	lockdep_assert_cpus_held();

	if (alloc_cpumask_var(&packages, GFP_KERNEL)) {
		mktme_package_cpus(packages);
		cleared = mktme_clear_on(keyid, packages);
		free_cpumask_var(packages);
	}
	return cleared;
}

/* Is there a CPU by which the package that a node belongs to can be programmed? */
static bool mktme_node_reachable(int nid)
{
	unsigned int cpu;

	if (mktme_node_package[nid] >= 0)
		for_each_online_cpu(cpu)
			if (topology_physical_package_id(cpu) ==
			    mktme_node_package[nid])
				return true;
	return false;
}

/*
 * Can memory of a node that is reachable belong to a package that is not?  With
 * "numa=off", or by firmware, packages share a node.
 */
static bool mktme_node_shared(void)
{
	unsigned int cpu, other;
	bool shared;

	for_each_present_cpu(cpu) {
		shared = false;
		for_each_online_cpu(other) {
			if (mktme_present_package(other) ==
			    mktme_present_package(cpu))
				break;
			shared |= cpu_to_node(other) == cpu_to_node(cpu);
		}
		if (other >= nr_cpu_ids && shared)
			return true;
	}
	return false;
}

/*
 * All memory must be reachable: whoever allocates pages for a key can't tell
 * those apart that the key is not programmed for.
 */
static bool mktme_memory_reachable(void)
{
	int nid;

	lockdep_assert_held(&mktme_lock);

	for_each_node(nid) {
		if (!node_state(nid, N_MEMORY) &&
		    !node_isset(nid, mktme_coming_nodes))
			continue;
		if (!mktme_node_reachable(nid)) {
			pr_warn_ratelimited("no keys: node %d has memory, but no CPU of its package is online\n",
					    nid);
			return false;
		}
	}

	if (mktme_node_shared()) {
		pr_warn_ratelimited("no keys: nodes are not packages, and a package has no CPU online\n");
		return false;
	}
	return true;
}

/*
 * Keys
 */

static void mktme_free_keyid(unsigned int keyid)
{
	lockdep_assert_held(&mktme_lock);
	__clear_bit(keyid, mktme_keyids);
	mktme_nr_keyids--;
	trace_mktme_release(keyid);
}

/* /sys/kernel/mm/mktme/keyids/N/ */

static struct kobject *mktme_kobj;
static struct kobject *mktme_keyids_kobj;

static ssize_t bytes_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	struct mktme_key *key = container_of(kobj, struct mktme_key, kobj);

	return sysfs_emit(buf, "%lu\n", mktme_key_bytes(key));
}

static struct kobj_attribute bytes_attr = __ATTR(bytes, 0400, bytes_show, NULL);

static struct attribute *mktme_key_attrs[] = {
	&bytes_attr.attr,
	NULL
};
ATTRIBUTE_GROUPS(mktme_key);

static void mktme_key_kobj_release(struct kobject *kobj)
{
	kfree(container_of(kobj, struct mktme_key, kobj));
}

static const struct kobj_type mktme_key_ktype = {
	.release = mktme_key_kobj_release,
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = mktme_key_groups,
};

static void mktme_free_key(struct mktme_key *key)
{
	percpu_ref_exit(&key->ref);
	free_percpu(key->nr_pages);
	kfree_sensitive(key->stored);
	kobject_put(&key->kobj);
}

static void mktme_set_erased(struct mktme_key *key, bool erased)
{
	lockdep_assert_held(&mktme_lock);
	if (key->erased == erased)
		return;
	key->erased = erased;
	WRITE_ONCE(mktme_nr_erased, mktme_nr_erased + (erased ? 1 : -1));
}

/*
 * Every page has gone back by __mktme_free_pages(), which left no line under
 * the KeyID in any cache: it can be programmed.
 */
static void mktme_release_work(struct work_struct *work)
{
	struct mktme_key *key = container_of(work, struct mktme_key, release_work);

	/* Before another key can have the KeyID. */
	if (key->kobj.state_in_sysfs)
		kobject_del(&key->kobj);

	cpus_read_lock();
	mutex_lock(&mktme_lock);
	mktme_key_table[key->keyid] = NULL;
	list_del(&key->siblings);
	mktme_set_erased(key, false);
	/* A KeyID that can't be cleared is lost rather than shared. */
	if (mktme_clear_everywhere(key->keyid))
		mktme_free_keyid(key->keyid);
	else
		pr_err("KeyID %u can't be cleared and is lost\n", key->keyid);
	mutex_unlock(&mktme_lock);
	cpus_read_unlock();

	misc_cg_uncharge(MISC_CG_RES_MKTME, key->misc_cg, 1);
	put_misc_cg(key->misc_cg);
	mktme_free_key(key);
	wake_up_all(&mktme_keyid_wait);
}

static void mktme_key_release(struct percpu_ref *ref)
{
	struct mktme_key *key = container_of(ref, struct mktme_key, ref);

	/* May be called by whoever frees a page, in any context. */
	queue_work(mktme_wq, &key->release_work);
}

static unsigned int mktme_alloc_keyid(void)
{
	unsigned int keyid;

	lockdep_assert_held(&mktme_lock);
	keyid = find_next_zero_bit(mktme_keyids, mktme_max_keyid + 1, 1);
	if (keyid > mktme_max_keyid)
		return 0;

	__set_bit(keyid, mktme_keyids);
	mktme_nr_keyids++;
	trace_mktme_reserve(keyid);
	return keyid;
}

/* A KeyID for @key, charged to its cgroup. */
static int mktme_reserve_keyid(struct mktme_key *key)
{
	key->keyid = mktme_alloc_keyid();
	if (!key->keyid)
		return -ENOSPC;
	if (!IS_ENABLED(CONFIG_CGROUP_MISC) ||
	    !misc_cg_try_charge(MISC_CG_RES_MKTME, key->misc_cg, 1))
		return 0;

	mktme_free_keyid(key->keyid);
	return -EDQUOT;
}

static int mktme_store_params(struct mktme_key *key,
			      const struct mktme_key_params *params)
{
	key->type = params->type;
	key->algorithm = params->algorithm;
	if (!mktme_storekeys || params->type != MKTME_TYPE_USER)
		return 0;

	key->stored = kmemdup(params, sizeof(*params), GFP_KERNEL);
	return key->stored ? 0 : -ENOMEM;
}

/* Program @key into a free KeyID, on every package. */
static int mktme_install_key(struct mktme_key *key,
			     const struct mktme_key_params *params)
{
	cpumask_var_t packages;
	bool leaked;
	int ret;

	if (!alloc_cpumask_var(&packages, GFP_KERNEL))
		return -ENOMEM;

	cpus_read_lock();
	mutex_lock(&mktme_lock);
	ret = -ESHUTDOWN;
	if (mktme_down)
		goto unlock;
	ret = -EOPNOTSUPP;
	if (!mktme_memory_reachable())
		goto unlock;
	ret = mktme_reserve_keyid(key);
	if (ret)
		goto unlock;

	mktme_package_cpus(packages);
	ret = mktme_program(key->keyid, packages, params, &leaked);
	if (!ret) {
		mktme_key_table[key->keyid] = key;
		goto unlock;
	}
	misc_cg_uncharge(MISC_CG_RES_MKTME, key->misc_cg, 1);
	if (leaked)
		pr_err("KeyID %u can't be cleared and is lost\n", key->keyid);
	else
		mktme_free_keyid(key->keyid);
	wake_up_all(&mktme_keyid_wait);
unlock:
	mutex_unlock(&mktme_lock);
	cpus_read_unlock();
	free_cpumask_var(packages);
	return ret;
}

/*
 * Counts the attempts to erase a key that have ended; what those up to the second one
 * left is collected.  Then those that have not ended.  Written under mktme_lock.
 */
static long mktme_erasures;
static long mktme_collected;
static unsigned int mktme_erasing;

/*
 * All is collected, unless an erasure came meanwhile.  Of keys that are not free yet
 * some go on, since their erasure failed, and some have pages that are pinned.
 */
static void mktme_unmark_erased(long erasures)
{
	unsigned int keyid;

	mutex_lock(&mktme_lock);
	if (!mktme_erasing && mktme_erasures == erasures) {
		for (keyid = 1; mktme_nr_erased && keyid <= mktme_max_keyid; keyid++) {
			if (mktme_key_table[keyid])
				mktme_set_erased(mktme_key_table[keyid], false);
		}
	}
	mutex_unlock(&mktme_lock);
}

/* Unmap what is left of erased keys, by and by. */
static void mktme_collect_erased(struct work_struct *work)
{
	long erasures = READ_ONCE(mktme_erasures);
	int ret;

	ret = mktme_replace_vma_keys(&mktme_erased_key, &mktme_erased_key, true);
	/* Some have left their mappings and wait to be put to a list. */
	lru_add_drain_all();

	/*
	 * Who sits on an mmap lock keeps nobody's pages but its own, and none
	 * where the KeyIDs are back.
	 */
	if (ret && READ_ONCE(mktme_nr_erased)) {
		queue_delayed_work(system_unbound_wq, to_delayed_work(work), HZ);
		return;
	}
	if (!ret)
		mktme_unmark_erased(erasures);
	WRITE_ONCE(mktme_collected, erasures);
	wake_up_all(&mktme_keyid_wait);
}

static DECLARE_DELAYED_WORK(mktme_collect_work, mktme_collect_erased);

/* Would a KeyID be refused, to whoever is in the cgroup? */
static bool mktme_keyids_exhausted(struct misc_cg *cg)
{
#ifdef CONFIG_CGROUP_MISC
	struct misc_res *res;

	for (; cg; cg = css_misc(cg->css.parent)) {
		res = &cg->res[MISC_CG_RES_MKTME];
		if ((u64)atomic64_read(&res->usage) >= READ_ONCE(res->max))
			return true;
	}
#endif
	return READ_ONCE(mktme_nr_keyids) >= mktme_max_keyid;
}

/*
 * KeyIDs can be on their way back, or held by pages that nobody has any more, but
 * which are in some CPU's batch for the LRU.
 */
static void mktme_take_back(void)
{
	lru_add_drain_all();
	rcu_barrier();
	flush_workqueue(mktme_wq);
}

static struct misc_cg *mktme_get_misc_cg(struct mktme_key *old)
{
#ifdef CONFIG_CGROUP_MISC
	if (old) {
		css_get(&old->misc_cg->css);
		return old->misc_cg;
	}
#endif
	return get_current_misc_cg();
}

/**
 * mktme_key_create - program a key into a free KeyID, on every package
 * @params: the key; the caller wipes it
 * @old: the key that it is to replace, to which the caller has a reference, or
 *	NULL
 *
 * The KeyID is charged to the caller's misc cgroup, or to whom @old is charged,
 * until it is free again.
 *
 * Context: Process context, sleeps.
 * Return: The key, with a reference that mktme_key_destroy() drops, or an
 * ERR_PTR: -ENOSPC where all KeyIDs are in use, -EDQUOT at the cgroup's limit,
 * -ENOMEM, -EBUSY or -EAGAIN where the hardware was busy or had no entropy for
 * long, -EIO where it refused, -EOPNOTSUPP where there is memory that keys can't
 * be programmed for, -ESHUTDOWN where the system goes down.
 */
struct mktme_key *mktme_key_create(const struct mktme_key_params *params,
				   struct mktme_key *old)
{
	struct mktme_key *key;
	bool exhausted;
	int ret = -ENOMEM;

	key = kzalloc_obj(*key);
	if (!key)
		return ERR_PTR(-ENOMEM);
	INIT_WORK(&key->release_work, mktme_release_work);
	INIT_LIST_HEAD(&key->siblings);
	key->nr_pages = alloc_percpu(long);
	if (!key->nr_pages)
		goto free_key;
	if (mktme_store_params(key, params))
		goto free_pages;
	ret = percpu_ref_init(&key->ref, mktme_key_release, 0, GFP_KERNEL);
	if (ret)
		goto free_pages;

	key->misc_cg = mktme_get_misc_cg(old);
	exhausted = mktme_keyids_exhausted(key->misc_cg);
	if (exhausted)
		mktme_take_back();
	ret = mktme_install_key(key, params);
	if (!exhausted && (ret == -ENOSPC || ret == -EDQUOT)) {
		mktme_take_back();
		ret = mktme_install_key(key, params);
	}
	if (!ret) {
		kobject_init(&key->kobj, &mktme_key_ktype);
		ret = kobject_add(&key->kobj, mktme_keyids_kobj, "%u",
				  key->keyid);
		if (!ret)
			return key;
		mktme_key_destroy(key);
		return ERR_PTR(ret);
	}

	put_misc_cg(key->misc_cg);
	percpu_ref_exit(&key->ref);
free_pages:
	free_percpu(key->nr_pages);
	kfree_sensitive(key->stored);
free_key:
	kfree(key);
	return ERR_PTR(ret);
}

/**
 * mktme_key_supersede - let no more memory come under a key, or let it again
 * @key: the key
 * @superseded: which of both
 *
 * encrypt_mprotect() asks under the mmap lock.
 *
 * Context: Process context, may sleep.
 */
void mktme_key_supersede(struct mktme_key *key, bool superseded)
{
	WRITE_ONCE(key->superseded, superseded);
	if (superseded)
		drain_kept(key, NULL, true);
}

/**
 * mktme_key_superseded - is no more memory to come under a key?
 * @key: the key
 *
 * Context: Any.
 * Return: true if so; it can change at any time.
 */
bool mktme_key_superseded(const struct mktme_key *key)
{
	return READ_ONCE(key->superseded);
}

/*
 * Put a random key in place of @key's, on every package.  Not TME's: pages that
 * are pinned stay under the KeyID, and what is written to them must not reach
 * DRAM in plaintext where KeyID 0 bypasses TME.
 */
static int mktme_scrub(struct mktme_key *key)
{
	enum mktme_algorithm algorithm = __ffs(mktme_algorithms);
	struct mktme_key_params params;
	cpumask_var_t packages;
	bool leaked;
	int ret;

	if (!alloc_cpumask_var(&packages, GFP_KERNEL))
		return -ENOMEM;
	if (key->type != MKTME_TYPE_NO_ENCRYPT)
		algorithm = key->algorithm;
	mktme_random_params(&params, algorithm);

	lockdep_assert_cpus_held();
	lockdep_assert_held(&mktme_lock);
	mktme_package_cpus(packages);
	ret = mktme_program(key->keyid, packages, &params, &leaked);
	/* Anything is better than to leave it there. */
	if (ret && mktme_clear_everywhere(key->keyid))
		ret = 0;
	if (!ret) {
		key->type = MKTME_TYPE_CPU;
		key->algorithm = algorithm;
		kfree_sensitive(key->stored);
		key->stored = NULL;
	}
	memzero_explicit(&params, sizeof(params));
	free_cpumask_var(packages);
	return ret;
}

/* From here on there may be memory to collect that is, or was, @key's. */
static void mktme_begin_erasure(struct mktme_key *key)
{
	struct mktme_key *sibling;

	mutex_lock(&mktme_lock);
	mktme_erasing++;
	mktme_set_erased(key, true);
	list_for_each_entry(sibling, &key->siblings, siblings)
		mktme_set_erased(sibling, true);
	mutex_unlock(&mktme_lock);
}

static void mktme_end_erasure(void)
{
	mutex_lock(&mktme_lock);
	mktme_erasing--;
	WRITE_ONCE(mktme_erasures, mktme_erasures + 1);
	mutex_unlock(&mktme_lock);
	/* Not on mktme_wq, which is flushed under locks that faults can take. */
	mod_delayed_work(system_unbound_wq, &mktme_collect_work, 0);
}

/* @key, and what pages that no VMA has are left under since it was rotated. */
static int mktme_scrub_siblings(struct mktme_key *key)
{
	struct mktme_key *sibling;
	int ret, err;

	mutex_lock(&mktme_lock);
	if (mktme_down) {
		mutex_unlock(&mktme_lock);
		return -ESHUTDOWN;
	}
	ret = mktme_scrub(key);
	list_for_each_entry(sibling, &key->siblings, siblings) {
		err = mktme_scrub(sibling);
		ret = ret ?: err;
	}
	mutex_unlock(&mktme_lock);
	return ret;
}

/**
 * mktme_key_join - have two keys erased, and replaced, as one
 * @key: the key that pages were moved from
 * @other: the key that they were moved to, just made
 *
 * Pages that are pinned when they are moved, or have no mapping, stay under the
 * key that they were under.  So does what could not be moved back.
 *
 * Context: Process context, sleeps.
 */
void mktme_key_join(struct mktme_key *key, struct mktme_key *other)
{
	mutex_lock(&mktme_lock);
	list_add(&other->siblings, &key->siblings);
	mutex_unlock(&mktme_lock);
}

/**
 * mktme_replace_joined_keys - put another key in place of a key, in all mms
 * @key: the key, and with it those that it was joined with; superseded, all of
 *	them
 * @new: the key that takes their place, or &mktme_erased_key
 *
 * Context: Process context, sleeps; takes mmap locks for writing, one by one.
 * Return: As mktme_replace_vma_keys(): some VMAs may have got @new where it fails.
 */
int mktme_replace_joined_keys(struct mktme_key *key, struct mktme_key *new)
{
	struct mktme_key *sibling;
	int ret;

	ret = mktme_replace_vma_keys(key, new, false);

	mutex_lock(&mktme_lock);
	list_for_each_entry(sibling, &key->siblings, siblings) {
		if (ret)
			break;
		/* While there is a reference, or the lock is held, it is there. */
		if (!percpu_ref_tryget(&sibling->ref))
			continue;
		mutex_unlock(&mktme_lock);
		ret = mktme_replace_vma_keys(sibling, new, false);
		mutex_lock(&mktme_lock);
		percpu_ref_put(&sibling->ref);
	}
	mutex_unlock(&mktme_lock);
	return ret;
}

/**
 * mktme_key_erase - make all data under a key unreadable, for good
 * @key: the key; nobody can find it for encrypt_mprotect() meanwhile
 *
 * The VMAs under the key are shut: touching them raises SIGBUS.  Then the key is
 * replaced on every package, so that nobody can decrypt what DRAM holds.
 *
 * That is all that the caller waits for.  The pages are unmapped, flushed and
 * freed afterwards, which takes about as long as to overwrite them would.  A page
 * that is pinned outlives this, holds the KeyID, and reads as noise.
 *
 * Context: Process context, sleeps; takes the mmap locks of all that have memory
 * under the key.
 * Return: 0; the caller drops its reference by mktme_key_destroy().  -EINTR or
 * -ENOMEM where some VMAs may not be shut, and the key goes on, unless an earlier
 * attempt has shut all; -EIO, -EBUSY, -EAGAIN, -ESHUTDOWN or -ENOMEM where all are,
 * but the key could not be replaced on every package: it stays superseded.  Each can
 * be tried again.
 */
int mktme_key_erase(struct mktme_key *key)
{
	unsigned long pages = mktme_key_bytes(key) >> PAGE_SHIFT;
	bool superseded = key->superseded;
	int ret;

	mktme_begin_erasure(key);
	mktme_key_supersede(key, true);
	ret = mktme_replace_joined_keys(key, &mktme_erased_key);
	if (ret) {
		mktme_key_supersede(key, superseded);
	} else {
		cpus_read_lock();
		wbinvd_on_all_cpus();
		ret = mktme_scrub_siblings(key);
		cpus_read_unlock();
	}
	trace_mktme_erase(key->keyid, pages, ret);
	mktme_end_erasure();
	return ret;
}

static bool mktme_wait_is_over(struct misc_cg *cg, long erasures)
{
	return READ_ONCE(mktme_collected) - erasures >= 0 ||
	       !mktme_keyids_exhausted(cg);
}

/**
 * mktme_wait_collected - wait for the KeyIDs of erased keys if there is no other
 *
 * The pages of an erased key hold its KeyID until a worker has unmapped them, which
 * needs the mmap locks of all that had memory under the key, and somebody may hold
 * one for long.  So those who can have another KeyID do not wait for it, and the
 * others only until a signal comes.
 *
 * Context: Process context, sleeps.  No lock may be held that a page fault can take.
 * Return: 0, or -ERESTARTSYS.
 */
int mktme_wait_collected(void)
{
	long ret, erasures = READ_ONCE(mktme_erasures);
	struct misc_cg *cg = get_current_misc_cg();

	/* Nobody is woken as a cgroup's limit is raised: look from time to time. */
	do {
		ret = wait_event_interruptible_timeout(mktme_keyid_wait,
						       mktme_wait_is_over(cg, erasures),
						       HZ);
	} while (!ret);
	put_misc_cg(cg);
	return min(ret, 0L);
}

/**
 * mktme_key_destroy - drop the reference of the key's creator
 * @key: the key
 *
 * The KeyID is cleared and free again once no VMA and no page is left under it.
 *
 * Context: Process context, may sleep.
 */
void mktme_key_destroy(struct mktme_key *key)
{
	percpu_ref_kill(&key->ref);
	drain_kept(key, NULL, true);
}

/**
 * mktme_key_get - take a reference to a key that one has a reference to
 * @key: the key
 *
 * For a VMA, or what is going to be one's.
 *
 * Context: Any.
 */
void mktme_key_get(struct mktme_key *key)
{
	percpu_ref_get(&key->ref);
	atomic_long_inc(&key->nr_vmas);
}

/**
 * mktme_key_put - drop a reference of mktme_key_get()
 * @key: the key
 *
 * Context: Any.
 */
void mktme_key_put(struct mktme_key *key)
{
	/* Whoever sees no VMA sees no mapping, either. */
	atomic_long_dec_return_release(&key->nr_vmas);
	percpu_ref_put(&key->ref);
}

/**
 * mktme_key_in_vmas - can there be a VMA under a key?
 * @key: the key
 *
 * Context: Any.
 * Return: false if there is none, and none can come any more where the key is
 * superseded.
 */
bool mktme_key_in_vmas(const struct mktme_key *key)
{
	return atomic_long_read_acquire(&key->nr_vmas) != 0;
}

/**
 * mktme_key_keyid - the KeyID of a key
 * @key: the key; the caller has a reference, or is within RCU
 *
 * Context: Any.
 * Return: the KeyID.
 */
unsigned int mktme_key_keyid(const struct mktme_key *key)
{
	return key->keyid;
}

/* A line of /proc/PID/smaps. */
void vma_show_mktme_keyid(struct seq_file *m, struct vm_area_struct *vma)
{
	if (mktme_enabled())
		seq_printf(m, "KeyID:          %8u\n",
			   vma->mktme_key ? vma->mktme_key->keyid : 0);
}

/**
 * mktme_algorithm_enabled - has firmware enabled an algorithm for keys?
 * @algorithm: the algorithm
 *
 * Return: true if keys for it can be made.
 */
bool mktme_algorithm_enabled(enum mktme_algorithm algorithm)
{
	return mktme_algorithms & BIT(algorithm);
}

/**
 * mktme_in_use - is any KeyID in use?
 *
 * Context: Any.
 * Return: true if so; it can change at any time.
 */
bool mktme_in_use(void)
{
	return READ_ONCE(mktme_nr_keyids) != 0;
}

/*
 * CPUs and memory that come and go
 */

/* Program all live keys on the package of a CPU that is its first. */
static int mktme_program_package(unsigned int cpu)
{
	struct mktme_key_params params;
	unsigned int keyid;
	struct mktme_key *key;
	bool leaked;
	int ret = 0;

	mutex_lock(&mktme_lock);
	if (mktme_down) {
		mutex_unlock(&mktme_lock);
		return -ESHUTDOWN;
	}
	for (keyid = 1; keyid <= mktme_max_keyid; keyid++) {
		key = mktme_key_table[keyid];
		if (!key)
			continue;
		if (key->type == MKTME_TYPE_USER && !key->stored) {
			pr_err("CPU %u stays offline: its package lacks the key of KeyID %u, which was not kept (see mktme_storekeys)\n",
			       cpu, keyid);
			ret = -ENOKEY;
			break;
		}
		if (key->stored) {
			params = *key->stored;
		} else {
			mktme_random_params(&params, key->algorithm);
			params.type = key->type;
		}
		ret = mktme_program(keyid, cpumask_of(cpu), &params, &leaked);
		if (ret) {
			pr_err("CPU %u stays offline: its package lacks the key of KeyID %u, error %d\n",
			       cpu, keyid, ret);
			break;
		}
	}
	/* Nobody would clear what it has, as long as it has no CPU online. */
	while (ret && --keyid)
		if (mktme_key_table[keyid] &&
		    !mktme_clear_on(keyid, cpumask_of(cpu)))
			pr_err("CPU %u: its package keeps the key of KeyID %u\n",
			       cpu, keyid);
	mutex_unlock(&mktme_lock);
	memzero_explicit(&params, sizeof(params));
	return ret;
}

static bool mktme_last_of_package(unsigned int cpu)
{
	unsigned int other;

	for_each_online_cpu(other)
		if (other != cpu && topology_physical_package_id(other) ==
				    topology_physical_package_id(cpu))
			return false;
	return true;
}

/* On the CPU itself, before anything but kernel threads of its own runs there. */
static int mktme_cpu_online(unsigned int cpu)
{
	u64 activate;

	if (rdmsrq_safe(MSR_IA32_TME_ACTIVATE, &activate) ||
	    activate != mktme_activate) {
		pr_err("CPU %u stays offline: firmware has set it up differently\n",
		       cpu);
		return -EINVAL;
	}

	mktme_node_package[cpu_to_node(cpu)] = topology_physical_package_id(cpu);
	return mktme_last_of_package(cpu) ? mktme_program_package(cpu) : 0;
}

/* A package without CPUs would keep keys that can be neither changed nor cleared. */
static int mktme_cpu_offline(unsigned int cpu)
{
	if (!mktme_in_use() || !mktme_last_of_package(cpu))
		return 0;

	pr_warn("CPU %u stays online: the last of its package, and keys are in use\n",
		cpu);
	return -EBUSY;
}

static int mktme_memory_callback(struct notifier_block *nb, unsigned long action,
				 void *arg)
{
	/* No page of the range is kept from here on. */
	if (action == MEM_GOING_OFFLINE)
		drain_kept(NULL, NULL, true);
	return NOTIFY_OK;
}

static int mktme_node_callback(struct notifier_block *nb, unsigned long action,
			       void *arg)
{
	int nid = ((struct node_notify *)arg)->nid;
	bool refused = false;

	mutex_lock(&mktme_lock);
	switch (action) {
	case NODE_ADDING_FIRST_MEMORY:
		/* Keys that are made from here on know of it. */
		refused = mktme_in_use() && !mktme_node_reachable(nid);
		if (!refused)
			node_set(nid, mktme_coming_nodes);
		break;
	case NODE_ADDED_FIRST_MEMORY:
	case NODE_CANCEL_ADDING_FIRST_MEMORY:
		node_clear(nid, mktme_coming_nodes);
		break;
	}
	mutex_unlock(&mktme_lock);
	if (!refused)
		return NOTIFY_OK;

	pr_err("memory of node %d stays offline: no CPU of its package is online, and keys are in use\n",
	       nid);
	return notifier_from_errno(-EBUSY);
}

/* Suspend to RAM powers the key tables down.  Suspend to idle does not. */
static int mktme_suspend(void *data)
{
	if (!mktme_in_use())
		return 0;

	pr_warn("no suspend to RAM while keys are in use\n");
	return -EBUSY;
}

/*
 * Reboot and kexec
 *
 * User space is not to come back, but other CPUs may still run it.  So all of
 * them write back their caches, and stay here until all keys are cleared: there
 * is no line under a key then.  What is stored to that memory afterwards, under
 * no key any more, each CPU writes back when it stops: see stop_this_cpu() and
 * machine_kexec().
 */
struct mktme_shutdown {
	atomic_t to_flush;
	cpumask_var_t packages;
};

static int mktme_shutdown_cpu(void *data)
{
	struct mktme_key_program program
		__aligned(sizeof(struct mktme_key_program)) = { };
	struct mktme_pconfig pconfig = { .program = &program };
	struct mktme_shutdown *shutdown = data;
	unsigned int keyid;
	int try, ret = 0;

	wbinvd();
	atomic_dec(&shutdown->to_flush);
	while (atomic_read(&shutdown->to_flush))
		cpu_relax();
	if (!cpumask_test_cpu(smp_processor_id(), shutdown->packages))
		return 0;

	program.keyid_ctrl = MKTME_KEYID_CLEAR_KEY | mktme_any_algorithm();
	for_each_set_bit(keyid, mktme_keyids, mktme_max_keyid + 1) {
		program.keyid = keyid;
		for (try = 0; try < MKTME_PCONFIG_TRIES; try++) {
			mktme_pconfig_local(&pconfig);
			if (pconfig.error != MKTME_PROG_ENTROPY_ERROR &&
			    pconfig.error != MKTME_PROG_DEVICE_BUSY)
				break;
			udelay(20);
		}
		if (pconfig.error)
			ret = -EIO;
	}
	return ret;
}

static void mktme_shutdown(void *data)
{
	struct mktme_shutdown shutdown;

	if (!alloc_cpumask_var(&shutdown.packages, GFP_KERNEL | __GFP_NOFAIL))
		return;
	cpus_read_lock();
	mutex_lock(&mktme_lock);
	mktme_down = true;
	mktme_package_cpus(shutdown.packages);
	atomic_set(&shutdown.to_flush, num_online_cpus());
	if (mktme_nr_keyids &&
	    stop_machine_cpuslocked(mktme_shutdown_cpu, &shutdown,
				    cpu_online_mask))
		pr_err("a key can't be cleared, and stays in the hardware\n");
	mutex_unlock(&mktme_lock);
	cpus_read_unlock();
	free_cpumask_var(shutdown.packages);
}

static const struct syscore_ops mktme_syscore_ops = {
	.suspend = mktme_suspend,
	.shutdown = mktme_shutdown,
};

static struct syscore mktme_syscore = {
	.ops = &mktme_syscore_ops,
};

/*
 * /sys/kernel/mm/mktme/, and /proc/meminfo
 */

static ssize_t keyids_total_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", mktme_max_keyid);
}

static ssize_t keyids_in_use_show(struct kobject *kobj,
				  struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(mktme_nr_keyids));
}

static ssize_t algorithms_show(struct kobject *kobj,
			       struct kobj_attribute *attr, char *buf)
{
	int len = 0;

	if (mktme_algorithm_enabled(MKTME_AES_XTS_128))
		len += sysfs_emit_at(buf, len, "aes-xts-128 ");
	if (mktme_algorithm_enabled(MKTME_AES_XTS_256))
		len += sysfs_emit_at(buf, len, "aes-xts-256 ");
	buf[len - 1] = '\n';
	return len;
}

static ssize_t encrypted_bytes_show(struct kobject *kobj,
				    struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n", mktme_sum_bytes(&mktme_nr_pages));
}

void mktme_report_meminfo(struct seq_file *m)
{
	if (mktme_enabled())
		seq_printf(m, "Encrypted:      %8lu kB\n",
			   mktme_sum_bytes(&mktme_nr_pages) >> 10);
}

static struct kobj_attribute keyids_total_attr = __ATTR_RO(keyids_total);
static struct kobj_attribute keyids_in_use_attr = __ATTR_RO(keyids_in_use);
static struct kobj_attribute algorithms_attr = __ATTR_RO(algorithms);
static struct kobj_attribute encrypted_bytes_attr = __ATTR_RO(encrypted_bytes);

static struct attribute *mktme_attrs[] = {
	&keyids_total_attr.attr,
	&keyids_in_use_attr.attr,
	&algorithms_attr.attr,
	&encrypted_bytes_attr.attr,
	NULL
};

static const struct attribute_group mktme_attr_group = {
	.attrs = mktme_attrs,
};

static int __init mktme_init(void)
{
	struct shrinker *shrinker;
	unsigned long algorithms;
	unsigned int cpu, i;
	int ret;

	if (!mktme_keyid_mask)
		return 0;
	if (mktme_inconsistent || !boot_cpu_has(X86_FEATURE_TME)) {
		pr_err("not usable: not set up alike on all CPUs\n");
		return 0;
	}
	if (!boot_cpu_has(X86_FEATURE_PCONFIG) || !mktme_pconfig_target()) {
		pr_err("not usable: PCONFIG does not program keys here\n");
		return 0;
	}

	algorithms = TME_ACTIVATE_ALGORITHMS(mktme_activate);
	mktme_algorithms = algorithms & (BIT(MKTME_AES_XTS_128) |
					 BIT(MKTME_AES_XTS_256));
	if (algorithms & ~mktme_algorithms)
		pr_info("algorithms not used: %#lx\n",
			algorithms & ~mktme_algorithms);
	if (!mktme_algorithms) {
		pr_err("not usable: no known algorithm is enabled\n");
		return 0;
	}

	mktme_max_keyid = mktme_count_keyids();
	if (!mktme_max_keyid) {
		pr_err("not usable: no KeyID is left for it\n");
		return 0;
	}

	ret = -ENOMEM;
	mktme_keyids = bitmap_zalloc(mktme_max_keyid + 1, GFP_KERNEL);
	mktme_key_table = kvcalloc(mktme_max_keyid + 1,
				   sizeof(*mktme_key_table), GFP_KERNEL);
	mktme_wq = alloc_workqueue("mktme", WQ_UNBOUND, 0);
	if (!mktme_keyids || !mktme_key_table || !mktme_wq)
		goto fail;

	for_each_possible_cpu(cpu) {
		struct mktme_kept *kept = per_cpu_ptr(&mktme_kept, cpu);

		spin_lock_init(&kept->lock);
		for (i = 0; i < MKTME_KEPT_LISTS; i++)
			INIT_LIST_HEAD(&kept->pages[i]);
	}

	shrinker = shrinker_alloc(0, "mktme-kept");
	if (!shrinker)
		goto fail;
	shrinker->count_objects = count_kept;
	shrinker->scan_objects = shrink_kept;

	ret = percpu_ref_init(&mktme_erased_key.ref, mktme_key_release, 0,
			      GFP_KERNEL);
	if (ret)
		goto fail_shrinker;
	ret = -ENOMEM;
	mktme_kobj = kobject_create_and_add("mktme", mm_kobj);
	mktme_keyids_kobj = kobject_create_and_add("keyids", mktme_kobj);
	if (!mktme_kobj || !mktme_keyids_kobj)
		goto fail_sysfs;
	ret = sysfs_create_group(mktme_kobj, &mktme_attr_group);
	if (ret)
		goto fail_sysfs;
	ret = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "x86/mktme:online",
				mktme_cpu_online, mktme_cpu_offline);
	if (ret < 0)
		goto fail_sysfs;
	hotplug_memory_notifier(mktme_memory_callback, DEFAULT_CALLBACK_PRI);
	hotplug_node_notifier(mktme_node_callback, DEFAULT_CALLBACK_PRI);
	register_syscore(&mktme_syscore);
	misc_cg_set_capacity(MISC_CG_RES_MKTME, mktme_max_keyid);
	shrinker_register(shrinker);

	static_branch_enable(&mktme_enabled_key);
	pr_info("%u KeyIDs\n", mktme_max_keyid);
	return 0;

fail_sysfs:
	kobject_put(mktme_keyids_kobj);
	kobject_put(mktme_kobj);
	percpu_ref_exit(&mktme_erased_key.ref);
fail_shrinker:
	shrinker_free(shrinker);
fail:
	if (mktme_wq)
		destroy_workqueue(mktme_wq);
	kvfree(mktme_key_table);
	bitmap_free(mktme_keyids);
	return ret;
}
subsys_initcall(mktme_init);

#ifdef CONFIG_X86_MKTME_KUNIT_TEST
#include "mktme_test.c"
#endif
