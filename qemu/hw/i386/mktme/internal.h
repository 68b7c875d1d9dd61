/*
 * Intel Multi-Key Total Memory Encryption (MKTME, also TME-MK)
 *
 * Architecture: "Intel Architecture Memory Encryption Technologies
 * Specification" (336907), and PCONFIG in volume 2 of the SDM.
 *
 * How it works here: DRAM holds ciphertext, caches hold plaintext. Host
 * memory of a guest page stands for the caches and holds the plaintext of the
 * page as it is seen through one KeyID, the page's view. An access through
 * that KeyID needs nothing: TLB entries are made only for pages that are in
 * view, so vCPUs read, write and execute encrypted memory at full speed. An
 * access through another KeyID re-encrypts the page with the key of the old
 * view and decrypts it with the key of the new one, and drops the TLB entries
 * of the old view on all CPUs.
 *
 * Views are switched with all vCPUs stopped. Devices do not wait for that: what
 * they access through another KeyID is converted line by line on the way. Where
 * they write and dirty lines are followed, the page comes into that view at the
 * next stop, for which they ask.
 *
 * When a key is replaced, the pages in its view are written back to "DRAM"
 * before: host memory then holds ciphertext (MKTME_VIEW_DRAM) until the next
 * access, and neither plaintext nor key stay behind in this process.
 *
 * Locks, in the order in which they are taken:
 *
 *   1. the big lock (BQL). The functions here do not need it, and are called
 *      with it and without. Only the machine's setup, reset, hotplug and the
 *      monitor have it for sure.
 *   2. the stop of all vCPUs (start_exclusive()), where a contract asks for it.
 *   3. X86MktmeState.lock. It serializes conversions and switches. Whoever
 *      holds it may not wait for a vCPU.
 *   4. the locks of translation blocks, in mktme_invalidate(), and those of
 *      TLBs, in mktme_watch_stores() and tlb_flush_matching().
 *
 * A range that mktme_find() returns is there as long as the lock or the RCU
 * read-side critical section in which it was found. A page's view changes only
 * with the vCPUs stopped and with the lock: one of them keeps it as it is. The
 * bits of dirty lines are set and cleared by atomic operations, by running
 * vCPUs without any lock.
 *
 * The files build upon one another in this order: keys.c, msrs.c, ranges.c,
 * lines.c, views.c, dma.c, pconfig.c, object.c, monitor.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_MKTME_INTERNAL_H
#define HW_I386_MKTME_INTERNAL_H

#include "crypto/cipher.h"
#include "exec/cpu-defs.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "hw/i386/mktme.h"
#include "qapi/qapi-types-mktme.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "system/memory.h"

/* Size of a cache line, which is the unit of encryption (one XTS data unit) */
#define MKTME_LINE_SIZE             64
#define MKTME_PAGE_SIZE             TARGET_PAGE_SIZE
#define MKTME_LINES                 (MKTME_PAGE_SIZE / MKTME_LINE_SIZE)

QEMU_BUILD_BUG_ON(MKTME_LINES != 64);   /* lines of a page fit an uint64_t */

/* Algorithms, as in KEYID_CTRL.ENC_ALG and in IA32_TME_ACTIVATE[63:48] */
#define MKTME_ALG_AES_XTS_128       (1 << 0)
#define MKTME_ALG_AES_XTS_256       (1 << 2)

/* IA32_TME_ACTIVATE */
#define TME_ACT_LOCK                (1ULL << 0)
#define TME_ACT_ENABLE              (1ULL << 1)
#define TME_ACT_KEY_SELECT          (1ULL << 2)
#define TME_ACT_SAVE_KEY            (1ULL << 3)
#define TME_ACT_POLICY_SHIFT        4
#define TME_ACT_POLICY_MASK         (0xfULL << TME_ACT_POLICY_SHIFT)
#define TME_ACT_BYPASS              (1ULL << 31)
#define TME_ACT_KEYID_BITS_SHIFT    32
#define TME_ACT_KEYID_BITS_MASK     (0xfULL << TME_ACT_KEYID_BITS_SHIFT)
#define TME_ACT_TDX_BITS_SHIFT      36
#define TME_ACT_TDX_BITS_MASK       (0xfULL << TME_ACT_TDX_BITS_SHIFT)
#define TME_ACT_ALGS_SHIFT          48

