/*
 * Intel Multi-Key Total Memory Encryption (MKTME, also TME-MK)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_MKTME_H
#define HW_I386_MKTME_H

#include "exec/hwaddr.h"
#include "exec/memattrs.h"
#include "qom/object.h"
#include "qapi/qapi-types-misc-i386.h"

#define TYPE_X86_MKTME "x86-mktme"
OBJECT_DECLARE_SIMPLE_TYPE(X86MktmeState, X86_MKTME)

/* Size of a cache line, which is the unit of encryption (one XTS data unit) */
#define MKTME_LINE_SIZE 64

/* PCONFIG leaf 0, MKTME_KEY_PROGRAM */
#define PCONFIG_MKTME_KEY_PROGRAM 0

/* MKTME_KEY_PROGRAM_STRUCT; little endian, as the guest wrote it */
typedef struct QEMU_PACKED MktmeKeyProgram {
    uint16_t keyid;
    uint32_t keyid_ctrl;
    uint8_t reserved[58];
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
    MKTME_PROG_SUCCESS     = 0,
    MKTME_INVALID_PROG_CMD = 1,
    MKTME_ENTROPY_ERROR    = 2,
    MKTME_INVALID_KEYID    = 3,
    MKTME_INVALID_ENC_ALG  = 4,
    MKTME_DEVICE_BUSY      = 5,
} MktmeStatus;

/* Algorithms, as in KEYID_CTRL.ENC_ALG and in IA32_TME_ACTIVATE[63:48] */
#define MKTME_ALG_AES_XTS_128      (1 << 0)
#define MKTME_ALG_AES_XTS_256      (1 << 2)

/*
 * Interface to the board
 */

/**
 * x86_mktme_machine_init: make @s the memory encryption of a machine
 * @s: the object
 * @machine: the machine; its NUMA topology and sockets are known
 * @phys_bits: MAXPHYADDR of the CPUs, KeyID bits included
 * @errp: set on failure
 *
 * From here on &address_space_memory, and with it all devices, see memory
 * through the KeyIDs. Returns false and sets @errp on failure.
 */
bool x86_mktme_machine_init(X86MktmeState *s, MachineState *machine,
                            unsigned phys_bits, Error **errp);

/**
 * x86_mktme_views: memory as devices see it, with KeyIDs in addresses
 * @s: the object
 */
MemoryRegion *x86_mktme_views(X86MktmeState *s);

/**
 * x86_mktme_keyid_bits: number of address bits that the KeyID may take
 * @s: the object
 */
unsigned x86_mktme_keyid_bits(X86MktmeState *s);

/**
 * x86_mktme_add_ram: a range of guest physical addresses is DRAM
 * @s: the object
 * @base: guest physical address
 * @size: length in bytes
 * @mr: RAM region
 * @offset: offset of the range in @mr
 * @node: NUMA node, which says to which package the memory is attached
 */
void x86_mktme_add_ram(X86MktmeState *s, hwaddr base, uint64_t size,
                       MemoryRegion *mr, hwaddr offset, unsigned node);

/**
 * x86_mktme_del_ram: undo x86_mktme_add_ram()
 * @s: the object
 * @base: guest physical address with which the range was added
 */
void x86_mktme_del_ram(X86MktmeState *s, hwaddr base);

/*
 * Interface to the CPUs. Addresses have no KeyID in them where a KeyID is
 * passed beside.
 */

/**
 * x86_mktme_split: take the KeyID out of a physical address
 * @s: the object
 * @package: package of the CPU that uses the address
 * @addr: the address, on return without KeyID
 *
 * Returns: the KeyID, 0 if MKTME is not activated.
 */
unsigned x86_mktme_split(X86MktmeState *s, unsigned package, hwaddr *addr);

/**
 * x86_mktme_join: put a KeyID into a physical address
 * @s: the object
 * @package: package of the CPU that uses the address
 * @addr: the address
 * @keyid: the KeyID
 */
hwaddr x86_mktme_join(X86MktmeState *s, unsigned package, hwaddr addr,
                      unsigned keyid);

/**
 * x86_mktme_reserved: address bits that page tables may not have set
 * @s: the object
 * @package: package of the CPU that walks them
 *
 * Returns: the mask of those KeyID bits that are TDX's.
 */
uint64_t x86_mktme_reserved(X86MktmeState *s, unsigned package);

