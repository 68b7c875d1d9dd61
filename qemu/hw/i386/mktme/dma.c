/*
 * Multi-Key Total Memory Encryption: what devices see
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-properties.h"
#include "system/address-spaces.h"
#include "internal.h"

/*
 * &address_space_memory becomes an IOMMU region over all physical addresses,
 * KeyIDs included. It leads to system memory where nothing has to be done:
 * that is KeyID 0 on a page that is in view of it, and all that is no DRAM.
 * Everything else goes through dma_slow, which handles one access at a time;
 * address_space_map() then makes use of bounce buffers. Pages under another
 * KeyID are never mapped, as a CPU could switch their view under the mapping
 * by no more than reading them.
 */

/*
 * Bounce buffers for devices that access encrypted memory: enough for the
 * requests that disks have in flight.
 */
#define MKTME_BOUNCE_SIZE           67108864

#define TYPE_X86_MKTME_IOMMU_MR "x86-mktme-iommu-memory-region"

/* Who accesses memory */
enum {
    MKTME_IOMMU_DEVICE,
    MKTME_IOMMU_DEBUG,
    MKTME_IOMMU_INDEXES
};

void mktme_adopt_device_writes(X86MktmeState *s)
{
    for (guint i = 0; i < s->device_writes->len; i++) {
        MktmeDeviceWrite *w = &g_array_index(s->device_writes,
                                             MktmeDeviceWrite, i);
        MktmeRange *r = mktme_find(s, w->page);

        if (!r || !w->lines) {
            continue;
        }
        if (r->view[mktme_page(r, w->page)] != w->keyid) {
            mktme_switch(s, r, w->page, w->keyid, false, 0);
        }
        qatomic_or(&r->dirty[mktme_page(r, w->page)], w->lines);
    }
    g_array_set_size(s->device_writes, 0);
}

static void mktme_adopt_work(CPUState *cpu, run_on_cpu_data data)
{
    X86MktmeState *s = data.host_ptr;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&s->lock);
    mktme_adopt_device_writes(s);
}

/* Call with the lock */
static void mktme_device_wrote(X86MktmeState *s, hwaddr page, uint64_t lines,
                               uint16_t keyid)
{
    GArray *writes = s->device_writes;
    MktmeDeviceWrite w = { .page = page, .lines = lines, .keyid = keyid };

    if (!writes->len) {
        async_safe_run_on_cpu(first_cpu, mktme_adopt_work,
                              RUN_ON_CPU_HOST_PTR(s));
    } else {
        MktmeDeviceWrite *last = &g_array_index(writes, MktmeDeviceWrite,
                                                writes->len - 1);

        if (last->page == page && last->keyid == keyid) {
            last->lines |= lines;
            return;
        }
    }
    g_array_append_val(writes, w);
}

/*
 * A device writes to a line: that is dirty then, and no other KeyID's line of
 * the page may be. Call with the lock.
 */
static void mktme_dma_write_lines(X86MktmeState *s, MktmeRange *r, hwaddr addr,
                                  uint16_t keyid)
{
    hwaddr page = addr & TARGET_PAGE_MASK;
    size_t i = mktme_page(r, addr);
    uint64_t lines;

    if (r->view[i] == keyid) {
        qatomic_or(&r->dirty[i], mktme_line_bit(addr));
        return;
    }
    lines = qatomic_read(&r->dirty[i]);
    if (lines && r->view[i] != MKTME_VIEW_DRAM) {
        mktme_report(s, MKTME_VIOLATION_DEVICE_ACCESS, page, lines,
                     r->view[i], keyid, false, 0);
        if (s->cache == MKTME_CACHE_MODE_STRICT) {
            mktme_put_aside(s, r, page, lines);
        }
        mktme_clean(r, i, lines);
        mktme_watch_stores(r, page);
    }
    mktme_device_wrote(s, page, mktme_line_bit(addr), keyid);
}

/*
 * A device reads @len bytes of a line, which may not be dirty under another
 * KeyID, and stays so if it is. It comes in pieces: the first one is told of.
 * Call with the lock.
 */
static void mktme_dma_read_lines(X86MktmeState *s, MktmeRange *r, hwaddr addr,
                                 size_t len, uint16_t keyid)
{
    size_t i = mktme_page(r, addr);
    uint64_t bit = mktme_line_bit(addr);

    if (r->view[i] == keyid || !(qatomic_read(&r->dirty[i]) & bit)) {
        return;
    }
    if (addr != s->told || !(addr % MKTME_LINE_SIZE)) {
        mktme_report(s, MKTME_VIOLATION_DEVICE_ACCESS,
                     addr & TARGET_PAGE_MASK, bit, r->view[i], keyid, false,
                     0);
    }
    s->told = addr + len;
}

/* Debuggers leave no trace: they neither break rules nor make lines dirty */
static void mktme_dma_access(X86MktmeState *s, hwaddr addr, uint8_t *buf,
                             unsigned size, bool write, bool debug)
{
    unsigned keyid = mktme_split(s, 0, &addr);
    MktmeRange *r;
    unsigned done, len;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&s->lock);

    r = mktme_find(s, addr);
    for (done = 0; done < size; done += len, addr += len) {
        len = MIN(size - done, MKTME_LINE_SIZE - addr % MKTME_LINE_SIZE);
        if (!r) {
            continue;
        }
        if (r->dirty && !debug) {
            if (write) {
                mktme_dma_write_lines(s, r, addr, keyid);
            } else {
                mktme_dma_read_lines(s, r, addr, len, keyid);
            }
        }
        mktme_access_line(s, r, addr, keyid, buf + done, len, write);
    }
}

