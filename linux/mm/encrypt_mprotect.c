// SPDX-License-Identifier: GPL-2.0
/*
 * encrypt_mprotect(): anonymous memory under a memory encryption key.
 *
 * A VMA's key decides what new pages get; what is there already is encrypted
 * anew, in place.  Which key a page is under is known by the page itself, and
 * by nothing else: see mk_pte().
 */

#include <linux/hugetlb.h>
#include <linux/mktme.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pagewalk.h>
#include <linux/oom.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/syscalls.h>

#include <asm/tlb.h>

#include <trace/events/mktme.h>

#include "internal.h"
#include "vma.h"

/* Copies of a VMA take a reference of their own. */
void vma_dup_mktme_key(struct vm_area_struct *vma)
{
	if (vma_mktme_key(vma))
		mktme_key_get(vma->mktme_key);
}

void vma_put_mktme_key(struct vm_area_struct *vma)
{
	if (vma_mktme_key(vma))
		mktme_key_put(vma->mktme_key);
}

void vma_show_mktme_keyid(struct seq_file *m, struct vm_area_struct *vma)
{
	if (mktme_enabled())
		seq_printf(m, "KeyID:          %8u\n", vma->mktme_key ?
			   mktme_key_keyid(vma->mktme_key) : 0);
}

static bool vma_can_encrypt(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma) &&
	       !(vma->vm_flags & (VM_SPECIAL | VM_SHARED | VM_MAYSHARE |
				  VM_HUGETLB));
}

/* Is the page mapped under the key that it is to have, or is none mapped? */
static bool page_has_key(struct page *page, struct mktme_key *key)
{
	return !page || page_mktme_key(page) == key;
}

/*
 * What to do with the page at an address before its key can be changed: the
 * page must be present, of order 0, and this mapping's alone.
 */
enum prep_step {
	PREP_DONE,		/* page in hand, or nothing to do */
	PREP_FAULT_IN,
	PREP_UNSHARE,
	PREP_SPLIT,
};

static enum prep_step prep_step(struct vm_area_struct *vma, unsigned long addr,
				pte_t pte, struct mktme_key *key,
				struct page **pagep)
{
	struct page *page;

	*pagep = NULL;
	if (pte_none(pte))
		return PREP_DONE;
	if (!pte_present(pte)) {
		swp_entry_t entry = pte_to_swp_entry(pte);

		/* What is lost to a hardware error has no contents to keep. */
		return is_pte_marker_entry(entry) || is_hwpoison_entry(entry) ?
			PREP_DONE : PREP_FAULT_IN;
	}

	/* NULL for the zero page: nothing is in it that needs a key. */
	page = vm_normal_page(vma, addr, pte);
	if (page_has_key(page, key))
		return PREP_DONE;
	if (!PageAnonExclusive(page))
		return PREP_UNSHARE;
	if (PageCompound(page))
		return PREP_SPLIT;

	*pagep = page;
	return PREP_DONE;
}

static int fault_in(struct vm_area_struct *vma, unsigned long addr,
		    unsigned int flags)
{
	vm_fault_t ret = handle_mm_fault(vma, addr, flags, NULL);

	return ret & VM_FAULT_ERROR ? vm_fault_to_errno(ret, 0) : 0;
}

static int split_page_at(struct vm_area_struct *vma, unsigned long addr)
{
	struct folio_walk fw;
	struct folio *folio;
	int ret;

	folio = folio_walk_start(&fw, vma, addr, 0);
	if (!folio)
		return 0;
	folio_get(folio);
	folio_walk_end(&fw, vma);

	folio_lock(folio);
	ret = folio_test_large(folio) ? split_folio(folio) : 0;
	folio_unlock(folio);
	folio_put(folio);

	/* Somebody holds a reference to the folio. */
	return ret == -EAGAIN ? -EBUSY : ret;
}

