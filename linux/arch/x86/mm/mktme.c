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
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/kobject.h>
#include <linux/mktme.h>
#include <linux/mm.h>
#include <linux/page_ext.h>
#include <linux/percpu-refcount.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/topology.h>
#include <linux/workqueue.h>

#include <asm/cacheflush.h>
#include <asm/cpu.h>
#include <asm/mktme.h>
#include <asm/msr.h>
#include <asm/processor.h>

DEFINE_STATIC_KEY_FALSE(mktme_enabled_key);
EXPORT_SYMBOL(mktme_enabled_key);

/* The address bits that hold the KeyID; 0 where firmware set none aside. */
phys_addr_t mktme_keyid_mask __ro_after_init;
EXPORT_SYMBOL(mktme_keyid_mask);
static unsigned int mktme_keyid_shift __ro_after_init;

/* IA32_TME_ACTIVATE as the boot CPU has it. */
static u64 mktme_activate __ro_after_init;
static bool mktme_inconsistent;

/* KeyIDs 1 to mktme_max_keyid are ours. */
static unsigned int mktme_max_keyid __ro_after_init;
static unsigned long mktme_algorithms __ro_after_init;

/*
 * struct mktme_key - a KeyID that is in use
 * @ref: One reference for the key in the key service, one for each VMA, one
 *	for each page.  Only when all are gone can the KeyID serve another key.
 * @keyid: the KeyID
 * @release_work: clears the key in the hardware and frees the KeyID
 */
struct mktme_key {
	struct percpu_ref ref;
	unsigned int keyid;
	struct work_struct release_work;
};

/* Serializes PCONFIG, and protects the bitmap and (for writing) the table. */
static DEFINE_MUTEX(mktme_lock);
static unsigned long *mktme_keyids;	/* bitmap: in use */
static unsigned int mktme_nr_keyids;	/* bits set in it */

/* By KeyID.  A page holds a reference on its key: its entry is stable. */
static struct mktme_key **mktme_key_table;

static struct workqueue_struct *mktme_wq;

static DEFINE_PER_CPU(long, mktme_nr_pages);

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

	if (rdmsrl_safe(MSR_IA32_TME_CAPABILITY, &msr))
		return 0;
	max = min_t(unsigned int, max, TME_CAPABILITY_MAX_KEYS(msr));

	/*
	 * TDX's private KeyIDs follow those that MKTME may use.  Without TDX
	 * the register is not there, or a hypervisor has it read as 0.
	 */
	if (!rdmsrl_safe(MSR_IA32_MKTME_KEYID_PARTITIONING, &msr) && msr)
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

static void set_page_key(struct page *page, struct mktme_key *key)
{
	struct page_ext *ext = page_ext_get(page);

	WRITE_ONCE(*page_ext_keyid(ext), key ? key->keyid : 0);
	page_ext_put(ext);

	if (key)
		set_bit(PG_encrypted, &page->flags);
	else
		clear_bit(PG_encrypted, &page->flags);
}

/* Write back and drop the lines of a page under the KeyID it has now. */
static void flush_page(struct page *page)
{
	void *addr = kmap_local_page(page);

	clflush_cache_range(addr, PAGE_SIZE);
	kunmap_local(addr);
}

/**
 * __mktme_prep_folio - put a new folio under a key
 * @folio: just allocated, not mapped, its contents of no interest
 * @key: the key; the caller keeps it alive
 * @zero: clear the folio, by its new KeyID
 *
 * Without @zero, the folio must be written before it is read.
 *
 * Context: Any.
 */
void __mktme_prep_folio(struct folio *folio, struct mktme_key *key, bool zero)
{
	long i, nr = folio_nr_pages(folio);

	percpu_ref_get_many(&key->ref, nr);
	this_cpu_add(mktme_nr_pages, nr);

	/* Nothing of the direct map's may be written back over what follows. */
	clflush_cache_range(page_to_virt(&folio->page), nr << PAGE_SHIFT);
	for (i = 0; i < nr; i++) {
		struct page *page = folio_page(folio, i);

		set_page_key(page, key);
		if (zero)
			clear_highpage(page);
	}
}

