// SPDX-License-Identifier: GPL-2.0
/*
 * encrypt_mprotect(): anonymous memory under a memory encryption key.
 *
 * A VMA's key decides what new pages get; what is there already is encrypted
 * anew, in place.  Which key a page is under is known by the page itself, and
 * by nothing else: see mk_pte().
 */

#include <linux/hugetlb.h>
#include <linux/leafops.h>
#include <linux/mktme.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pagewalk.h>
#include <linux/oom.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/swap.h>
#include <linux/syscalls.h>

#include <asm/tlb.h>

#include <trace/events/mktme.h>

#include "internal.h"
#include "vma.h"

static bool vma_can_encrypt(struct vm_area_struct *vma)
{
	if (vma->vm_flags & (VM_SHARED | VM_MAYSHARE))
		return false;
	/* Not made for VM_SPECIAL, which VM_DONTEXPAND is a part of. */
	if (is_vm_hugetlb_page(vma))
		return true;
	return vma_is_anonymous(vma) && !(vma->vm_flags & VM_SPECIAL);
}

/*
 * How memory goes under another key
 *
 * 1. REKEY_PREPARE: swapped and shared pages are brought in and copied, pins are
 *    looked for.  What is going to fail does so here, and nothing has changed.
 * 2. The VMA is frozen: its pages are there, but nobody can get at them, be it
 *    by the CPU, by GUP-fast or by a fault, which waits for the mmap lock.
 * 3. REKEY_DO: one folio after the other is encrypted anew.  References to it
 *    other than the mapping's make that fail.
 * 4. REKEY_UNDO: if so, what was done is undone.  As no reference can have been
 *    taken by way of a mapping since, there are only those which go away soon,
 *    like compaction's: that can't fail.
 * 5. The VMA thaws, and gets the key that now all of its pages have.
 *
 * So no page is ever left under another key than its VMA's, where nobody who
 * erases that key would find it.
 */
enum rekey_phase {
	REKEY_PREPARE,
	REKEY_DO,
	REKEY_UNDO,
};

struct rekey {
	struct mktme_key *key;	/* which the pages get, or NULL */
	void *buf;		/* a page to work with */
	bool best_effort;	/* leave out what fails, don't be killed */

	enum rekey_phase phase;
	struct vm_area_struct *vma;
	unsigned long end;
	struct folio *folio;	/* to be split, with a reference */
	struct folio_batch evictable;	/* done, and can be swapped out again */
};

/* What it takes to go on at an address. */
enum rekey_step {
	REKEY_NEXT,		/* done here: on to the next one */
	REKEY_AGAIN,		/* the page table has changed */
	REKEY_FAULT_IN,
	REKEY_UNSHARE,
	REKEY_SPLIT,
	REKEY_WAIT,		/* somebody else has the folio */
};

static void change_vma_protection(struct vm_area_struct *vma,
				  unsigned long flags)
{
	struct mmu_gather tlb;

	tlb_gather_mmu(&tlb, vma->vm_mm);
	change_protection(&tlb, vma, vma->vm_start, vma->vm_end, flags);
	tlb_finish_mmu(&tlb);
}

/*
 * By PROT_NONE, in the page tables, and in vm_page_prot for all that makes
 * entries without the mmap lock, as migration does.  vm_flags stay as they are.
 */
static void freeze_vma(struct vm_area_struct *vma)
{
	vma_assert_write_locked(vma);
	WRITE_ONCE(vma->vm_page_prot,
		   pgprot_modify(vma->vm_page_prot, PAGE_NONE));
	change_vma_protection(vma, 0);
}

static void thaw_vma(struct vm_area_struct *vma)
{
	vma_set_page_prot(vma);
	change_vma_protection(vma, vma_wants_manual_pte_write_upgrade(vma) ?
			      MM_CP_TRY_CHANGE_WRITABLE : 0);
}

static int fault_in(struct vm_area_struct *vma, unsigned long addr,
		    unsigned int flags)
{
	vm_fault_t fault = handle_mm_fault(vma, addr, flags | FAULT_FLAG_REMOTE,
					   NULL);

	if (!(fault & VM_FAULT_ERROR))
		return 0;
	/* The pool of huge pages is empty. */
	if ((fault & VM_FAULT_SIGBUS) && is_vm_hugetlb_page(vma))
		return -ENOMEM;
	return vm_fault_to_errno(fault, 0);
}