/* Make the pages in the range fit for reencrypt_page(). */
static int prep_range(struct vm_area_struct *vma, unsigned long start,
		      unsigned long end, struct mktme_key *key)
{
	struct mm_struct *mm = vma->vm_mm;
	unsigned long addr = start;
	enum prep_step step;
	struct page *page;
	spinlock_t *ptl;
	pte_t *ptep;
	pmd_t *pmd;
	int ret;

	while (addr < end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();

		pmd = mm_find_pmd(mm, addr);
		if (pmd)
			split_huge_pmd(vma, pmd, addr);
		ptep = pmd ? pte_offset_map_lock(mm, pmd, addr, &ptl) : NULL;
		if (!ptep) {
			addr = pmd_addr_end(addr, end);
			continue;
		}
		step = prep_step(vma, addr, ptep_get(ptep), key, &page);
		ret = page && folio_maybe_dma_pinned(page_folio(page)) ?
			-EBUSY : 0;
		pte_unmap_unlock(ptep, ptl);

		switch (step) {
		case PREP_DONE:
			addr += PAGE_SIZE;
			break;
		case PREP_FAULT_IN:
			ret = fault_in(vma, addr, FAULT_FLAG_REMOTE);
			break;
		case PREP_UNSHARE:
			ret = fault_in(vma, addr,
				       FAULT_FLAG_UNSHARE | FAULT_FLAG_REMOTE);
			break;
		case PREP_SPLIT:
			ret = split_page_at(vma, addr);
			break;
		}
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * One try at the page of a PTE that is locked, and in prep_range()'s state.
 * What makes it fail passes, mostly: the folio is locked by someone, under
 * writeback, or held by a reference that is not the mapping's.
 */
static bool try_reencrypt_pte(struct vm_area_struct *vma, unsigned long addr,
			      pte_t *ptep, struct page *page,
			      struct mktme_key *key, void *buf)
{
	struct folio *folio = page_folio(page);
	bool done = false;
	pte_t pte;

	if (!folio_trylock(folio))
		return false;
	if (folio_test_writeback(folio))
		goto unlock;
	if (folio_test_swapcache(folio) && !folio_free_swap(folio))
		goto unlock;

	/*
	 * With no entry left, and the reference count frozen, nobody can get
	 * at the page: not the other threads, nor GUP-fast.
	 */
	pte = ptep_clear_flush(vma, addr, ptep);
	if (folio_ref_freeze(folio, 1)) {
		mktme_reencrypt_page(page, key, buf);
		folio_ref_unfreeze(folio, 1);
		pte = mktme_rekey_pte(pte, page);
		done = true;
	}
	set_pte_at(vma->vm_mm, addr, ptep, pte);
	update_mmu_cache(vma, addr, ptep);
unlock:
	folio_unlock(folio);
	return done;
}

#define REENCRYPT_TRIES		10

static int reencrypt_page(struct vm_area_struct *vma, unsigned long addr,
			  struct mktme_key *key, void *buf)
{
	struct mm_struct *mm = vma->vm_mm;
	struct folio *folio = NULL;
	struct page *page;
	spinlock_t *ptl;
	pte_t *ptep;
	pmd_t *pmd;
	int try, ret;
	bool done;

	for (try = 0; try < REENCRYPT_TRIES; try++) {
		if (try == 1)
			lru_add_drain_all();
		else if (try)
			schedule_timeout_uninterruptible(1);

		/* Again, since reclaim does not care for the mmap lock. */
		ret = prep_range(vma, addr, addr + PAGE_SIZE, key);
		if (ret)
			return ret;

		pmd = mm_find_pmd(mm, addr);
		ptep = pmd ? pte_offset_map_lock(mm, pmd, addr, &ptl) : NULL;
		if (!ptep)
			return 0;
		if (prep_step(vma, addr, ptep_get(ptep), key, &page) == PREP_DONE) {
			done = !page || try_reencrypt_pte(vma, addr, ptep, page,
							  key, buf);
			/* Back among the pages that can be swapped out? */
			if (done && page && !key) {
				folio = page_folio(page);
				folio_get(folio);
			}
		} else {
			done = false;
		}
		pte_unmap_unlock(ptep, ptl);

		if (folio) {
			if (folio_isolate_lru(folio))
				folio_putback_lru(folio);
			folio_put(folio);
		}
		if (done)
			return 0;
	}
	return -EBUSY;
}

/* Returns where it came to an end: at @end, unless *@ret tells an error. */
static unsigned long reencrypt_range(struct vm_area_struct *vma,
				     unsigned long start, unsigned long end,
				     struct mktme_key *key, void *buf, int *ret)
{
	struct mmu_notifier_range range;
	unsigned long addr;
	pmd_t *pmd;

	*ret = 0;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, vma->vm_mm,
				start, end);
	mmu_notifier_invalidate_range_start(&range);
	for (addr = start; addr < end; addr += PAGE_SIZE) {
		pmd = mm_find_pmd(vma->vm_mm, addr);
		if (!pmd || pmd_none(pmdp_get_lockless(pmd))) {
			addr = pmd_addr_end(addr, end) - PAGE_SIZE;
			continue;
		}
		*ret = reencrypt_page(vma, addr, key, buf);
		if (*ret)
			break;
	}
	mmu_notifier_invalidate_range_end(&range);
	return addr;
}

/* Every VMA is looked at before any is changed. */
static int check_range(struct mm_struct *mm, unsigned long start,
		       unsigned long end)
{
	VMA_ITERATOR(vmi, mm, start);
	unsigned long tmp = start;
	struct vm_area_struct *vma;

	for_each_vma_range(vmi, vma, end) {
		if (vma->vm_start > tmp)
			return -ENOMEM;
		if (!vma_can_encrypt(vma))
			return -EINVAL;
		if (!can_modify_vma(vma))
			return -EPERM;
		tmp = vma->vm_end;
	}
	return tmp < end ? -ENOMEM : 0;
}

/*
 * Memory under a key is found by way of the mms that may have it: they are on
 * swapoff's list of mms, which loses them when they go away.
 */
static void list_mm(struct mm_struct *mm, struct list_head *head)
{
	spin_lock(&mmlist_lock);
	if (list_empty(&mm->mmlist))
		list_add(&mm->mmlist, head);
	spin_unlock(&mmlist_lock);
}

/*
 * Called under the write locks of both mms.  As for swap entries, the child
 * comes after its parent: mktme_replace_vma_keys() sees it if it was too late
 * for the parent.
 */
void __mktme_fork(struct mm_struct *mm, struct mm_struct *oldmm)
{
	if (!list_empty(&oldmm->mmlist))
		list_mm(mm, &oldmm->mmlist);
}

static void zap_vma_range(struct vm_area_struct *vma, unsigned long start,
			  unsigned long end)
{
	zap_page_range_single(vma, start, end - start, NULL);
}

static void set_vma_key(struct vm_area_struct *vma, struct mktme_key *key)
{
	struct mktme_key *old = vma->mktme_key;

	if (key)
		mktme_key_get(key);
	vma->mktme_key = key;
	if (old)
		mktme_key_put(old);
}

/* The whole of the VMA is about to get the key, or to lose it. */
static void account_locked(struct mm_struct *mm, struct vm_area_struct *vma,
			   struct mktme_key *key)
{
	if (vma->vm_flags & VM_LOCKED)
		return;
	if (key && !vma->mktme_key)
		mm->locked_vm += vma_pages(vma);
	else if (!key && vma->mktme_key)
		mm->locked_vm -= vma_pages(vma);
}

/* As mlock(2): the memory can't be swapped out from now on. */
static int check_memlock(struct mm_struct *mm, unsigned long start,
			 unsigned long end)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	unsigned long bytes = 0;

	for_each_vma_range(vmi, vma, end)
		if (!vma_counts_as_locked(vma))
			bytes += min(end, vma->vm_end) - max(start, vma->vm_start);
	if (!bytes)
		return 0;
	if (!can_do_mlock())
		return -EPERM;
	return mlock_future_ok(mm, VM_LOCKED, bytes) ? 0 : -ENOMEM;
}

