/*
 * Test for Intel Multi-Key Total Memory Encryption: what its parts share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "mktme-helper.h"
#include "mktme-guest/mktme-guest.h"

char *rom_path;
char *tmp_path;
char *disk_path;
uint8_t data_key[32], tweak_key[32], plain[64];

const uint8_t cipher_128[64] = {
    0x9a, 0xb6, 0xf0, 0xf5, 0x59, 0xca, 0xfd, 0x07, 0xce, 0x1b, 0x59, 0x1b,
    0xb0, 0x4a, 0x92, 0xc2, 0xa4, 0x86, 0x0e, 0xdf, 0xbb, 0xc2, 0xcb, 0xa0,
    0xba, 0x99, 0xaa, 0x4c, 0x50, 0x87, 0xbb, 0x70, 0x5f, 0x43, 0xe8, 0xb5,
    0xfe, 0x66, 0x0a, 0xba, 0x30, 0x49, 0xdc, 0x49, 0x51, 0xb2, 0x7e, 0x59,
    0x38, 0xc4, 0xa7, 0x62, 0xfc, 0xb3, 0x1f, 0x7f, 0x25, 0x50, 0x27, 0x45,
    0x84, 0x99, 0x25, 0xe8,
};

const uint8_t cipher_256[64] = {
    0xd5, 0x64, 0xb6, 0x98, 0xd7, 0xad, 0x75, 0xa8, 0x9b, 0xe4, 0x62, 0xd0,
    0xeb, 0xda, 0x69, 0x4b, 0x92, 0xf0, 0x1c, 0x30, 0xd6, 0xf7, 0xf5, 0xb2,
    0x39, 0x07, 0xb4, 0xc4, 0xbb, 0x04, 0x74, 0xef, 0x26, 0xfa, 0x62, 0x5b,
    0xaf, 0x81, 0x32, 0x87, 0xef, 0x26, 0x28, 0x30, 0xa4, 0x76, 0x79, 0xc5,
    0xd7, 0x2c, 0x54, 0x41, 0x4c, 0xba, 0x37, 0xcd, 0x16, 0xa4, 0x53, 0x4a,
    0xe2, 0x67, 0x3b, 0xda,
};

QTestState *start(const char *object, const char *args)
{
    return qtest_initf("-nodefaults -accel tcg -machine q35,mktme=mktme0 "
                       "-cpu max,phys-bits=%d -m 256 -bios %s "
                       "-object x86-mktme,id=mktme0%s%s %s",
                       PHYS_BITS, rom_path, *object ? "," : "", object, args);
}

void stop(QTestState *qts)
{
    qtest_quit(qts);
}

void wait_cpu(QTestState *qts, unsigned cpu, unsigned offset, uint64_t value)
{
    int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;

    while (qtest_readq(qts, MBOX + cpu * 256 + offset) != value) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(20);
    }
}

void run(QTestState *qts, unsigned cpu, const uint8_t *op, size_t len,
         Regs *regs)
{
    uint64_t mbox = MBOX + cpu * 256;

    wait_cpu(qts, cpu, 0x70, 1);
    regs->code = CODE + cpu * 0x1000;
    qtest_memwrite(qts, regs->code, op, len);
    qtest_memwrite(qts, mbox + 8, regs, offsetof(Regs, vector));
    qtest_writeq(qts, mbox, 1);
    wait_cpu(qts, cpu, 0, 0);
    qtest_memread(qts, mbox + 8, regs, sizeof(*regs));
}

uint64_t rdmsr(QTestState *qts, unsigned cpu, uint32_t msr)
{
    Regs r = { .rcx = msr };

    RUN(qts, cpu, op_rdmsr, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    return (uint32_t)r.rax | r.rdx << 32;
}

uint64_t wrmsr(QTestState *qts, unsigned cpu, uint32_t msr, uint64_t val)
{
    Regs r = { .rcx = msr, .rax = (uint32_t)val, .rdx = val >> 32 };

    RUN(qts, cpu, op_wrmsr, &r);
    return r.vector;
}

uint64_t load(QTestState *qts, unsigned cpu, uint64_t addr)
{
    Regs r = { .rdi = addr };

    RUN(qts, cpu, op_load, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    return r.rax;
}

void store(QTestState *qts, unsigned cpu, uint64_t addr, uint64_t val)
{
    Regs r = { .rdi = addr, .rax = val };

    RUN(qts, cpu, op_store, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
}

void flush(QTestState *qts, unsigned cpu, const uint8_t *op, size_t len,
           uint64_t addr)
{
    Regs r = { .rdi = addr };

    run(qts, cpu, op, len, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
}

uint64_t map(QTestState *qts, unsigned cpu, unsigned n, uint64_t phys)
{
    store(qts, cpu, PT + n * 8, phys | 7);
    FLUSH(qts, cpu, op_invlpg, WINDOW + n * 0x1000);
    return WINDOW + n * 0x1000;
}

void key_program(uint8_t *buf, uint16_t keyid, uint32_t ctrl,
                 const uint8_t *key1, const uint8_t *key2)
{
    memset(buf, 0, 192);
    stw_le_p(buf, keyid);
    stl_le_p(buf + 2, ctrl);
    memcpy(buf + 64, key1, 32);
    memcpy(buf + 128, key2, 32);
}

static void init_keys(void)
{
    for (int i = 0; i < 32; i++) {
        data_key[i] = i + 1;
        tweak_key[i] = 0x80 + i;
    }
    for (int i = 0; i < sizeof(plain); i++) {
        plain[i] = i * 7 + 3;
    }
}

uint64_t pconfig_vector(QTestState *qts, unsigned cpu, uint16_t keyid,
                        uint32_t ctrl)
{
    Regs r = { .rbx = KEY_PROGRAM };
    uint8_t buf[192];

    key_program(buf, keyid, ctrl, data_key, tweak_key);
    qtest_memwrite(qts, KEY_PROGRAM, buf, sizeof(buf));
    RUN(qts, cpu, op_pconfig, &r);
    return r.vector;
}

uint64_t pconfig(QTestState *qts, unsigned cpu, uint16_t keyid, uint32_t ctrl,
                 const uint8_t *key1, const uint8_t *key2)
{
    Regs r = { .rbx = KEY_PROGRAM };
    uint8_t buf[192];

    key_program(buf, keyid, ctrl, key1, key2);
    qtest_memwrite(qts, KEY_PROGRAM, buf, sizeof(buf));
    RUN(qts, cpu, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    /* CF PF AF SF OF are cleared, ZF tells of failure */
    g_assert_cmphex(r.rflags & 0x8d5, ==, r.rax ? 0x40 : 0);
    return r.rax;
}