static int split_folio_and_put(struct folio *folio)
{
	int ret;

	folio_lock(folio);
	ret = folio_test_large(folio) ? split_folio(folio) : 0;
	folio_unlock(folio);
	folio_put(folio);
	return ret;
}

static bool has_other_refs(struct folio *folio)
{
	int refs = folio_mapcount(folio);

	if (folio_test_swapcache(folio))
		refs += folio_nr_pages(folio);
	return folio_ref_count(folio) > refs;
}

/*
 * For the page that is mapped at an address, under the page table lock: is its
 * folio to be encrypted anew now?  If not, *@step tells what is to be done
 * before it can be, or that there is nothing to do.
 */
static bool rekey_page_now(struct rekey *rk, struct page *page,
			   enum rekey_step *step)
{
	struct folio *folio = page_folio(page);

	if (page_mktme_key(page) == rk->key)
		*step = REKEY_NEXT;
	/* memory_failure() may keep it for good: better to lose it than to wait. */
	else if (rk->phase == REKEY_UNDO && folio_contain_hwpoisoned_page(folio))
		*step = REKEY_NEXT;
	else if (rk->phase != REKEY_PREPARE)
		return true;
	/* A huge page can be a file's. */
	else if (!folio_test_anon(folio) || !PageAnonExclusive(page))
		*step = REKEY_UNSHARE;
	else
		*step = has_other_refs(folio) ? REKEY_WAIT : REKEY_NEXT;
	return false;
}

/*
 * Encrypt a folio anew of which all mappings are in a frozen VMA: there are
 * @refs of them.  They stay as they are as long as the folio is locked, except
 * for bits that don't matter here, so that the page table lock is not needed.
 *
 * What makes it fail passes.
 */
static bool lock_for_rekey(struct folio *folio, int refs)
{
	if (!folio_trylock(folio))
		return false;
	if (!folio_test_writeback(folio) &&
	    (!folio_test_swapcache(folio) || folio_free_swap(folio)) &&
	    folio_ref_freeze(folio, refs))
		return true;
	folio_unlock(folio);
	return false;
}

static void put_evictable(struct rekey *rk)
{
	check_move_unevictable_folios(&rk->evictable);
	folios_put(&rk->evictable);
}

static void unlock_after_rekey(struct rekey *rk, struct folio *folio, int refs)
{
	bool evictable = !rk->key && !folio_test_hugetlb(folio);

	folio_ref_unfreeze(folio, refs + evictable);
	folio_unlock(folio);
	if (evictable && !folio_batch_add(&rk->evictable, folio))
		put_evictable(rk);
}

#ifdef CONFIG_HUGETLB_PAGE
static enum rekey_step rekey_hugetlb(struct rekey *rk, unsigned long addr,
				     unsigned long *next)
{
	struct address_space *mapping = rk->vma->vm_file->f_mapping;
	struct hstate *h = hstate_vma(rk->vma);
	struct mm_struct *mm = rk->vma->vm_mm;
	enum rekey_step step = REKEY_NEXT;
	struct folio *folio;
	spinlock_t *ptl;
	pte_t *ptep, pte;

	*next = addr + huge_page_size(h);
	/* Truncating the file, or a hole in it, unmaps private pages as well. */
	i_mmap_lock_read(mapping);
	ptep = hugetlb_walk(rk->vma, addr, huge_page_size(h));
	if (!ptep)
		goto unlock_mapping;

	ptl = huge_pte_lock(h, mm, ptep);
	pte = huge_ptep_get(mm, addr, ptep);
	if (!pte_present(pte)) {
		if (softleaf_is_migration(softleaf_from_pte(pte)))
			step = REKEY_FAULT_IN;
		goto unlock;
	}
	folio = page_folio(pte_page(pte));
	if (!rekey_page_now(rk, &folio->page, &step))
		goto unlock;
	if (!lock_for_rekey(folio, 1)) {
		step = REKEY_WAIT;
		goto unlock;
	}
	spin_unlock(ptl);

	mktme_reencrypt_folio(folio, rk->key, rk->buf);

	spin_lock(ptl);
	pte = mktme_rekey_pte(huge_ptep_get(mm, addr, ptep), &folio->page);
	set_huge_pte_at(mm, addr, ptep, pte, huge_page_size(h));
	spin_unlock(ptl);
	unlock_after_rekey(rk, folio, 1);
	goto unlock_mapping;

unlock:
	spin_unlock(ptl);
unlock_mapping:
	i_mmap_unlock_read(mapping);
	return step;
}