static int encrypt_locked(struct mm_struct *mm, unsigned long start,
			  unsigned long end, unsigned long prot,
			  struct mktme_key *key, void *buf)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma, *prev;
	unsigned long stop = start;
	int err, ret;

	/*
	 * Whoever erases the key says so first, then goes through the list, so
	 * that one of the two sees the other.
	 */
	if (key) {
		list_mm(mm, &init_mm.mmlist);
		if (mktme_key_superseded(key))
			return -ERESTARTNOINTR;
	}

	ret = check_range(mm, start, end);
	if (ret)
		return ret;

	if (key) {
		ret = check_memlock(mm, start, end);
		if (ret)
			return ret;
	}

	for_each_vma_range(vmi, vma, end) {
		/* No fault without the mmap lock from here on. */
		vma_start_write(vma);
		/* Noise, that nobody has collected yet. */
		if (vma_mktme_erased(vma))
			zap_vma_range(vma, max(start, vma->vm_start),
				      min(end, vma->vm_end));
		ret = prep_range(vma, max(start, vma->vm_start),
				 min(end, vma->vm_end), key);
		if (ret)
			return ret;
	}

	ret = mprotect_locked(start, end, prot, 0, -1);
	if (ret)
		return ret;

	/* Nothing is left to fail once the pages are done. */
	vma_iter_set(&vmi, start);
	for_each_vma_range(vmi, vma, end) {
		if (vma->mktme_key == key)
			continue;
		vma = vma_carve(&vmi, vma, max(start, vma->vm_start),
				min(end, vma->vm_end));
		if (IS_ERR(vma))
			return PTR_ERR(vma);
	}

	vma_iter_set(&vmi, start);
	for_each_vma_range(vmi, vma, end) {
		stop = reencrypt_range(vma, max(start, vma->vm_start),
				       min(end, vma->vm_end), key, buf, &ret);
		if (ret)
			goto undo;
	}

	vma_iter_set(&vmi, start);
	prev = vma_prev(&vmi);
	vma_iter_set(&vmi, start);
	for_each_vma_range(vmi, vma, end) {
		/* One that is merged away is not looked at by the accounting. */
		account_locked(mm, vma, key);
		if (vma->mktme_key != key)
			vma = vma_modify_mktme_key(&vmi, prev, vma, key);
		if (vma->mktme_key != key)
			set_vma_key(vma, key);
		/* It can be accessed again if it was an erased one. */
		vma_set_page_prot(vma);
		prev = vma;
	}
	return 0;

