/*
 * Test for Intel Multi-Key Total Memory Encryption: devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqos/malloc-pc.h"
#include "libqos/virtio-pci.h"
#include "hw/net/e1000_regs.h"
#include "hw/pci/pci.h"
#include "standard-headers/linux/virtio_blk.h"
#include "mktme-helper.h"

/*
 * Devices of all kinds: what they take from memory at one address they put
 * back at another
 */

#define DEV_LEN     512             /* a sector, and a frame */
#define DEV_QUEUES  0x300000        /* a page each */
#define DEV_SOURCE  0x320000
#define DEV_OUT     (PAGE + 0x2000)

typedef struct Device {
    QTestState *qts;
    QPCIBus *bus;
    QPCIDevice *pci;
    QPCIBar bar;
    unsigned count;                 /* of requests */
    int sock;
    QVirtioPCIDevice *virtio;
    QVirtQueue *vq;
    QGuestAllocator alloc;
} Device;

typedef struct DeviceType {
    const char *name;
    const char *model;
    const char *args;
    void (*init)(Device *d);
    void (*copy)(Device *d, uint64_t addr, bool to_memory);
    bool bypass;                    /* IOMMUs are not for it */
} DeviceType;

static void edu_copy(Device *d, uint64_t addr, bool to_memory)
{
    edu_dma(d->qts, d->pci, d->bar, to_memory ? EDU_BUFFER : addr,
            to_memory ? addr : EDU_BUFFER, DEV_LEN, to_memory);
}

static void virtio_init(Device *d)
{
    uint64_t features;

    d->virtio = virtio_pci_new(d->bus, &(QPCIAddress) {
                                   .devfn = QPCI_DEVFN(4, 0) });
    g_assert(d->virtio);
    qvirtio_pci_start_hw(&d->virtio->obj);
    features = qvirtio_get_features(&d->virtio->vdev);
    features &= ~(QVIRTIO_F_BAD_FEATURE | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
                  1ull << VIRTIO_RING_F_EVENT_IDX);
    qvirtio_set_features(&d->virtio->vdev, features);
    pc_alloc_init(&d->alloc, d->qts, ALLOC_NO_FLAGS);
    d->vq = qvirtqueue_setup(&d->virtio->vdev, &d->alloc, 0);
    qvirtio_set_driver_ok(&d->virtio->vdev);
}

static void virtio_init_bypass(Device *d)
{
    virtio_init(d);
    g_assert(!(d->virtio->vdev.features & 1ull << VIRTIO_F_ACCESS_PLATFORM));
}

static void virtio_init_platform(Device *d)
{
    virtio_init(d);
    g_assert(d->virtio->vdev.features & 1ull << VIRTIO_F_ACCESS_PLATFORM);
}

static void virtio_copy(Device *d, uint64_t addr, bool to_memory)
{
    const uint64_t request = DEV_QUEUES, status = DEV_QUEUES + 16;
    uint32_t head;

    qtest_writel(d->qts, request, to_memory ? VIRTIO_BLK_T_IN :
                                              VIRTIO_BLK_T_OUT);
    qtest_writel(d->qts, request + 4, 0);
    qtest_writeq(d->qts, request + 8, 0);
    qtest_writeb(d->qts, status, 0xff);
    head = qvirtqueue_add(d->qts, d->vq, request, 16, false, true);
    qvirtqueue_add(d->qts, d->vq, addr, DEV_LEN, to_memory, true);
    qvirtqueue_add(d->qts, d->vq, status, 1, true, false);
    qvirtqueue_kick(d->qts, &d->virtio->vdev, d->vq, head);
    qvirtio_wait_used_elem(d->qts, &d->virtio->vdev, d->vq, head, NULL,
                           30 * G_TIME_SPAN_SECOND);
    g_assert_cmpint(qtest_readb(d->qts, status), ==, 0);
}