void set_key(QTestState *qts, unsigned cpu, uint16_t keyid)
{
    g_assert_cmpint(pconfig(qts, cpu, keyid, SET_KEY_DIRECT | AES_128,
                            data_key, tweak_key), ==, 0);
}

void dump(QTestState *qts, uint64_t addr, void *buf, size_t len)
{
    g_autofree char *data = NULL;
    gsize got;

    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-dump', 'arguments':"
                             "  { 'addr': %" PRIu64 ", 'size': %" PRIu64 ","
                             "    'filename': %s } }", addr, (uint64_t)len,
                             tmp_path);
    g_assert(g_file_get_contents(tmp_path, &data, &got, NULL));
    g_assert_cmpint(got, ==, len);
    memcpy(buf, data, len);
}

void restore(QTestState *qts, uint64_t addr, const void *buf, size_t len)
{
    g_assert(g_file_set_contents(tmp_path, buf, len, NULL));
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-restore', 'arguments':"
                             "  { 'addr': %" PRIu64 ", 'filename': %s } }",
                             addr, tmp_path);
}

QDict *query(QTestState *qts)
{
    return qtest_qmp_assert_success_ref(qts, "{ 'execute': 'query-mktme' }");
}

int64_t counter(QTestState *qts, const char *name)
{
    QDict *info = query(qts);
    int64_t val = qdict_get_int(info, name);

    qobject_unref(info);
    return val;
}