undo:
	/*
	 * Somebody took a pin meanwhile.  Where that happens once more on the
	 * way back, a page keeps the new key: it is as readable as before.
	 */
	vma_iter_set(&vmi, start);
	for_each_vma_range(vmi, vma, stop)
		reencrypt_range(vma, max(start, vma->vm_start),
				min(stop, vma->vm_end), vma->mktme_key, buf,
				&err);
	return ret;
}

/*
 * Contents are kept; where that fails, it leaves things as they were, or, on the
 * way back, pages under the key that they have.
 */
static int rotate_vma(struct vm_area_struct *vma, struct mktme_key *key,
		      void *buf, bool back)
{
	unsigned long stop;
	int err, ret;

	ret = prep_range(vma, vma->vm_start, vma->vm_end, key);
	if (ret)
		return ret;

	stop = reencrypt_range(vma, vma->vm_start, vma->vm_end, key, buf, &ret);
	if (ret && !back)
		reencrypt_range(vma, vma->vm_start, stop, vma->mktme_key, buf,
				&err);
	return ret;
}

/*
 * Nobody gets at the memory from here on: no CPU, no fault, no get_user_pages(),
 * no fork that comes later.  That is far less work than to unmap the pages.
 */
static void shut_vma(struct vm_area_struct *vma)
{
	struct mmu_gather tlb;

	set_vma_key(vma, &mktme_erased_key);
	vma_set_page_prot(vma);
	tlb_gather_mmu(&tlb, vma->vm_mm);
	change_protection(&tlb, vma, vma->vm_start, vma->vm_end, 0);
	tlb_finish_mmu(&tlb);
}

static int replace_keys_in_mm(struct mm_struct *mm, struct mktme_key *old,
			      struct mktme_key *new, void *buf, bool back)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;
	int ret = 0;

	if (back)
		mmap_write_lock(mm);
	else if (mmap_write_lock_killable(mm))
		return -EINTR;
	/* What a fork that failed has left is about to go away. */
	if (check_stable_address_space(mm))
		goto unlock;

	for_each_vma(vmi, vma) {
		if (vma->mktme_key != old)
			continue;
		/* Waits for the faults that don't take the mmap lock. */
		vma_start_write(vma);
		if (old == &mktme_erased_key) {
			zap_vma_range(vma, vma->vm_start, vma->vm_end);
		} else if (new == &mktme_erased_key) {
			shut_vma(vma);
		} else {
			ret = rotate_vma(vma, new, buf, back);
			if (ret && !back)
				break;
			set_vma_key(vma, new);
		}
		cond_resched();
	}
unlock:
	mmap_write_unlock(mm);
	return back ? 0 : ret;
}

/**
 * mktme_replace_vma_keys - put another key in place of a key, in all mms
 * @old: the key; superseded, so that no VMA gets it meanwhile.  Or
 *	&mktme_erased_key, for both: unmap the pages that are left of erased keys.
 * @new: the key that takes its place; contents are kept.  Or &mktme_erased_key:
 *	nothing can be accessed any more, and the VMAs get no new pages.
 * @back: undo what failed: every VMA gets @new, be its pages under it or not, so
 *	that whoever erases @new finds all of them
 *
 * Context: Process context, sleeps; takes mmap locks for writing, one by one.
 * Return: 0 if @back, or if all went well; -EINTR, -ENOMEM, or -EBUSY where a
 * page is pinned that was to be kept; some VMAs may have got @new then.
 */