#else
static enum rekey_step rekey_hugetlb(struct rekey *rk, unsigned long addr,
				     unsigned long *next)
{
	return REKEY_NEXT;
}
#endif

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static enum rekey_step rekey_pmd(struct rekey *rk, unsigned long addr,
				 pmd_t *pmd)
{
	struct vm_area_struct *vma = rk->vma;
	enum rekey_step step = REKEY_NEXT;
	struct folio *folio;
	spinlock_t *ptl;

	ptl = pmd_trans_huge_lock(pmd, vma);
	if (!ptl)
		return REKEY_AGAIN;
	if (!pmd_present(*pmd)) {
		step = REKEY_FAULT_IN;
		goto unlock;
	}
	if (is_huge_zero_pmd(*pmd))
		goto unlock;
	folio = pmd_folio(*pmd);
	if (!rekey_page_now(rk, &folio->page, &step))
		goto unlock;
	/* Part of it keeps its key: change it page by page. */
	if (!IS_ALIGNED(addr, PMD_SIZE) || rk->end - addr < PMD_SIZE) {
		spin_unlock(ptl);
		__split_huge_pmd(vma, pmd, addr, false);
		return REKEY_AGAIN;
	}
	/* The page table has one reference. */
	if (!lock_for_rekey(folio, 1)) {
		step = REKEY_WAIT;
		goto unlock;
	}
	spin_unlock(ptl);

	mktme_reencrypt_folio(folio, rk->key, rk->buf);

	spin_lock(ptl);
	set_pmd_at(vma->vm_mm, addr, pmd, mktme_rekey_pmd(*pmd, &folio->page));
	spin_unlock(ptl);
	unlock_after_rekey(rk, folio, 1);
	return REKEY_NEXT;

unlock:
	spin_unlock(ptl);
	return step;
}
#else
static enum rekey_step rekey_pmd(struct rekey *rk, unsigned long addr,
				 pmd_t *pmd)
{
	return REKEY_NEXT;
}
#endif

/* Are all pages of the folio mapped here, in order, and before @end? */
static bool folio_mapped_here(struct rekey *rk, struct folio *folio,
			      unsigned long addr, pte_t *ptep, pte_t pte)
{
	unsigned long end = pmd_addr_end(addr, rk->end);
	long nr = folio_nr_pages(folio);

	if (nr == 1)
		return true;
	return pte_pfn(pte) == folio_pfn(folio) &&
	       nr <= (end - addr) >> PAGE_SHIFT &&
	       folio_pte_batch(folio, ptep, pte, nr) == nr;
}

/* As rekey_page_now(), for an entry. */
static struct page *rekey_pte_now(struct rekey *rk, unsigned long addr,
				  pte_t pte, enum rekey_step *step)
{
	struct page *page;

	*step = REKEY_NEXT;
	if (pte_none(pte))
		return NULL;
	if (!pte_present(pte)) {
		softleaf_t entry = softleaf_from_pte(pte);

		if (!softleaf_is_marker(entry) && !softleaf_is_hwpoison(entry))
			*step = REKEY_FAULT_IN;
		return NULL;
	}
	/* NULL for the zero page: nothing is in it that needs a key. */
	page = vm_normal_page(rk->vma, addr, pte);
	return page && rekey_page_now(rk, page, step) ? page : NULL;
}

/*
 * On to the end of the page table as long as there is nothing to do but to
 * encrypt.  *@start becomes where the step is to be taken.
 */
