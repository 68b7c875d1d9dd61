/*
 * Multi-Key Total Memory Encryption, left out of this binary
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/i386/mktme.h"

/* No machine can have a pointer to an x86-mktme object */

bool x86_mktme_machine_init(X86MktmeState *s, MachineState *machine,
                            unsigned phys_bits, Error **errp)
{
    g_assert_not_reached();
}

MemoryRegion *x86_mktme_views(X86MktmeState *s)
{
    g_assert_not_reached();
}

unsigned x86_mktme_keyid_bits(X86MktmeState *s)
{
    g_assert_not_reached();
}

void x86_mktme_add_ram(X86MktmeState *s, hwaddr base, uint64_t size,
                       MemoryRegion *mr, hwaddr offset, unsigned node)
{
    g_assert_not_reached();
}

void x86_mktme_del_ram(X86MktmeState *s, hwaddr base)
{
    g_assert_not_reached();
}

unsigned x86_mktme_split(X86MktmeState *s, unsigned package, hwaddr *addr)
{
    g_assert_not_reached();
}

uint64_t x86_mktme_reserved(X86MktmeState *s, unsigned package)
{
    g_assert_not_reached();
}

hwaddr x86_mktme_join(X86MktmeState *s, unsigned package, hwaddr addr,
                      unsigned keyid)
{
    g_assert_not_reached();
}

bool x86_mktme_in_view(X86MktmeState *s, hwaddr addr, unsigned keyid)
{
    g_assert_not_reached();
}

void x86_mktme_set_view(X86MktmeState *s, hwaddr addr, unsigned keyid,
                        uint64_t rip)
{
    g_assert_not_reached();
}

bool x86_mktme_usable(X86MktmeState *s, unsigned package)
{
    g_assert_not_reached();
}

MktmeStatus x86_mktme_key_program(X86MktmeState *s, unsigned package,
                                  const MktmeKeyProgram *prog, uint64_t rip)
{
    g_assert_not_reached();
}

uint64_t x86_mktme_rdmsr(X86MktmeState *s, unsigned package, uint32_t msr)
{
    g_assert_not_reached();
}

bool x86_mktme_wrmsr(X86MktmeState *s, unsigned package, uint32_t msr,
                     uint64_t val)
{
    g_assert_not_reached();
}

bool x86_mktme_tracks_lines(X86MktmeState *s)
{
    g_assert_not_reached();
}

bool x86_mktme_store(X86MktmeState *s, hwaddr addr, unsigned size)
{
    g_assert_not_reached();
}

void x86_mktme_clean_line(X86MktmeState *s, hwaddr addr, unsigned keyid)
{
    g_assert_not_reached();
}

void x86_mktme_clean_all(X86MktmeState *s)
{
    g_assert_not_reached();
}

bool x86_mktme_dram_rw(X86MktmeState *s, hwaddr addr, uint8_t *buf,
                       size_t len, bool write, Error **errp)
{
    g_assert_not_reached();
}

bool x86_mktme_inject(X86MktmeState *s, unsigned package, MktmeStatus status,
                      uint32_t count, Error **errp)
{
    g_assert_not_reached();
}

MktmeInfo *x86_mktme_query(X86MktmeState *s)
{
    g_assert_not_reached();
}