static MemTxResult mktme_slow_read(void *opaque, hwaddr addr, uint64_t *data,
                                   unsigned size, MemTxAttrs attrs)
{
    uint8_t buf[8] = { 0 };

    mktme_dma_access(opaque, addr, buf, size, false, attrs.debug);
    *data = ldn_le_p(buf, size);
    return MEMTX_OK;
}

static MemTxResult mktme_slow_write(void *opaque, hwaddr addr, uint64_t data,
                                    unsigned size, MemTxAttrs attrs)
{
    uint8_t buf[8];

    stn_le_p(buf, size, data);
    mktme_dma_access(opaque, addr, buf, size, true, attrs.debug);
    return MEMTX_OK;
}

static const MemoryRegionOps mktme_slow_ops = {
    .read_with_attrs = mktme_slow_read,
    .write_with_attrs = mktme_slow_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {
        .min_access_size = 1,
        .max_access_size = 8,
        .unaligned = true,
    },
    .impl = {
        .min_access_size = 1,
        .max_access_size = 8,
        .unaligned = true,
    },
};

static IOMMUTLBEntry mktme_dma_translate(IOMMUMemoryRegion *iommu, hwaddr addr,
                                         IOMMUAccessFlags flag, int iommu_idx)
{
    X86MktmeState *s = container_of(iommu, X86MktmeState, dma_iommu);
    hwaddr memory_addr = addr;
    unsigned keyid = mktme_split(s, 0, &memory_addr);
    MktmeRange *r;
    IOMMUTLBEntry entry = {
        .target_as = &s->dram_as,
        .iova = addr & TARGET_PAGE_MASK,
        .translated_addr = memory_addr & TARGET_PAGE_MASK,
        .addr_mask = ~TARGET_PAGE_MASK,
        .perm = IOMMU_RW,
    };

    RCU_READ_LOCK_GUARD();
    r = mktme_find(s, memory_addr);
    if (r) {
        size_t i = mktme_page(r, memory_addr);

        if (keyid || qatomic_read(&r->view[i])) {
            entry.target_as = &s->slow_as;
            entry.translated_addr = entry.iova;
        } else if (r->dirty && (flag & IOMMU_WO) &&
                   iommu_idx != MKTME_IOMMU_DEBUG) {
            /* The platform puts what devices write into the cache */
            qatomic_set(&r->dirty[i], UINT64_MAX);
        }
    }
    return entry;
}

static int mktme_dma_attrs_to_index(IOMMUMemoryRegion *iommu, MemTxAttrs attrs)
{
    return attrs.debug ? MKTME_IOMMU_DEBUG : MKTME_IOMMU_DEVICE;
}

static int mktme_dma_num_indexes(IOMMUMemoryRegion *iommu)
{
    return MKTME_IOMMU_INDEXES;
}

static void mktme_iommu_mr_class_init(ObjectClass *oc, const void *data)
{
    IOMMUMemoryRegionClass *imrc = IOMMU_MEMORY_REGION_CLASS(oc);

    imrc->translate = mktme_dma_translate;
    imrc->attrs_to_index = mktme_dma_attrs_to_index;
    imrc->num_indexes = mktme_dma_num_indexes;
}

static const TypeInfo mktme_iommu_mr_info = {
    .name = TYPE_X86_MKTME_IOMMU_MR,
    .parent = TYPE_IOMMU_MEMORY_REGION,
    .class_init = mktme_iommu_mr_class_init,
};

static void mktme_register_types(void)
{
    type_register_static(&mktme_iommu_mr_info);
}

type_init(mktme_register_types)

MemoryRegion *mktme_views(X86MktmeState *s)
{
    return &s->dma_root;
}

void mktme_dma_init(X86MktmeState *s)
{
    address_space_init(&s->dram_as, address_space_memory.root, "mktme-dram");
    memory_region_init_io(&s->dma_slow, OBJECT(s), &mktme_slow_ops, s,
                          "mktme-slow", 1ULL << s->phys_bits);
    address_space_init(&s->slow_as, &s->dma_slow, "mktme-slow");
    memory_region_init_iommu(&s->dma_iommu, sizeof(s->dma_iommu),
                             TYPE_X86_MKTME_IOMMU_MR, OBJECT(s),
                             "mktme-views", 1ULL << s->phys_bits);
    memory_region_add_subregion(&s->dma_root, 0, MEMORY_REGION(&s->dma_iommu));
    address_space_set_root(&address_space_memory, &s->dma_root);
    address_space_memory.max_bounce_buffer_size = MKTME_BOUNCE_SIZE;
    /* A default: -global and -device have the last word */
    object_register_sugar_prop(TYPE_PCI_DEVICE, "x-max-bounce-buffer-size",
                               stringify(MKTME_BOUNCE_SIZE), false);
}