/**
 * x86_mktme_in_view: is a page seen through a KeyID now?
 * @s: the object
 * @addr: address in the page
 * @keyid: the KeyID
 *
 * True for all that is not DRAM, where KeyIDs make no difference.
 * The view of a page does not change while the calling CPU is running.
 */
bool x86_mktme_in_view(X86MktmeState *s, hwaddr addr, unsigned keyid);

/**
 * x86_mktme_set_view: let a page be seen through a KeyID
 * @s: the object
 * @addr: address in the page
 * @keyid: the KeyID
 * @rip: guest instruction that causes it
 *
 * Call with all CPUs stopped (start_exclusive()). TLB entries and translation
 * blocks of the page are dropped.
 */
void x86_mktme_set_view(X86MktmeState *s, hwaddr addr, unsigned keyid,
                        uint64_t rip);

/**
 * x86_mktme_usable: may PCONFIG be used on @package?
 * @s: the object
 * @package: package of the CPU
 *
 * Returns: whether IA32_TME_ACTIVATE is locked, enabled and has KeyID bits.
 */
bool x86_mktme_usable(X86MktmeState *s, unsigned package);

/**
 * x86_mktme_key_program: carry out PCONFIG leaf MKTME_KEY_PROGRAM
 * @s: the object
 * @package: package of the CPU
 * @prog: the structure, without reserved bits set
 * @rip: guest instruction that causes it
 *
 * Call with all CPUs stopped (start_exclusive()).
 */
MktmeStatus x86_mktme_key_program(X86MktmeState *s, unsigned package,
                                  const MktmeKeyProgram *prog, uint64_t rip);

/**
 * x86_mktme_rdmsr: read one of the IA32_TME MSRs
 * @s: the object
 * @package: package of the CPU
 * @msr: number of the MSR
 */
uint64_t x86_mktme_rdmsr(X86MktmeState *s, unsigned package, uint32_t msr);

/**
 * x86_mktme_wrmsr: write one of the IA32_TME MSRs
 * @s: the object
 * @package: package of the CPU
 * @msr: number of the MSR
 * @val: value
 *
 * Call with all CPUs stopped (start_exclusive()).
 * Returns: false if that is a #GP.
 */
bool x86_mktme_wrmsr(X86MktmeState *s, unsigned package, uint32_t msr,
                     uint64_t val);

/**
 * x86_mktme_tracks_lines: does the object follow which lines are dirty?
 * @s: the object
 */
bool x86_mktme_tracks_lines(X86MktmeState *s);

/**
 * x86_mktme_store: a CPU stores to a page that is in the right view
 * @s: the object
 * @addr: physical address
 * @size: number of bytes, which do not cross a page; 0 only to ask
 *
 * Returns: whether all lines of the page may be dirty now.
 */
bool x86_mktme_store(X86MktmeState *s, hwaddr addr, unsigned size);

/**
 * x86_mktme_clean_line: write back the line at @addr cached under @keyid
 * @s: the object
 * @addr: physical address
 * @keyid: the KeyID
 */
void x86_mktme_clean_line(X86MktmeState *s, hwaddr addr, unsigned keyid);

/**
 * x86_mktme_clean_all: write back all lines (WBINVD)
 * @s: the object
 */
void x86_mktme_clean_all(X86MktmeState *s);

/*
 * Interface to the monitor
 */

/**
 * x86_mktme_dram_rw: access memory as the DIMM holds it
 * @s: the object
 * @addr: guest physical address without KeyID
 * @buf: data
 * @len: number of bytes
 * @write: write to DRAM rather than read from it
 * @errp: set if the range is not all DRAM
 */
bool x86_mktme_dram_rw(X86MktmeState *s, hwaddr addr, uint8_t *buf,
                       size_t len, bool write, Error **errp);

/**
 * x86_mktme_inject: make PCONFIG fail
 * @s: the object
 * @package: package
 * @status: failure
 * @count: how many PCONFIGs that would otherwise succeed fail
 * @errp: set if there is no such package
 */
bool x86_mktme_inject(X86MktmeState *s, unsigned package, MktmeStatus status,
                      uint32_t count, Error **errp);

/**
 * x86_mktme_query: state without secrets
 * @s: the object
 */
MktmeInfo *x86_mktme_query(X86MktmeState *s);

#endif
