/*
 * Multi-Key Total Memory Encryption: MSRs, and KeyIDs in addresses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/cputlb.h"
#include "hw/core/cpu.h"
#include "cpu.h"
#include "internal.h"

/* MSR numbers are in target/i386/cpu.h */

/* IA32_TME_CAPABILITY; the algorithms take the bits of MKTME_ALG_* */
#define TME_CAP_BYPASS              (1ULL << 31)
#define TME_CAP_MAX_KEYID_BITS_SHIFT 32
#define TME_CAP_MAX_KEYS_SHIFT      36

/* IA32_TME_ACTIVATE */
#define TME_ACT_KNOWN               (TME_ACT_LOCK | TME_ACT_ENABLE | \
                                     TME_ACT_KEY_SELECT | TME_ACT_SAVE_KEY | \
                                     TME_ACT_POLICY_MASK | TME_ACT_BYPASS | \
                                     TME_ACT_KEYID_BITS_MASK | \
                                     TME_ACT_TDX_BITS_MASK | \
                                     (0xffffULL << TME_ACT_ALGS_SHIFT))

bool mktme_usable(X86MktmeState *s, unsigned package)
{
    uint64_t activate = s->packages[package].activate;

    return (activate & TME_ACT_LOCK) && (activate & TME_ACT_ENABLE) &&
           (activate & TME_ACT_KEYID_BITS_MASK);
}

static unsigned mktme_tdx_bits(MktmePackage *pkg)
{
    return (pkg->activate & TME_ACT_TDX_BITS_MASK) >> TME_ACT_TDX_BITS_SHIFT;
}

unsigned mktme_nr_keys(X86MktmeState *s, MktmePackage *pkg)
{
    return MIN(s->max_keys,
               (1u << (pkg->keyid_bits - mktme_tdx_bits(pkg))) - 1);
}

static uint64_t mktme_capability(X86MktmeState *s)
{
    return mktme_algorithms(s) | (s->tme_bypass ? TME_CAP_BYPASS : 0) |
           ((uint64_t)s->max_keyid_bits << TME_CAP_MAX_KEYID_BITS_SHIFT) |
           ((uint64_t)s->max_keys << TME_CAP_MAX_KEYS_SHIFT);
}

void mktme_activate(X86MktmeState *s, MktmePackage *pkg, uint64_t val)
{
    unsigned policy = (val & TME_ACT_POLICY_MASK) >> TME_ACT_POLICY_SHIFT;

    pkg->activate = val | TME_ACT_LOCK;
    if (!(val & TME_ACT_ENABLE)) {
        return;
    }
    pkg->keyid_bits = (val & TME_ACT_KEYID_BITS_MASK) >>
                      TME_ACT_KEYID_BITS_SHIFT;
    pkg->keyid_shift = s->phys_bits - pkg->keyid_bits;
    if (!(val & TME_ACT_BYPASS)) {
        /*
         * Contents of memory stay what they are: as if the firmware had
         * activated encryption before it first used any memory.
         */
        pkg->tme = mktme_random_cipher(1 << policy);
    }
}

/* Without TDX 0, which is what a register that does not exist reads as */
static uint64_t mktme_partitioning(X86MktmeState *s, MktmePackage *pkg)
{
    uint64_t keys = mktme_nr_keys(s, pkg);

    if (!mktme_tdx_bits(pkg)) {
        return 0;
    }
    return keys | (MIN(s->max_keys, (1u << pkg->keyid_bits) - 1) - keys) << 32;
}

uint64_t mktme_rdmsr(X86MktmeState *s, unsigned package, uint32_t msr)
{
    MktmePackage *pkg = &s->packages[package];

    switch (msr) {
    case MSR_IA32_MKTME_KEYID_PARTITIONING:
        return mktme_partitioning(s, pkg);
    case MSR_IA32_TME_CAPABILITY:
        return mktme_capability(s);
    case MSR_IA32_TME_ACTIVATE:
        return pkg->activate;
    case MSR_IA32_TME_EXCLUDE_MASK:
        return pkg->exclude_mask;
    case MSR_IA32_TME_EXCLUDE_BASE:
        return pkg->exclude_base;
    default:
        g_assert_not_reached();
    }
}