static enum rekey_step rekey_ptes(struct rekey *rk, unsigned long *start,
				  pmd_t *pmd, unsigned long *next)
{
	unsigned long addr = *start, end = pmd_addr_end(addr, rk->end);
	enum rekey_step step = REKEY_NEXT;
	struct mm_struct *mm = rk->vma->vm_mm;
	pte_t *start_ptep, *ptep, pte;
	struct folio *folio;
	struct page *page;
	spinlock_t *ptl;
	long i, nr;

	*next = addr + PAGE_SIZE;
	start_ptep = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!start_ptep)
		return REKEY_AGAIN;

	for (ptep = start_ptep; addr < end; ptep += nr, addr += nr * PAGE_SIZE) {
		nr = 1;
		pte = ptep_get(ptep);
		page = rekey_pte_now(rk, addr, pte, &step);
		if (step != REKEY_NEXT)
			break;
		if (!page)
			continue;

		folio = page_folio(page);
		if (!folio_mapped_here(rk, folio, addr, ptep, pte)) {
			folio_get(folio);
			rk->folio = folio;
			step = REKEY_SPLIT;
			break;
		}
		nr = folio_nr_pages(folio);
		if (!lock_for_rekey(folio, nr)) {
			step = REKEY_WAIT;
			break;
		}
		/* Its entries stay as they are even if others get the lock. */
		if (nr > 1)
			spin_unlock(ptl);
		mktme_reencrypt_folio(folio, rk->key, rk->buf);
		if (nr > 1)
			spin_lock(ptl);
		for (i = 0; i < nr; i++) {
			pte = mktme_rekey_pte(ptep_get(ptep + i),
					      folio_page(folio, i));
			set_pte_at(mm, addr + i * PAGE_SIZE, ptep + i, pte);
		}
		unlock_after_rekey(rk, folio, nr);
		if (need_resched() || spin_is_contended(ptl)) {
			addr += nr * PAGE_SIZE;
			break;
		}
	}
	pte_unmap_unlock(start_ptep, ptl);
	*start = addr;
	*next = step == REKEY_NEXT ? addr : addr + PAGE_SIZE;
	return step;
}

/*
 * From *@addr on, which becomes where the step is to be taken; *@next is where
 * to go on afterwards, or without it.
 */
static enum rekey_step rekey_step(struct rekey *rk, unsigned long *addr,
				  unsigned long *next)
{
	pmd_t *pmd, pmdval;

	if (is_vm_hugetlb_page(rk->vma))
		return rekey_hugetlb(rk, *addr, next);

	*next = pmd_addr_end(*addr, rk->end);
	pmd = mm_find_pmd(rk->vma->vm_mm, *addr);
	if (!pmd)
		return REKEY_NEXT;
	pmdval = pmdp_get_lockless(pmd);
	if (pmd_none(pmdval))
		return REKEY_NEXT;
	if (pmd_is_huge(pmdval))
		return rekey_pmd(rk, *addr, pmd);
	return rekey_ptes(rk, addr, pmd, next);
}

#define REKEY_TRIES	10

/* What a step asks for.  Returns an error if that is not to be had. */
static int rekey_prepare_step(struct rekey *rk, enum rekey_step step,
			      unsigned long addr, int *tries)
{
	switch (step) {
	case REKEY_NEXT:
	case REKEY_AGAIN:
		return 0;
	case REKEY_FAULT_IN:
		return fault_in(rk->vma, addr, 0);
	case REKEY_UNSHARE:
		return fault_in(rk->vma, addr, FAULT_FLAG_UNSHARE);
	case REKEY_SPLIT:
		if (!split_folio_and_put(rk->folio))
			return 0;
		break;
	case REKEY_WAIT:
		break;
	}

	if (*tries == REKEY_TRIES && rk->phase != REKEY_UNDO)
		return -EBUSY;
	/* Most often it is in a batch for the LRU, and in this CPU's. */
	if (!*tries)
		lru_add_drain();
	else
		lru_add_drain_all();
	if (*tries > 1)
		schedule_timeout_uninterruptible(1);
	++*tries;
	return 0;
}

/*
 * Take part of a VMA through a phase.  Returns where it came to an end: at @end,
 * unless *@ret tells an error.
 */
static unsigned long rekey_range(struct rekey *rk, enum rekey_phase phase,
				 struct vm_area_struct *vma,
				 unsigned long start, unsigned long end,
				 int *ret)
{
	/* What is swapped out where all is undone is under no key. */
	bool skip = rk->best_effort || phase == REKEY_UNDO;
	unsigned long addr = start, was, next;
	enum rekey_step step;
	int tries = 0;

	rk->phase = phase;
	rk->vma = vma;
	rk->end = end;
	*ret = 0;
	while (addr < end) {
		if (!skip && fatal_signal_pending(current)) {
			*ret = -EINTR;
			break;
		}
		cond_resched();

		was = addr;
		step = rekey_step(rk, &addr, &next);
		/* Many can be busy: then wait for all of them together. */
		if (addr != was && !rk->best_effort)
			tries = 0;
		*ret = rekey_prepare_step(rk, step, addr, &tries);
		if (*ret && !skip)
			break;
		if (*ret || step == REKEY_NEXT) {
			addr = next;
			*ret = 0;
			if (!rk->best_effort)
				tries = 0;
		}
	}
	put_evictable(rk);
	return addr;
}