/**
 * __mktme_free_pages - take freed pages back from their key
 * @page: the first of them
 * @order: there are 2^@order, all under the same key
 *
 * No mapping of them is left.  They are fit for any use afterwards, but what
 * KeyID 0 reads from them is noise.
 *
 * Context: Any.
 */
void __mktme_free_pages(struct page *page, unsigned int order)
{
	struct mktme_key *key = page_mktme_key(page);
	unsigned long i, nr = 1UL << order;

	for (i = 0; i < nr; i++) {
		flush_page(page + i);
		set_page_key(page + i, NULL);
	}

	this_cpu_sub(mktme_nr_pages, nr);
	percpu_ref_put_many(&key->ref, nr);
}

/**
 * mktme_reencrypt_page - change a page's key and keep its contents
 * @page: the page; nobody can reach it by any mapping, CPU's or device's
 * @key: the key, kept alive by the caller; NULL for none
 * @buf: PAGE_SIZE bytes to work with; holds plaintext afterwards
 *
 * Context: Any.
 */
void mktme_reencrypt_page(struct page *page, struct mktme_key *key, void *buf)
{
	struct mktme_key *old = page_mktme_key(page);

	if (key)
		percpu_ref_get(&key->ref);

	memcpy_from_page(buf, page, 0, PAGE_SIZE);
	flush_page(page);
	set_page_key(page, key);
	memcpy_to_page(page, 0, buf, PAGE_SIZE);

	this_cpu_add(mktme_nr_pages, !!key - !!old);
	if (old)
		percpu_ref_put(&old->ref);
}

static unsigned long mktme_count_pages(void)
{
	long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu(mktme_nr_pages, cpu);
	return max(sum, 0L);
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
		     CC_SET(z)
		     : "+a" (ret), CC_OUT(z) (failed)
		     : "b" (pconfig->program)
		     : "memory", "cc");
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

/* One online CPU of each package.  The caller holds cpus_read_lock(). */
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
 * Program a KeyID on every package, or on none.
 *
 * Return: 0 or an error.  *@leaked tells that the KeyID may still have a key
 * on some package, which must then never be used.
 */
static int mktme_program(unsigned int keyid,
			 const struct mktme_key_params *params, bool *leaked)
{
	struct mktme_key_program *program;
	cpumask_var_t packages, done;
	unsigned int cpu;
	int ret = -ENOMEM;

	*leaked = false;
	/* kmalloc() of a power of two is aligned to it. */
	program = kzalloc(sizeof(*program), GFP_KERNEL);
	if (!program)
		return ret;
	if (!alloc_cpumask_var(&packages, GFP_KERNEL))
		goto free_program;
	if (!zalloc_cpumask_var(&done, GFP_KERNEL))
		goto free_packages;

	mktme_fill_program(program, keyid, params);

	cpus_read_lock();
	mktme_package_cpus(packages);
	for_each_cpu(cpu, packages) {
		ret = mktme_pconfig_cpu(cpu, program);
		if (ret) {
			*leaked = !mktme_clear(keyid, done, program);
			break;
		}
		cpumask_set_cpu(cpu, done);
	}
	cpus_read_unlock();

	free_cpumask_var(done);
free_packages:
	free_cpumask_var(packages);
free_program:
	kfree_sensitive(program);
	return ret;
}

/*
 * Keys
 */

static void mktme_free_keyid(unsigned int keyid)
{
	lockdep_assert_held(&mktme_lock);
	__clear_bit(keyid, mktme_keyids);
	mktme_nr_keyids--;
}

/*
 * Every page has gone back by __mktme_free_pages(), which left no line under
 * the KeyID in any cache: it can be programmed.
 */