/* Queue @n of an NVMe controller: the submission queue, then the other one */
#define NVME_SQ(n)  (DEV_QUEUES + (n) * 0x2000)
#define NVME_CQ(n)  (NVME_SQ(n) + 0x1000)
#define NVME_ENTRIES 32

static void nvme_command(Device *d, unsigned queue, unsigned index,
                         uint8_t opcode, uint32_t ns, uint64_t prp,
                         uint32_t dword10, uint32_t dword11)
{
    uint64_t sqe = NVME_SQ(queue) + index * 64;
    uint64_t cqe = NVME_CQ(queue) + index * 16;
    int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    uint16_t status;

    g_assert_cmpint(index + 1, <, NVME_ENTRIES);
    qtest_memset(d->qts, sqe, 0, 64);
    qtest_writel(d->qts, sqe, opcode | (index << 16));
    qtest_writel(d->qts, sqe + 4, ns);
    qtest_writeq(d->qts, sqe + 24, prp);
    qtest_writel(d->qts, sqe + 40, dword10);
    qtest_writel(d->qts, sqe + 44, dword11);
    qpci_io_writel(d->pci, d->bar, 0x1000 + queue * 8, index + 1);
    do {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        status = qtest_readw(d->qts, cqe + 14);
    } while (!(status & 1));
    g_assert_cmphex(status, ==, 1);
}

static void nvme_init(Device *d)
{
    qtest_memset(d->qts, DEV_QUEUES, 0, 4 * 0x1000);
    qpci_io_writel(d->pci, d->bar, 0x24,
                   (NVME_ENTRIES - 1) << 16 | (NVME_ENTRIES - 1));
    qpci_io_writeq(d->pci, d->bar, 0x28, NVME_SQ(0));
    qpci_io_writeq(d->pci, d->bar, 0x30, NVME_CQ(0));
    qpci_io_writel(d->pci, d->bar, 0x14, 4 << 20 | 6 << 16 | 1);
    while (!(qpci_io_readl(d->pci, d->bar, 0x1c) & 1)) {
        g_usleep(100);
    }
    nvme_command(d, 0, 0, 5, 0, NVME_CQ(1), (NVME_ENTRIES - 1) << 16 | 1, 1);
    nvme_command(d, 0, 1, 1, 0, NVME_SQ(1), (NVME_ENTRIES - 1) << 16 | 1,
                 1 << 16 | 1);
}

static void nvme_copy(Device *d, uint64_t addr, bool to_memory)
{
    nvme_command(d, 1, d->count++, to_memory ? 2 : 1, 1, addr, 0, 0);
}

#define E1000E_RING 0x1000
#define E1000E_TX   DEV_QUEUES
#define E1000E_RX   (DEV_QUEUES + E1000E_RING)

static void e1000e_write(Device *d, unsigned reg, uint32_t val)
{
    qpci_io_writel(d->pci, d->bar, reg, val);
}

static void e1000e_init(Device *d)
{
    qtest_memset(d->qts, DEV_QUEUES, 0, 2 * E1000E_RING);
    e1000e_write(d, E1000_CTRL, E1000_CTRL_RST | E1000_CTRL_SLU);
    e1000e_write(d, E1000_TDBAL, E1000E_TX);
    e1000e_write(d, E1000_TDBAH, 0);
    e1000e_write(d, E1000_TDLEN, E1000E_RING);
    e1000e_write(d, E1000_TCTL, E1000_TCTL_EN);
    e1000e_write(d, E1000_RDBAL, E1000E_RX);
    e1000e_write(d, E1000_RDBAH, 0);
    e1000e_write(d, E1000_RDLEN, E1000E_RING);
    e1000e_write(d, E1000_RCTL, E1000_RCTL_EN | E1000_RCTL_UPE |
                                E1000_RCTL_MPE | E1000_RCTL_BAM |
                                E1000_RCTL_SECRC);
}