static int prepare_range(struct rekey *rk, struct vm_area_struct *vma,
			 unsigned long start, unsigned long end)
{
	int ret;

	rekey_range(rk, REKEY_PREPARE, vma, start, end, &ret);
	return ret;
}

/* Returns up to where it came, for undo_vma() if *@ret tells an error. */
static unsigned long rekey_vma(struct rekey *rk, struct vm_area_struct *vma,
			       int *ret)
{
	return rekey_range(rk, REKEY_DO, vma, vma->vm_start, vma->vm_end, ret);
}

static void undo_vma(struct vm_area_struct *vma, unsigned long stop, void *buf)
{
	struct rekey undo = { .key = vma->mktme_key, .buf = buf };
	int ret;

	rekey_range(&undo, REKEY_UNDO, vma, vma->vm_start, stop, &ret);
}

/* Every VMA is looked at before any is changed. */
static int check_range(struct mm_struct *mm, unsigned long start,
		       unsigned long end, unsigned long prot)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	unsigned long tmp = start;
	vm_flags_t newflags;
	int ret;

	for_each_vma_range(vmi, vma, end) {
		if (vma->vm_start > tmp)
			return -ENOMEM;
		if (!vma_can_encrypt(vma))
			return -EINVAL;
		if (is_vm_hugetlb_page(vma) &&
		    (max(start, vma->vm_start) | min(end, vma->vm_end)) &
		    ~huge_page_mask(hstate_vma(vma)))
			return -EINVAL;
		if (vma_is_sealed(vma))
			return -EPERM;
		ret = mprotect_newflags(vma, prot, -1, &newflags);
		if (ret)
			return ret;
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
	if (vma->vm_flags & (VM_LOCKED | VM_HUGETLB))
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
		if (!vma_counts_as_locked(vma) && !is_vm_hugetlb_page(vma))
			bytes += min(end, vma->vm_end) - max(start, vma->vm_start);
	if (!bytes)
		return 0;
	if (!can_do_mlock())
		return -EPERM;
	return mlock_future_ok(mm, true, bytes) ? 0 : -ENOMEM;
}

/* Give all VMAs in a range a key, or leave them theirs, and merge them. */
static void set_vma_keys(struct mm_struct *mm, unsigned long start,
			 unsigned long end, struct mktme_key *key, bool keep)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma, *prev;

	prev = vma_prev(&vmi);
	vma_iter_set(&vmi, start);
	for_each_vma_range(vmi, vma, end) {
		if (keep)
			key = vma->mktme_key;
		/* One that is merged away is not looked at by the accounting. */
		account_locked(mm, vma, key);
		if (keep || vma->mktme_key != key)
			vma = vma_modify_mktme_key(&vmi, prev, vma, key);
		if (vma->mktme_key != key)
			set_vma_key(vma, key);
		/* It can be accessed again if it was an erased one. */
		vma_set_page_prot(vma);
		prev = vma;
	}
}

/* The VMAs in the range begin and end with it. */
static int rekey_vmas(struct rekey *rk, struct mm_struct *mm,
		      unsigned long start, unsigned long end)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	unsigned long stop = start;
	int ret = 0;

	for_each_vma_range(vmi, vma, end)
		if (vma->mktme_key != rk->key)
			freeze_vma(vma);

	vma_iter_set(&vmi, start);
	for_each_vma_range(vmi, vma, end) {
		if (vma->mktme_key == rk->key)
			continue;
		stop = rekey_vma(rk, vma, &ret);
		if (ret)
			break;
	}

	vma_iter_set(&vmi, start);
	for_each_vma_range(vmi, vma, end) {
		if (vma->mktme_key == rk->key)
			continue;
		if (ret && vma->vm_start < stop)
			undo_vma(vma, min(stop, vma->vm_end), rk->buf);
		thaw_vma(vma);
	}
	return ret;
}