void wait_late_writes(QTestState *qts, int64_t n)
{
    int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;

    while (counter(qts, "late-writes") < n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

void store_plain(QTestState *qts, uint64_t addr)
{
    for (int i = 0; i < 64; i += 8) {
        store(qts, 0, addr + i, ldq_le_p(plain + i));
    }
}

void load_line(QTestState *qts, uint64_t addr, uint8_t *buf)
{
    for (int i = 0; i < 64; i += 8) {
        stq_le_p(buf + i, load(qts, 0, addr + i));
    }
}

void cpuid(QTestState *qts, uint32_t leaf, uint32_t subleaf, Regs *r)
{
    *r = (Regs) { .rax = leaf, .rcx = subleaf };
    RUN(qts, 0, op_cpuid, r);
}

void start_ap(QTestState *qts, unsigned cpu)
{
    uint64_t icr = 0xfee00300;
    Regs r = { 0 };

    /* Enable the local APIC, then INIT, and a startup IPI for 0xf0000 */
    r = (Regs) { .rdi = 0xfee000f0, .rax = 0x1ff };
    RUN(qts, 0, ((const uint8_t []) { 0x89, 0x07, 0xc3 }), &r);
    r = (Regs) { .rdi = icr + 0x10, .rax = (uint64_t)cpu << 24 };
    RUN(qts, 0, ((const uint8_t []) { 0x89, 0x07, 0xc3 }), &r);
    r = (Regs) { .rdi = icr, .rax = 0x4500 };
    RUN(qts, 0, ((const uint8_t []) { 0x89, 0x07, 0xc3 }), &r);
    r = (Regs) { .rdi = icr + 0x10, .rax = (uint64_t)cpu << 24 };
    RUN(qts, 0, ((const uint8_t []) { 0x89, 0x07, 0xc3 }), &r);
    r = (Regs) { .rdi = icr, .rax = 0x46f0 };
    RUN(qts, 0, ((const uint8_t []) { 0x89, 0x07, 0xc3 }), &r);
    wait_cpu(qts, cpu, 0x70, 1);
}

void svm_enable(QTestState *qts, uint64_t hsave)
{
    g_assert_cmphex(wrmsr(qts, 0, 0xc0000080, 0x1500), ==, NO_EXCEPTION);
    g_assert_cmphex(wrmsr(qts, 0, 0xc0010117, hsave), ==, NO_EXCEPTION);
}

void vmcb_init(QTestState *qts, uint64_t vmcb, uint64_t rip, uint64_t rsp)
{
    static const struct {
        unsigned offset;
        uint16_t selector, attrib;
    } segs[] = {
        { 0x400, 0x10, 0xc93 }, { 0x410, 0x08, 0xa9b }, { 0x420, 0x10, 0xc93 },
        { 0x430, 0x10, 0xc93 },
    };

    qtest_memset(qts, vmcb, 0, 0x1000);
    qtest_writel(qts, vmcb + 0x0c, 1u << 31);           /* shutdown */
    qtest_writel(qts, vmcb + 0x10, 3);                  /* vmrun, vmmcall */
    qtest_writel(qts, vmcb + 0x08, 0xffffffff);         /* exceptions */
    qtest_writel(qts, vmcb + 0x58, 1);                  /* ASID */
    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        qtest_writew(qts, vmcb + segs[i].offset, segs[i].selector);
        qtest_writew(qts, vmcb + segs[i].offset + 2, segs[i].attrib);
        qtest_writel(qts, vmcb + segs[i].offset + 4, 0xffffffff);
    }
    qtest_writeq(qts, vmcb + 0x4d0, 0x1500);            /* EFER */
    qtest_writeq(qts, vmcb + 0x548, 0x620);             /* CR4 */
    qtest_writeq(qts, vmcb + 0x550, 0x1000);            /* CR3 */
    qtest_writeq(qts, vmcb + 0x558, 0x80010033);        /* CR0 */
    qtest_writeq(qts, vmcb + 0x570, 2);
    qtest_writeq(qts, vmcb + 0x578, rip);
    qtest_writeq(qts, vmcb + 0x5d8, rsp);
    qtest_writeq(qts, vmcb + 0x668, 0x0007040600070406); /* PAT */
}

void edu_dma(QTestState *qts, QPCIDevice *dev, QPCIBar bar, uint64_t src,
             uint64_t dst, unsigned len, bool to_memory)
{
    qpci_io_writeq(dev, bar, 0x80, src);
    qpci_io_writeq(dev, bar, 0x88, dst);
    qpci_io_writeq(dev, bar, 0x90, len);
    qpci_io_writeq(dev, bar, 0x98, 1 | (to_memory ? 2 : 0));
    while (qpci_io_readq(dev, bar, 0x98) & 1) {
        g_usleep(1000);
    }
}

int mktme_test_main(int argc, char **argv, void (*add)(void))
{
    g_autofree uint8_t *rom = g_malloc0(64 * 1024);
    int fd, ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_accel("tcg") || !qtest_has_machine("q35")) {
        g_test_skip("needs q35 with tcg");
        return 0;
    }

    init_keys();
    fd = g_file_open_tmp("mktme-test-XXXXXX", &tmp_path, NULL);
    g_assert(fd >= 0);
    close(fd);
    /* The image has its beginning and its end */
    memcpy(rom, mktme_guest_bin, sizeof(mktme_guest_bin) - 16);
    memcpy(rom + 64 * 1024 - 16,
           mktme_guest_bin + sizeof(mktme_guest_bin) - 16, 16);
    fd = g_file_open_tmp("mktme-rom-XXXXXX", &rom_path, NULL);
    g_assert(fd >= 0);
    g_assert_cmpint(qemu_write_full(fd, rom, 64 * 1024), ==, 64 * 1024);
    close(fd);
    fd = g_file_open_tmp("mktme-disk-XXXXXX", &disk_path, NULL);
    g_assert(fd >= 0);
    g_assert(!ftruncate(fd, 1 << 20));
    close(fd);

    add();
    ret = g_test_run();

    unlink(rom_path);
    unlink(tmp_path);
    unlink(disk_path);
    g_free(rom_path);
    g_free(tmp_path);
    g_free(disk_path);
    return ret;
}