/* IA32_TME_EXCLUDE_MASK */
#define TME_EXCLUDE_ENABLE          (1ULL << 11)

/* A "view" in which host memory holds what DRAM holds */
#define MKTME_VIEW_DRAM             UINT16_MAX

typedef struct MktmeSlot {
    MktmeKeyState state;
    QCryptoCipher *cipher;      /* if state is one of the algorithms */
    uint64_t pages;             /* how many pages are in view of this KeyID */
} MktmeSlot;

typedef struct MktmePackage {
    uint64_t activate;
    uint64_t exclude_mask;
    uint64_t exclude_base;
    unsigned keyid_bits;        /* 0 unless activated */
    unsigned keyid_shift;
    QCryptoCipher *tme;         /* the platform key, once activated */
    MktmeSlot *slots;           /* indexed by KeyID; 0 is never programmed */
    MktmeStatus inject_status;
    uint32_t inject_count;
} MktmePackage;

/* Part of a package's DRAM that is contiguous in every respect */
typedef struct MktmeRange {
    struct rcu_head rcu;        /* call_rcu() wants it to be first */
    hwaddr base;
    uint64_t size;
    unsigned package;
    ram_addr_t ram_addr;
    uint8_t *host;
    uint16_t *view;             /* by page */
    uint64_t *dirty;            /* by page, a bit per line; or NULL */
    uint16_t *stores;           /* by page, to lines that were dirty already */
    QLIST_ENTRY(MktmeRange) next;
} MktmeRange;

/* What DRAM that was taken out holds, until it is put in again or gone */
typedef struct MktmeUnplugged {
    uint8_t *host;
    uint64_t size;
    uint16_t *view;             /* by page: 0, or MKTME_VIEW_DRAM */
    QLIST_ENTRY(MktmeUnplugged) next;
} MktmeUnplugged;

/* A dirty line whose page has gone to another view (cache=strict) */
typedef struct MktmeStaleLine {
    hwaddr addr;
    uint16_t keyid;
    uint8_t data[MKTME_LINE_SIZE];
} MktmeStaleLine;

/* Lines that a device wrote through a KeyID in whose view their page is not */
typedef struct MktmeDeviceWrite {
    hwaddr page;
    uint64_t lines;
    uint16_t keyid;
} MktmeDeviceWrite;

/* A violation of which the monitor has not been told yet */
typedef struct MktmeEvent {
    bool pending;
    bool has_rip;
    MktmeViolation what;
    hwaddr addr;
    uint64_t lines;
    uint16_t dirty_keyid;
    uint16_t keyid;
    uint64_t rip;
} MktmeEvent;

struct X86MktmeState {
    Object parent_obj;

    /* properties */
    uint8_t max_keyid_bits;
    uint16_t max_keys;          /* 0: as many as fit */
    uint8_t tdx_keyid_bits;
    bool aes_xts_128;
    bool aes_xts_256;
    bool tme_bypass;
    bool activated;             /* by firmware */
    MktmeCacheMode cache;
    bool cache_exact;

    MachineState *machine;      /* NULL until in use */
    unsigned phys_bits;
    unsigned nr_packages;
    MktmePackage *packages;
    /* Changed under @lock, when DIMMs come and go; vCPUs and devices use RCU */
    QLIST_HEAD(, MktmeRange) ranges;
    QLIST_HEAD(, MktmeUnplugged) unplugged; /* the BQL protects it */
    RAMBlockNotifier ram_notifier;
    Error *migration_blocker;

    /*
     * Protects views (which change only when all vCPUs are stopped, and then
     * under this lock), ciphers, and all that follows.
     */
    QemuMutex lock;
    GPtrArray *stale;           /* of MktmeStaleLine */
    GArray *device_writes;      /* of MktmeDeviceWrite, till all vCPUs stop */
    hwaddr told;                /* end of a device's read that was told of */
    QEMUTimer *late_write;
    bool late_write_due;        /* the timer runs, or is about to be started */
    MktmeEvent event;
    QEMUBH *event_bh;