static void e1000e_copy(Device *d, uint64_t addr, bool to_memory)
{
    /* What was sent last */
    static uint8_t frame[4 + DEV_LEN];
    static unsigned sent, received;
    int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    uint64_t desc;

    if (!d->count++) {
        sent = received = 0;
    }
    desc = to_memory ? E1000E_RX + received * 16 : E1000E_TX + sent * 16;
    qtest_writeq(d->qts, desc, addr);
    if (to_memory) {
        qtest_writeq(d->qts, desc + 8, 0);
        e1000e_write(d, E1000_RDT, ++received);
        g_assert_cmpint(send(d->sock, frame, sizeof(frame), 0), ==,
                        sizeof(frame));
    } else {
        qtest_writel(d->qts, desc + 8, DEV_LEN | E1000_TXD_CMD_EOP |
                                       E1000_TXD_CMD_IFCS | E1000_TXD_CMD_RS);
        qtest_writel(d->qts, desc + 12, 0);
        e1000e_write(d, E1000_TDT, ++sent);
        g_assert_cmpint(recv(d->sock, frame, sizeof(frame), MSG_WAITALL), ==,
                        sizeof(frame));
        g_assert_cmpint(ldl_be_p(frame), ==, DEV_LEN);
    }
    while (!(qtest_readb(d->qts, desc + 12) & 1)) {     /* done */
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
}

static const DeviceType device_types[] = {
    { "edu", "edu", "-device edu,addr=04.0,dma_mask=0x3fffffffffff",
      NULL, edu_copy },
    { "virtio", "virtio-blk-pci",
      "-device virtio-blk-pci,addr=04.0,drive=disk,disable-legacy=on",
      virtio_init_bypass, virtio_copy, true },
    { "virtio-platform", "virtio-blk-pci",
      "-device virtio-blk-pci,addr=04.0,drive=disk,disable-legacy=on,"
      "iommu_platform=on", virtio_init_platform, virtio_copy },
    { "nvme", "nvme", "-device nvme,addr=04.0,drive=disk,serial=mktme",
      nvme_init, nvme_copy },
    { "e1000e", "e1000e", "-device e1000e,addr=04.0,netdev=net,romfile=",
      e1000e_init, e1000e_copy },
};

/*
 * Translate what the device in slot 4 uses: the first gigabyte as it is, then
 * page by page what @pages says
 */
#define IOVA(n) (0x40000000ull + (n) * 0x1000)

static void vtd_start(QTestState *qts, const uint64_t *pages, unsigned n)
{
    const uint64_t vtd = 0xfed90000, tables = 0x200000;

    /* Root table, context table, four levels of page tables */
    qtest_memset(qts, tables, 0, 6 * 0x1000);
    qtest_writeq(qts, tables, (tables + 0x1000) | 1);
    qtest_writeq(qts, tables + 0x1000 + QPCI_DEVFN(4, 0) * 16,
                 (tables + 0x2000) | 1);
    qtest_writeq(qts, tables + 0x1000 + QPCI_DEVFN(4, 0) * 16 + 8, 2 | 1 << 8);
    qtest_writeq(qts, tables + 0x2000, (tables + 0x3000) | 3);
    qtest_writeq(qts, tables + 0x3000, 0 | 0x83);
    qtest_writeq(qts, tables + 0x3008, (tables + 0x4000) | 3);
    qtest_writeq(qts, tables + 0x4000, (tables + 0x5000) | 3);
    for (unsigned i = 0; i < n; i++) {
        qtest_writeq(qts, tables + 0x5000 + i * 8, pages[i] | 3);
    }
    qtest_writeq(qts, vtd + 0x20, tables);
    qtest_writel(qts, vtd + 0x18, 1u << 30);    /* root table */
    qtest_writel(qts, vtd + 0x18, 1u << 31);    /* translate */
    g_assert(qtest_readl(qts, vtd + 0x1c) & (1u << 31));
}

/* A CPU copies from DEV_SOURCE */
static void device_fill(QTestState *qts, uint64_t to, const uint8_t *data)
{
    Regs r = { .rsi = DEV_SOURCE, .rdi = to, .rcx = DEV_LEN };

    qtest_memwrite(qts, DEV_SOURCE, data, DEV_LEN);
    RUN(qts, 0, op_rep_movsb, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
}

typedef enum DeviceIommu {
    IOMMU_ABSENT, IOMMU_UNUSED, IOMMU_TRANSLATES, IOMMU_CASES,
} DeviceIommu;

static const char *const device_iommus[] = { "none", "unused", "translates" };

static void test_device(const void *opaque)
{
    uintptr_t number = (uintptr_t)opaque;
    const DeviceType *type = &device_types[number / IOMMU_CASES];
    DeviceIommu iommu = number % IOMMU_CASES;
    const struct timeval timeout = { .tv_sec = 60 };
    g_autofree char *args = NULL;
    const uint64_t pages[] = { PAGE, PAGE | KEYID(5), DEV_OUT };
    uint64_t addr0 = pages[0], addr5 = pages[1], out = pages[2], va0, va5;
    uint8_t data[2][DEV_LEN], buf[DEV_LEN], dram[DEV_LEN];
    Device d = { 0 };
    QDict *event, *info;
    int socks[2];

    g_assert(!socketpair(PF_UNIX, SOCK_STREAM, 0, socks));
    g_assert(!setsockopt(socks[0], SOL_SOCKET, SO_RCVTIMEO, &timeout,
                         sizeof(timeout)));
    d.sock = socks[0];
    args = g_strdup_printf("-drive if=none,id=disk,format=raw,file=%s "
                           "-netdev socket,id=net,fd=%d %s %s",
                           disk_path, socks[1],
                           iommu == IOMMU_ABSENT ? "" :
                           "-device intel-iommu,aw-bits=48", type->args);
    d.qts = start("cache=report,tme-bypass=on", args);
    d.bus = qpci_new_pc(d.qts, NULL);

    /* Where the line at LINE will be, its ciphertext is known */
    for (int i = 0; i < DEV_LEN; i++) {
        data[0][i] = i * 7 + 3 - 7 * 0x40;
        data[1][i] = i * 5 + 1;
    }
    set_key(d.qts, 0, 5);
    va0 = map(d.qts, 0, 0, PAGE);
    va5 = map(d.qts, 0, 5, PAGE | KEYID(5));

    if (iommu == IOMMU_TRANSLATES) {
        vtd_start(d.qts, pages, ARRAY_SIZE(pages));
        if (!type->bypass) {
            addr0 = IOVA(0);
            addr5 = IOVA(1);
            out = IOVA(2);
        }
    }
    if (type->copy != virtio_copy) {
        d.pci = qpci_device_find(d.bus, QPCI_DEVFN(4, 0));
        g_assert(d.pci);
        qpci_device_enable(d.pci);
        d.bar = qpci_iomap(d.pci, 0, NULL);
    }
    if (type->init) {
        type->init(&d);
    }

    /* From memory, with the KeyID: plaintext */
    device_fill(d.qts, va5, data[0]);
    type->copy(&d, addr5, false);
    type->copy(&d, out, true);
    qtest_memread(d.qts, DEV_OUT, buf, DEV_LEN);
    g_assert_cmpmem(buf, DEV_LEN, data[0], DEV_LEN);

    /* Without: ciphertext */
    FLUSH(d.qts, 0, op_wbinvd, 0);
    type->copy(&d, addr0, false);
    type->copy(&d, out, true);
    qtest_memread(d.qts, DEV_OUT, buf, DEV_LEN);
    g_assert_cmpmem(buf + 0x40, 64, cipher_128, 64);
    dump(d.qts, PAGE, dram, DEV_LEN);
    g_assert_cmpmem(buf, DEV_LEN, dram, DEV_LEN);

    /* To memory, with the KeyID */
    device_fill(d.qts, map(d.qts, 0, 2, DEV_OUT), data[1]);
    type->copy(&d, out, false);
    type->copy(&d, addr5, true);
    qtest_memread(d.qts, PAGE | KEYID(5), buf, DEV_LEN);
    g_assert_cmpmem(buf, DEV_LEN, data[1], DEV_LEN);
    g_assert_cmphex(load(d.qts, 0, va5 + 0x80), ==, ldq_le_p(data[1] + 0x80));
    dump(d.qts, PAGE, dram, DEV_LEN);
    g_assert(memcmp(dram, data[1], 16));
    FLUSH(d.qts, 0, op_wbinvd, 0);
    g_assert_cmphex(load(d.qts, 0, va0 + 0x80), ==, ldq_le_p(dram + 0x80));

    /* To memory without, while a CPU has it in view with */
    load(d.qts, 0, va5);
    type->copy(&d, addr0, true);
    dump(d.qts, PAGE, dram, DEV_LEN);
    g_assert_cmpmem(dram, DEV_LEN, data[1], DEV_LEN);
    FLUSH(d.qts, 0, op_wbinvd, 0);
    g_assert_cmphex(load(d.qts, 0, va5 + 0x80), !=, ldq_le_p(data[1] + 0x80));
    FLUSH(d.qts, 0, op_wbinvd, 0);
    g_assert_cmphex(load(d.qts, 0, va0 + 0x80), ==, ldq_le_p(data[1] + 0x80));

    /* Nothing of this was wrong */
    info = query(d.qts);
    g_assert_cmpint(qdict_get_int(info, "violations"), ==, 0);
    g_assert_cmpint(qdict_get_int(info, "reuse-violations"), ==, 0);
    qobject_unref(info);

    /* But a line that was not flushed is */
    store(d.qts, 0, va5 + 0x80, 1);
    type->copy(&d, addr0, false);
    g_assert_cmpint(counter(d.qts, "violations"), ==, 1);
    event = qtest_qmp_eventwait_ref(d.qts, "MKTME_VIOLATION");
    info = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(info, "violation"), ==, "device-access");
    g_assert_cmphex(qdict_get_int(info, "addr"), ==, PAGE);
    g_assert_cmphex(qdict_get_int(info, "lines"), ==, 1 << 2);
    g_assert_cmpint(qdict_get_int(info, "dirty-keyid"), ==, 5);
    g_assert_cmpint(qdict_get_int(info, "keyid"), ==, 0);
    g_assert(!qdict_haskey(info, "rip"));
    qobject_unref(event);

    /* And what a device has written may be dirty, too, in whatever view */
    FLUSH(d.qts, 0, op_wbinvd, 0);
    load(d.qts, 0, va5);
    type->copy(&d, addr5, true);
    load(d.qts, 0, va0);
    g_assert_cmpint(counter(d.qts, "violations"), ==, 2);
    FLUSH(d.qts, 0, op_wbinvd, 0);
    type->copy(&d, addr5, true);
    load(d.qts, 0, va0);
    g_assert_cmpint(counter(d.qts, "violations"), ==, 3);

    if (d.virtio) {
        qvirtqueue_cleanup(d.virtio->vdev.bus, d.vq, &d.alloc);
        qos_object_destroy((QOSGraphObject *)d.virtio);
        alloc_destroy(&d.alloc);
    }
    g_free(d.pci);
    qpci_free_pc(d.bus);
    stop(d.qts);
    close(socks[0]);
    close(socks[1]);
}

static void add_tests(void)
{
    for (uintptr_t i = 0; i < ARRAY_SIZE(device_types) * IOMMU_CASES; i++) {
        const DeviceType *type = &device_types[i / IOMMU_CASES];

        if (qtest_has_device(type->model) &&
            (i % IOMMU_CASES == IOMMU_ABSENT ||
             qtest_has_device("intel-iommu"))) {
            g_autofree char *path =
                g_strdup_printf("/mktme/dma/%s/iommu-%s", type->name,
                                device_iommus[i % IOMMU_CASES]);

            qtest_add_data_func(path, (void *)i, test_device);
        }
    }
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