static void mktme_release_work(struct work_struct *work)
{
	struct mktme_key *key = container_of(work, struct mktme_key, release_work);
	struct mktme_key_program *program;
	cpumask_var_t packages;
	bool cleared = false;

	mutex_lock(&mktme_lock);
	program = kzalloc(sizeof(*program), GFP_KERNEL | __GFP_NOFAIL);
	if (alloc_cpumask_var(&packages, GFP_KERNEL)) {
		cpus_read_lock();
		mktme_package_cpus(packages);
		cleared = mktme_clear(key->keyid, packages, program);
		cpus_read_unlock();
		free_cpumask_var(packages);
	}
	kfree(program);

	mktme_key_table[key->keyid] = NULL;
	/* A KeyID that can't be cleared is lost rather than shared. */
	if (cleared)
		mktme_free_keyid(key->keyid);
	else
		pr_err("KeyID %u can't be cleared and is lost\n", key->keyid);
	mutex_unlock(&mktme_lock);

	percpu_ref_exit(&key->ref);
	kfree(key);
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
	return keyid;
}

/**
 * mktme_key_create - program a key into a free KeyID, on every package
 * @params: the key; the caller wipes it
 *
 * Context: Process context, sleeps.
 * Return: The key, with a reference that mktme_key_destroy() drops, or an
 * ERR_PTR: -ENOSPC where all KeyIDs are in use, -ENOMEM, -EBUSY or -EAGAIN
 * where the hardware was busy or had no entropy for long, -EIO where it refused.
 */
struct mktme_key *mktme_key_create(const struct mktme_key_params *params)
{
	struct mktme_key *key;
	bool leaked;
	int ret;

	key = kzalloc(sizeof(*key), GFP_KERNEL);
	if (!key)
		return ERR_PTR(-ENOMEM);
	INIT_WORK(&key->release_work, mktme_release_work);
	ret = percpu_ref_init(&key->ref, mktme_key_release, 0, GFP_KERNEL);
	if (ret)
		goto free_key;

	mutex_lock(&mktme_lock);
	key->keyid = mktme_alloc_keyid();
	if (!key->keyid) {
		/* Some may be on their way back. */
		mutex_unlock(&mktme_lock);
		rcu_barrier();
		flush_workqueue(mktme_wq);
		mutex_lock(&mktme_lock);
		key->keyid = mktme_alloc_keyid();
	}
	if (!key->keyid) {
		ret = -ENOSPC;
		goto unlock;
	}

	ret = mktme_program(key->keyid, params, &leaked);
	if (ret) {
		if (!leaked)
			mktme_free_keyid(key->keyid);
		goto unlock;
	}
	mktme_key_table[key->keyid] = key;
	mutex_unlock(&mktme_lock);
	return key;

unlock:
	mutex_unlock(&mktme_lock);
	percpu_ref_exit(&key->ref);
free_key:
	kfree(key);
	return ERR_PTR(ret);
}

/**
 * mktme_key_destroy - drop the reference of the key's creator
 * @key: the key
 *
 * The KeyID is cleared and free again once no VMA and no page is left under it.
 *
 * Context: Process context.
 */
void mktme_key_destroy(struct mktme_key *key)
{
	percpu_ref_kill(&key->ref);
}

/**
 * mktme_key_get - take a reference to a key that one has a reference to
 * @key: the key
 *
 * Context: Any.
 */
void mktme_key_get(struct mktme_key *key)
{
	percpu_ref_get(&key->ref);
}

/**
 * mktme_key_put - drop a reference
 * @key: the key
 *
 * Context: Any.
 */
void mktme_key_put(struct mktme_key *key)
{
	percpu_ref_put(&key->ref);
}

unsigned int mktme_key_keyid(const struct mktme_key *key)
{
	return key->keyid;
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
 */
bool mktme_in_use(void)
{
	return READ_ONCE(mktme_nr_keyids) != 0;
}

/*
 * /sys/kernel/mm/mktme/
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
	return sysfs_emit(buf, "%lu\n", mktme_count_pages() << PAGE_SHIFT);
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
	.name = "mktme",
	.attrs = mktme_attrs,
};

static int __init mktme_init(void)
{
	unsigned long algorithms;
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

	ret = sysfs_create_group(mm_kobj, &mktme_attr_group);
	if (ret)
		goto fail;

	static_branch_enable(&mktme_enabled_key);
	pr_info("%u KeyIDs\n", mktme_max_keyid);
	return 0;

fail:
	if (mktme_wq)
		destroy_workqueue(mktme_wq);
	kvfree(mktme_key_table);
	bitmap_free(mktme_keyids);
	return ret;
}
subsys_initcall(mktme_init);