    /* what devices see */
    MemoryRegion dma_root;
    IOMMUMemoryRegion dma_iommu;
    MemoryRegion dma_slow;
    AddressSpace dram_as;
    AddressSpace slow_as;

    /* counters, written with all vCPUs stopped or under @lock */
    uint64_t nr_switches;
    uint64_t nr_violations;
    uint64_t nr_reuse_violations;
    uint64_t nr_late_writes;
    uint64_t nr_pconfig;
};

static inline size_t mktme_page(MktmeRange *r, hwaddr addr)
{
    return (addr - r->base) / MKTME_PAGE_SIZE;
}

static inline uint64_t mktme_line_bit(hwaddr addr)
{
    return 1ULL << (addr % MKTME_PAGE_SIZE / MKTME_LINE_SIZE);
}

static inline uint8_t *mktme_host(MktmeRange *r, hwaddr addr)
{
    return r->host + (addr - r->base);
}

/*
 * keys.c: keys and ciphers
 */

/* Overwrite key material, in a way that the compiler does not leave out */
void mktme_wipe(void *p, size_t len);

/* MKTME_ALG_*, those that the properties allow for */
unsigned mktme_algorithms(X86MktmeState *s);

/* A cipher with the two keys, which are wiped */
QCryptoCipher *mktme_new_cipher(unsigned alg, uint8_t *data_key,
                                uint8_t *tweak_key);

/* A cipher with keys that nobody knows */
QCryptoCipher *mktme_random_cipher(unsigned alg);

/* Free *@cipher, if there is one, with its keys; it is NULL then */
void mktme_free_cipher(QCryptoCipher **cipher);

/*
 * The cipher that applies to a line seen through @view, NULL for plaintext.
 * Call with the lock, or with all vCPUs stopped.
 */
QCryptoCipher *mktme_cipher(X86MktmeState *s, MktmePackage *pkg, hwaddr addr,
                            uint16_t view);

/*
 * Convert what @buf holds of @addr from one view to another: whole lines.
 * Call with the lock.
 */
void mktme_convert(X86MktmeState *s, MktmeRange *r, hwaddr addr, uint8_t *buf,
                   size_t len, uint16_t from, uint16_t to);

/*
 * msrs.c: MSRs, and KeyIDs in addresses; also X86MktmeOps, where the contracts
 * of the functions without one here are
 */

/* Write IA32_TME_ACTIVATE with a value that was checked. Call with the lock. */
void mktme_activate(X86MktmeState *s, MktmePackage *pkg, uint64_t val);

/* How many KeyIDs can be programmed; those of TDX follow them */
unsigned mktme_nr_keys(X86MktmeState *s, MktmePackage *pkg);

bool mktme_usable(X86MktmeState *s, unsigned package);
uint64_t mktme_rdmsr(X86MktmeState *s, unsigned package, uint32_t msr);
bool mktme_wrmsr(X86MktmeState *s, unsigned package, uint32_t msr,
                 uint64_t val);
unsigned mktme_split(X86MktmeState *s, unsigned package, hwaddr *addr);
hwaddr mktme_join(X86MktmeState *s, unsigned package, hwaddr addr,
                  unsigned keyid);
uint64_t mktme_reserved(X86MktmeState *s, unsigned package);

/*
 * ranges.c: the ranges of DRAM, and access to a line of it
 */

/*
 * The range with @addr, or NULL if that is no DRAM. Call with the lock, or in
 * an RCU read-side critical section.
 */
MktmeRange *mktme_find(X86MktmeState *s, hwaddr addr);

/* @n pages more are in view of @view. Call with the lock. */
void mktme_count_view(X86MktmeState *s, MktmeRange *r, uint16_t view,
                      int64_t n);

/* Code may have been translated from memory that changes now */
void mktme_invalidate(MktmeRange *r, hwaddr addr, size_t len);

/*
 * Access part of a line through a KeyID, whatever view the page is in, or with
 * MKTME_VIEW_DRAM as DRAM holds it. Call with the lock.
 */
void mktme_access_line(X86MktmeState *s, MktmeRange *r, hwaddr addr,
                       uint16_t keyid, uint8_t *buf, size_t len, bool write);

/* Learn of memory that is gone. Call once, with the BQL. */
void mktme_ranges_init(X86MktmeState *s);