bool mktme_wrmsr(X86MktmeState *s, unsigned package, uint32_t msr, uint64_t val)
{
    MktmePackage *pkg = &s->packages[package];
    uint64_t addr_mask = MAKE_64BIT_MASK(0, s->phys_bits) & TARGET_PAGE_MASK;
    unsigned policy = (val & TME_ACT_POLICY_MASK) >> TME_ACT_POLICY_SHIFT;
    unsigned bits = (val & TME_ACT_KEYID_BITS_MASK) >> TME_ACT_KEYID_BITS_SHIFT;
    unsigned tdx = (val & TME_ACT_TDX_BITS_MASK) >> TME_ACT_TDX_BITS_SHIFT;

    if (msr == MSR_IA32_MKTME_KEYID_PARTITIONING ||
        msr == MSR_IA32_TME_CAPABILITY || (pkg->activate & TME_ACT_LOCK)) {
        return false;
    }
    switch (msr) {
    case MSR_IA32_TME_ACTIVATE:
        if ((val & ~TME_ACT_KNOWN) ||
            /* Who leaves it disabled need not ask for an algorithm */
            (((val & TME_ACT_ENABLE) || policy) &&
             !((1 << policy) & mktme_algorithms(s))) ||
            ((val >> TME_ACT_ALGS_SHIFT) & ~mktme_algorithms(s)) ||
            bits > s->max_keyid_bits ||
            tdx > s->tdx_keyid_bits || (tdx && tdx >= bits) ||
            ((val & TME_ACT_BYPASS) && !s->tme_bypass) ||
            (!(val & TME_ACT_ENABLE) && (val & TME_ACT_KEYID_BITS_MASK))) {
            return false;
        }
        if ((val & TME_ACT_KEY_SELECT) && (val & TME_ACT_ENABLE)) {
            /*
             * There is no saved key to restore. That is no fault: it shows
             * in the MSR, which stays as it was.
             */
            return true;
        }
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            mktme_activate(s, pkg, val);
        }
        /* Address bits have changed their meaning */
        tlb_flush_all_cpus_synced(current_cpu);
        return true;
    case MSR_IA32_TME_EXCLUDE_MASK:
        if (val & ~(addr_mask | TME_EXCLUDE_ENABLE)) {
            return false;
        }
        pkg->exclude_mask = val;
        return true;
    case MSR_IA32_TME_EXCLUDE_BASE:
        if (val & ~addr_mask) {
            return false;
        }
        pkg->exclude_base = val;
        return true;
    default:
        g_assert_not_reached();
    }
}

unsigned mktme_split(X86MktmeState *s, unsigned package, hwaddr *addr)
{
    MktmePackage *pkg = &s->packages[package];
    unsigned keyid;

    if (!pkg->keyid_bits) {
        return 0;
    }
    keyid = extract64(*addr, pkg->keyid_shift, pkg->keyid_bits);
    *addr = deposit64(*addr, pkg->keyid_shift, pkg->keyid_bits, 0);
    return keyid;
}

uint64_t mktme_reserved(X86MktmeState *s, unsigned package)
{
    unsigned bits = mktme_tdx_bits(&s->packages[package]);

    return MAKE_64BIT_MASK(0, s->phys_bits) &
           ~MAKE_64BIT_MASK(0, s->phys_bits - bits);
}

hwaddr mktme_join(X86MktmeState *s, unsigned package, hwaddr addr,
                  unsigned keyid)
{
    MktmePackage *pkg = &s->packages[package];

    if (!pkg->keyid_bits) {
        return addr;
    }
    return deposit64(addr, pkg->keyid_shift, pkg->keyid_bits, keyid);
}
