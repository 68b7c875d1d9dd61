/*
 * Intel Multi-Key Total Memory Encryption (MKTME, also TME-MK): what the CPUs
 * ask of the board
 *
 * The key tables, and the memory that is encrypted with them, are the board's.
 * A board that has them sets X86CPU's @mktme and @mktme_ops before the CPU is
 * realized; both are NULL otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_MKTME_H
#define I386_MKTME_H

#include "exec/hwaddr.h"

typedef struct X86MktmeState X86MktmeState;
typedef struct X86MktmeOps X86MktmeOps;

/* PCONFIG leaf 0, MKTME_KEY_PROGRAM */
#define PCONFIG_MKTME_KEY_PROGRAM 0

/* MKTME_KEY_PROGRAM_STRUCT; little endian, as the guest wrote it */
typedef struct QEMU_PACKED MktmeKeyProgram {
    uint16_t keyid;
    uint32_t keyid_ctrl;
    uint8_t ignored[58];
    uint8_t key_field_1[64];
    uint8_t key_field_2[64];
} MktmeKeyProgram;

QEMU_BUILD_BUG_ON(sizeof(MktmeKeyProgram) != 192);

#define MKTME_KEY_PROGRAM_ALIGN    256

#define MKTME_CTRL_COMMAND(ctrl)   ((ctrl) & 0xff)
#define MKTME_CTRL_ENC_ALG(ctrl)   (((ctrl) >> 8) & 0xffff)
#define MKTME_CTRL_RESERVED        0xff000000u

enum {
    MKTME_SET_KEY_DIRECT = 0,
    MKTME_SET_KEY_RANDOM = 1,
    MKTME_CLEAR_KEY      = 2,
    MKTME_NO_ENCRYPT     = 3,
};

/* What PCONFIG leaves in RAX */
typedef enum MktmeStatus {
    MKTME_PROG_SUCCESS  = 0,
    MKTME_ENTROPY_ERROR = 2,
    MKTME_DEVICE_BUSY   = 5,
} MktmeStatus;

/*
 * Addresses have no KeyID in them where a KeyID is passed beside. @package is
 * that of the CPU that calls: its socket ID.
 */
struct X86MktmeOps {
    /* How many address bits the KeyID may take */
    unsigned (*keyid_bits)(X86MktmeState *s);

    /* Memory with KeyIDs in its addresses, for accesses that bypass the TLB */
    MemoryRegion *(*views)(X86MktmeState *s);

    /*
     * Take the KeyID out of a physical address.
     * Returns: the KeyID, 0 if MKTME is not activated.
     */
    unsigned (*split)(X86MktmeState *s, unsigned package, hwaddr *addr);

    /* Put a KeyID into a physical address */
    hwaddr (*join)(X86MktmeState *s, unsigned package, hwaddr addr,
                   unsigned keyid);

    /*
     * Address bits that page tables may not have set: those KeyID bits that
     * are TDX's.
     */
    uint64_t (*reserved)(X86MktmeState *s, unsigned package);

    /*
     * Is a page seen through a KeyID now? True for all that is not DRAM, where
     * KeyIDs make no difference. The view of a page does not change while the
     * calling CPU is running.
     */
    bool (*in_view)(X86MktmeState *s, hwaddr addr, unsigned keyid);

    /*
     * Let a page be seen through a KeyID, for the guest's instruction at @rip.
     * TLB entries and translation blocks of the page are dropped.
     * Call with all CPUs stopped (start_exclusive()).
     */
    void (*set_view)(X86MktmeState *s, hwaddr addr, unsigned keyid,
                     uint64_t rip);

    /*
     * May PCONFIG be used? That is whether IA32_TME_ACTIVATE is locked,
     * enabled and has KeyID bits.
     */
    bool (*usable)(X86MktmeState *s, unsigned package);

    /*
     * Carry out PCONFIG leaf MKTME_KEY_PROGRAM for the guest's instruction at
     * @rip.
     * Call with all CPUs stopped (start_exclusive()).
     * Returns: false if that is a #GP.
     */
    bool (*key_program)(X86MktmeState *s, unsigned package,
                        const MktmeKeyProgram *prog, uint64_t rip,
                        MktmeStatus *status);

    /* Read one of the IA32_TME MSRs */
    uint64_t (*rdmsr)(X86MktmeState *s, unsigned package, uint32_t msr);

    /*
     * Write one of the IA32_TME MSRs.
     * Call with all CPUs stopped (start_exclusive()).
     * Returns: false if that is a #GP.
     */
    bool (*wrmsr)(X86MktmeState *s, unsigned package, uint32_t msr,
                  uint64_t val);

    /*
     * Does the board follow which lines are dirty? Only then the functions
     * below may be called.
     */
    bool (*tracks_lines)(X86MktmeState *s);

    /*
     * A CPU stores @size bytes to a page that is in the right view; they do
     * not cross the page. With 0 bytes this only asks.
     * Returns: whether all lines of the page may be dirty now.
     */
    bool (*store)(X86MktmeState *s, hwaddr addr, unsigned size);

    /* Write back the line at @addr that is cached under @keyid */
    void (*clean_line)(X86MktmeState *s, hwaddr addr, unsigned keyid);

    /* Write back all lines (WBINVD). Call with all CPUs stopped. */
    void (*clean_all)(X86MktmeState *s);
};

#endif