/*
 * See X86MktmeStateClass. Call with the BQL. What is taken out has been written
 * back, so that it holds ciphertext if it is put in again, here or elsewhere.
 */
void mktme_add_ram(X86MktmeState *s, hwaddr base, uint64_t size,
                   MemoryRegion *mr, hwaddr offset, unsigned node);
void mktme_del_ram(X86MktmeState *s, hwaddr base);

/* Free a range that nobody can find any more */
void mktme_range_free(MktmeRange *r);

/*
 * lines.c: which cache lines are dirty; also X86MktmeOps
 */

/*
 * Lines of a page have been written back, or are no longer in a cache.
 * Returns: the lines that were dirty before.
 */
uint64_t mktme_clean(MktmeRange *r, size_t page, uint64_t lines);

/*
 * A rule for caches was broken: count it, trace it, and have the monitor told.
 * Call with the lock.
 */
void mktme_report(X86MktmeState *s, MktmeViolation what, hwaddr addr,
                  uint64_t lines, uint16_t dirty_keyid, uint16_t keyid,
                  bool has_rip, uint64_t rip);

/* The bottom half that tells the monitor */
void mktme_event_bh(void *opaque);

/*
 * Lines that were dirty when they should not have been: put them aside, as
 * a cache has them until it writes them back at a time of its own choice.
 * Call with the lock, @r's page still in view of the KeyID.
 */
void mktme_put_aside(X86MktmeState *s, MktmeRange *r, hwaddr page,
                     uint64_t lines);

/*
 * The page has come into view of @keyid: lines put aside are hit by accesses.
 * Call with the lock and all vCPUs stopped.
 */
void mktme_take_back(X86MktmeState *s, MktmeRange *r, hwaddr page,
                     uint16_t keyid);

/* The timer that writes back lines that were put aside */
void mktme_late_write_timer(void *opaque);

/* Make stores to the page visible again. Call with the lock. */
void mktme_watch_stores(MktmeRange *r, hwaddr page);

bool mktme_tracks_lines(X86MktmeState *s);
bool mktme_store(X86MktmeState *s, hwaddr addr, unsigned size);
void mktme_clean_line(X86MktmeState *s, hwaddr addr, unsigned keyid);
void mktme_clean_all(X86MktmeState *s);

/*
 * views.c: under which KeyID a page is seen; also X86MktmeOps
 */

/*
 * Switch the view of a page, for the guest's instruction at @rip if there is
 * one. Call with all vCPUs stopped and the lock.
 */
void mktme_switch(X86MktmeState *s, MktmeRange *r, hwaddr page, uint16_t keyid,
                  bool has_rip, uint64_t rip);

/*
 * Write all pages that are in view of @keyid back to DRAM.
 * Call with all vCPUs stopped and the lock.
 */
void mktme_write_back(X86MktmeState *s, unsigned package, uint16_t keyid,
                      uint64_t rip);

bool mktme_in_view(X86MktmeState *s, hwaddr addr, unsigned keyid);
void mktme_set_view(X86MktmeState *s, hwaddr addr, unsigned keyid,
                    uint64_t rip);

/*
 * dma.c: what devices see, and the lines that they write
 */

/*
 * Bring pages that devices have written to into the view of the KeyID under
 * which their lines are dirty: only the next use through another one shows that
 * they are. Call with all vCPUs stopped, and none in the middle of an access to
 * memory, and with the lock.
 */
void mktme_adopt_device_writes(X86MktmeState *s);

/* Put the views of memory into &address_space_memory. Call once. */
void mktme_dma_init(X86MktmeState *s);

/* See X86MktmeOps */
MemoryRegion *mktme_views(X86MktmeState *s);

/*
 * pconfig.c: PCONFIG
 */

/* See X86MktmeOps */
bool mktme_key_program(X86MktmeState *s, unsigned package,
                       const MktmeKeyProgram *prog, uint64_t rip,
                       MktmeStatus *status);

/*
 * Let the next @count PCONFIGs that would otherwise succeed fail: of those that
 * can fail with @status.
 * Returns false and sets @errp if there is no such package.
 */
bool mktme_inject(X86MktmeState *s, unsigned package, MktmeStatus status,
                  uint32_t count, Error **errp);

#endif