static int encrypt_locked(struct mm_struct *mm, unsigned long start,
			  unsigned long end, unsigned long prot,
			  struct mktme_key *key, void *buf)
{
	VMA_ITERATOR(vmi, mm, start);
	struct rekey rk = { .key = key, .buf = buf };
	struct vm_area_struct *vma;
	int ret;

	/*
	 * Whoever erases the key says so first, then goes through the list, so
	 * that one of the two sees the other.
	 */
	if (key) {
		list_mm(mm, &init_mm.mmlist);
		if (mktme_key_superseded(key))
			return -ERESTARTNOINTR;
	}

	ret = check_range(mm, start, end, prot);
	if (ret)
		return ret;

	if (key) {
		ret = check_memlock(mm, start, end);
		if (ret)
			return ret;
	}

	for_each_vma_range(vmi, vma, end) {
		if (vma->mktme_key == key)
			continue;
		/* No fault without the mmap lock from here on. */
		vma_start_write(vma);
		/* Noise, that nobody has collected yet. */
		if (vma_mktme_erased(vma))
			zap_vma_range(vma, max(start, vma->vm_start),
				      min(end, vma->vm_end) -
				      max(start, vma->vm_start));
		ret = prepare_range(&rk, vma, max(start, vma->vm_start),
				    min(end, vma->vm_end));
		if (ret)
			return ret;
	}

	ret = mprotect_locked(start, end, prot, 0, -1);
	if (ret)
		return ret;

	vma_iter_set(&vmi, start);
	for_each_vma_range(vmi, vma, end) {
		if (vma->mktme_key == key)
			continue;
		vma_start_write(vma);
		vma = vma_carve(&vmi, vma, max(start, vma->vm_start),
				min(end, vma->vm_end));
		if (IS_ERR(vma)) {
			ret = PTR_ERR(vma);
			break;
		}
	}
	if (!ret)
		ret = rekey_vmas(&rk, mm, start, end);
	set_vma_keys(mm, start, end, key, ret);
	return ret;
}

/*
 * Contents are kept; where that fails, nothing has changed, or, on the way back,
 * some pages are under the key that they had.
 */
static int rotate_vma(struct vm_area_struct *vma, struct mktme_key *key,
		      void *buf, bool back)
{
	struct rekey rk = { .key = key, .buf = buf, .best_effort = back };
	unsigned long stop;
	int ret;

	ret = prepare_range(&rk, vma, vma->vm_start, vma->vm_end);
	if (ret)
		return ret;

	freeze_vma(vma);
	stop = rekey_vma(&rk, vma, &ret);
	if (ret)
		undo_vma(vma, stop, buf);
	thaw_vma(vma);
	return ret;
}

/*
 * Nobody gets at the memory from here on: no CPU, no fault, no get_user_pages(),
 * no fork that comes later.  That is far less work than to unmap the pages.
 */
static void shut_vma(struct vm_area_struct *vma)
{
	set_vma_key(vma, &mktme_erased_key);
	vma_set_page_prot(vma);
	change_vma_protection(vma, 0);
}

/* How to put another key in place of a key. */
struct replacement {
	struct mktme_key *old;
	struct mktme_key *new;
	void *buf;		/* a page to work with */
	bool back;		/* let no failure stop it */
	bool try;		/* leave out the mms that are locked */
};

static int lock_mm(struct mm_struct *mm, struct replacement *r)
{
	if (r->try)
		return mmap_write_trylock(mm) ? 0 : -EAGAIN;
	return mmap_write_lock_killable(mm);
}

static int replace_keys_in_mm(struct mm_struct *mm, struct replacement *r)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;
	int ret;

	ret = lock_mm(mm, r);
	if (ret)
		return ret;

	for_each_vma(vmi, vma) {
		if (vma->mktme_key != r->old)
			continue;
		/* Waits for the faults that don't take the mmap lock. */
		vma_start_write(vma);
		if (r->old == &mktme_erased_key) {
			zap_vma(vma);
		} else if (r->new == &mktme_erased_key) {
			shut_vma(vma);
		} else if (check_stable_address_space(mm)) {
			/* About to go away; what is to be erased later is found. */
			set_vma_key(vma, r->new);
		} else {
			ret = rotate_vma(vma, r->new, r->buf, r->back);
			if (ret && !r->back)
				break;
			set_vma_key(vma, r->new);
		}
		cond_resched();
	}
	mmap_write_unlock(mm);
	return r->back ? 0 : ret;
}