int mktme_replace_vma_keys(struct mktme_key *old, struct mktme_key *new,
			   bool back)
{
	struct mm_struct *mm, *prev_mm = &init_mm;
	struct list_head *p;
	void *buf;
	int ret = 0;

	buf = (void *)__get_free_page(GFP_KERNEL | (back ? __GFP_NOFAIL : 0));
	if (!buf)
		return -ENOMEM;

	/* A reference to an mm keeps it on the list. */
	mmget(prev_mm);
	spin_lock(&mmlist_lock);
	p = &init_mm.mmlist;
	while (!ret && (p = p->next) != &init_mm.mmlist) {
		mm = list_entry(p, struct mm_struct, mmlist);
		if (!mmget_not_zero(mm))
			continue;
		spin_unlock(&mmlist_lock);
		mmput(prev_mm);
		prev_mm = mm;

		ret = replace_keys_in_mm(mm, old, new, buf, back);
		cond_resched();
		spin_lock(&mmlist_lock);
	}
	spin_unlock(&mmlist_lock);
	mmput(prev_mm);

	memzero_explicit(buf, PAGE_SIZE);
	free_page((unsigned long)buf);
	return ret;
}

/**
 * sys_encrypt_mprotect - put anonymous memory under a memory encryption key
 * @start: start of the range, page-aligned
 * @len: length of the range in bytes, a multiple of the page size
 * @prot: protection, as in mprotect(2); PROT_GROWSUP and PROT_GROWSDOWN are
 *	not accepted
 * @serial: a key of type "mktme" for which the caller has search permission,
 *	or 0: under no key
 *
 * Contents are kept, whatever key the memory was under.  New pages get the key
 * as they are faulted in.  The protection is changed first, as by mprotect(2);
 * the pkey stays as it is.
 *
 * Context: Takes the mmap lock for writing.
 * Return: 0, or
 *	-EOPNOTSUPP: there is no MKTME here (-ENOSYS where the kernel is built
 *		without it);
 *	-EINVAL: range unaligned or wrapping around, bad @prot, a key of another
 *		type, or memory that is not private and anonymous;
 *	-ENOMEM: part of the range is not mapped, RLIMIT_MEMLOCK is too small
 *		for it, or out of memory;
 *	-ENOKEY, -EKEYREVOKED, -EKEYEXPIRED, -EACCES: @serial can't be used;
 *		-ENOKEY also where it was erased;
 *	-EACCES: @prot is not allowed;
 *	-EPERM: part of the range is sealed; RLIMIT_MEMLOCK is 0;
 *	-EBUSY: a page is pinned, for DMA or the like;
 *	-EINTR: killed.
 *
 * Every VMA, page and argument is looked at before anything is changed.  Only
 * where memory runs out, or a page is pinned in the middle of the operation,
 * is @prot left changed.
 */
SYSCALL_DEFINE4(encrypt_mprotect, unsigned long, start, size_t, len,
		unsigned long, prot, key_serial_t, serial)
{
	struct mm_struct *mm = current->mm;
	struct mktme_key *key = NULL;
	unsigned long end;
	void *buf;
	int ret;

	if (!mktme_enabled())
		return -EOPNOTSUPP;

	start = untagged_addr(start);
	if (!PAGE_ALIGNED(start) || !PAGE_ALIGNED(len))
		return -EINVAL;
	if (!len)
		return 0;
	if (check_add_overflow(start, len, &end))
		return -EINVAL;
	if (prot & (PROT_GROWSDOWN | PROT_GROWSUP) ||
	    !arch_validate_prot(prot, start))
		return -EINVAL;
again:
	if (serial) {
		key = mktme_key_lookup(serial);
		if (IS_ERR(key))
			return PTR_ERR(key);
	}

	ret = -ENOMEM;
	buf = (void *)__get_free_page(GFP_KERNEL);
	if (!buf)
		goto put_key;
	ret = -EINTR;
	if (mmap_write_lock_killable(mm))
		goto free_buf;
	ret = encrypt_locked(mm, start, end, prot, key, buf);
	mmap_write_unlock(mm);
	if (!ret)
		trace_mktme_encrypt(start, len, key ? mktme_key_keyid(key) : 0);

free_buf:
	memzero_explicit(buf, PAGE_SIZE);
	free_page((unsigned long)buf);
put_key:
	if (key)
		mktme_key_put(key);
	/* The key is being erased or rotated: the lookup waits for the outcome. */
	if (ret == -ERESTARTNOINTR)
		goto again;
	return ret;
}
