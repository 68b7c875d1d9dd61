/*
 * Intel Multi-Key Total Memory Encryption (MKTME, also TME-MK)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_MKTME_H
#define HW_I386_MKTME_H

#include "exec/hwaddr.h"
#include "qom/object.h"
#include "target/i386/mktme.h"

#define TYPE_X86_MKTME "x86-mktme"
OBJECT_DECLARE_TYPE(X86MktmeState, X86MktmeStateClass, X86_MKTME)

/*
 * What boards and CPUs use the object by. There is no object without the code,
 * so that they need no stubs where it is left out.
 */
struct X86MktmeStateClass {
    ObjectClass parent_class;

    /* For the CPUs of a machine that has called @machine_init */
    const X86MktmeOps *cpu_ops;

    /* Number of address bits that the KeyID may take */
    unsigned (*keyid_bits)(X86MktmeState *s);

    /**
     * machine_init: make @s the memory encryption of a machine
     * @s: the object
     * @machine: the machine; its NUMA topology and sockets are known
     * @phys_bits: MAXPHYADDR of the CPUs, KeyID bits included
     * @errp: set on failure
     *
     * From here on &address_space_memory, and with it all devices, see memory
     * through the KeyIDs. Returns false and sets @errp on failure.
     */
    bool (*machine_init)(X86MktmeState *s, MachineState *machine,
                         unsigned phys_bits, Error **errp);

    /**
     * add_ram: a range of guest physical addresses is DRAM
     * @s: the object
     * @base: guest physical address
     * @size: length in bytes
     * @mr: RAM region
     * @offset: offset of the range in @mr
     * @node: NUMA node, which says to which package the memory is attached
     */
    void (*add_ram)(X86MktmeState *s, hwaddr base, uint64_t size,
                    MemoryRegion *mr, hwaddr offset, unsigned node);

    /**
     * del_ram: undo @add_ram
     * @s: the object
     * @base: guest physical address with which the range was added
     */
    void (*del_ram)(X86MktmeState *s, hwaddr base);
};

#endif