/* Returns -EAGAIN if all went well, but for mms that could not be looked at. */
static int replace_keys(struct replacement *r)
{
	struct mm_struct *mm, *prev_mm = &init_mm;
	struct list_head *p;
	bool locked = false;
	int ret = 0;

	/*
	 * A reference to an mm keeps it on the list.  If it is the last one, what is
	 * to go away with the mm can wait for its I/O for as long as that takes.
	 */
	mmget(prev_mm);
	spin_lock(&mmlist_lock);
	p = &init_mm.mmlist;
	while (!ret && mktme_key_in_vmas(r->old) &&
	       (p = p->next) != &init_mm.mmlist) {
		mm = list_entry(p, struct mm_struct, mmlist);
		if (!mmget_not_zero(mm)) {
			/* It goes away, but who collects has to see that it has. */
			locked |= r->old == &mktme_erased_key;
			continue;
		}
		spin_unlock(&mmlist_lock);
		mmput_async(prev_mm);
		prev_mm = mm;

		ret = replace_keys_in_mm(mm, r);
		if (ret == -EAGAIN) {
			locked = true;
			ret = 0;
		}
		cond_resched();
		spin_lock(&mmlist_lock);
	}
	spin_unlock(&mmlist_lock);
	mmput_async(prev_mm);
	if (!ret && locked && mktme_key_in_vmas(r->old))
		ret = -EAGAIN;
	return ret;
}

/* A jiffy each.  A worker comes again, and who was killed is not to wait. */
#define REPLACE_TRIES	10
/* In jiffies: for others */
#define REPLACE_TIME	(2 * HZ)

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
 * Return: 0 if all went well, or was undone; -EINTR where it was killed as it
 * waited for a lock; -ENOMEM, -EFAULT where a page has a hardware error, or
 * -EBUSY where one is pinned that was to be kept; some VMAs may have got @new
 * then.  -EAGAIN where what is left of erased keys can be in an mm that is locked,
 * or about to go away.
 */
int mktme_replace_vma_keys(struct mktme_key *old, struct mktme_key *new,
			   bool back)
{
	struct replacement r = { .old = old, .new = new, .back = back };
	unsigned long end = jiffies + REPLACE_TIME;
	int tries, ret;

	r.buf = (void *)__get_free_page(GFP_KERNEL | (back ? __GFP_NOFAIL : 0));
	if (!r.buf)
		return -ENOMEM;

	/*
	 * An mm can be on the list for another key's sake, or for swapoff's, and
	 * be locked for as long as somebody likes: by a fault that a file system
	 * in user space does not serve.  That must hold up only whoever needs it,
	 * since it has memory under the key.
	 */
	r.try = true;
	for (tries = 1; (ret = replace_keys(&r)) == -EAGAIN; tries++) {
		if (tries >= REPLACE_TRIES &&
		    (old == &mktme_erased_key || fatal_signal_pending(current) ||
		     time_after(jiffies, end)))
			break;
		schedule_timeout_uninterruptible(1);
	}
	r.try = false;
	if (ret == -EAGAIN && old != &mktme_erased_key)
		ret = replace_keys(&r);

	memzero_explicit(r.buf, PAGE_SIZE);
	free_page((unsigned long)r.buf);
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
 *	-EINVAL: range unaligned or wrapping around, part of a huge page of
 *		hugetlbfs, bad @prot, a key of another type, or memory that is
 *		neither private and anonymous nor private and hugetlbfs's;
 *	-ENOMEM: part of the range is not mapped, RLIMIT_MEMLOCK is too small
 *		for it, or out of memory;
 *	-ENOKEY, -EKEYREVOKED, -EKEYEXPIRED, -EKEYREJECTED, -EACCES: @serial can't
 *		be used; -ENOKEY also where it was erased;
 *	-EACCES: @prot is not allowed;
 *	-EPERM: part of the range is sealed; RLIMIT_MEMLOCK is 0;
 *	-EBUSY: a page is pinned, for DMA or the like;
 *	-EFAULT: a page can't be read back from swap, or has to be copied and has
 *		a hardware error;
 *	-EINTR: killed, or a signal came while the key was under construction.
 *
 * Every VMA, page and argument is looked at before anything is changed.  Only
 * where memory runs out, or a page is pinned in the middle of the operation,
 * is @prot left changed.  Keys never are.
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
