/*
 * Test for Intel Multi-Key Total Memory Encryption
 *
 * The guest is a small firmware (mktme-guest/mktme-guest.S) whose CPUs run
 * the pieces of machine code that they get from here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio-pci.h"
#include "hw/net/e1000_regs.h"
#include "hw/pci/pci.h"
#include "standard-headers/linux/virtio_blk.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "mktme-guest/mktme-guest.h"

/* See mktme-guest.S */
#define PT              0x9000
#define MBOX            0xb000
#define WINDOW          (1ULL << 39)

#define CODE            0x20000     /* a page for each CPU */
#define KEY_PROGRAM     0x30000
#define USER_STACK      0x38000

/* The memory that the tests play with, some lines in it */
#define PAGE            0x1400000
#define LINE            (PAGE + 0x40)

#define PHYS_BITS       46
#define KEYID_BITS      6
#define KEYID(k)        ((uint64_t)(k) << (PHYS_BITS - KEYID_BITS))

#define AES_128         (1 << 8)    /* in KEYID_CTRL */
#define AES_256         (4 << 8)
#define SET_KEY_DIRECT  0
#define SET_KEY_RANDOM  1
#define CLEAR_KEY       2
#define NO_ENCRYPT      3

#define MSR_PARTITIONING 0x87
#define MSR_CAPABILITY  0x981
#define MSR_ACTIVATE    0x982
#define MSR_EXCLUDE_MASK 0x983
#define MSR_EXCLUDE_BASE 0x984

#define NO_EXCEPTION    UINT64_MAX
#define UD              6
#define GP              13
#define PF              14

typedef struct Regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rflags;
    uint64_t code, vector, error, cr2, rip;
} Regs;

static char *rom_path;
static char *tmp_path;
static char *disk_path;

/* Pieces of code */
static const uint8_t op_cpuid[] = { 0x0f, 0xa2, 0xc3 };
static const uint8_t op_rdmsr[] = { 0x0f, 0x32, 0xc3 };
static const uint8_t op_wrmsr[] = { 0x0f, 0x30, 0xc3 };
static const uint8_t op_pconfig[] = { 0x0f, 0x01, 0xc5, 0xc3 };
static const uint8_t op_load[] = { 0x48, 0x8b, 0x07, 0xc3 };
static const uint8_t op_store[] = { 0x48, 0x89, 0x07, 0xc3 };
static const uint8_t op_store_often[] = {
    0x48, 0x89, 0x07, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xc3 /* RCX times */
};
static const uint8_t op_invlpg[] = { 0x0f, 0x01, 0x3f, 0xc3 };
static const uint8_t op_clflush[] = { 0x0f, 0xae, 0x3f, 0xc3 };
static const uint8_t op_clflushopt[] = { 0x66, 0x0f, 0xae, 0x3f, 0xc3 };
static const uint8_t op_clwb[] = { 0x66, 0x0f, 0xae, 0x37, 0xc3 };
static const uint8_t op_wbinvd[] = { 0x0f, 0x09, 0xc3 };
static const uint8_t op_wbnoinvd[] = { 0xf3, 0x0f, 0x09, 0xc3 };
static const uint8_t op_rep_movsb[] = { 0xf3, 0xa4, 0xc3 };
static const uint8_t op_call_rdi[] = { 0xff, 0xd7, 0xc3 };

static QTestState *start(const char *object, const char *args)
{
    return qtest_initf("-nodefaults -accel tcg -machine q35,mktme=mktme0 "
                       "-cpu max,phys-bits=%d -m 256 -bios %s "
                       "-object x86-mktme,id=mktme0%s%s %s",
                       PHYS_BITS, rom_path, *object ? "," : "", object, args);
}

static void stop(QTestState *qts)
{
    qtest_quit(qts);
}

static void wait_cpu(QTestState *qts, unsigned cpu, unsigned offset,
                     uint64_t value)
{
    int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;

    while (qtest_readq(qts, MBOX + cpu * 256 + offset) != value) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(20);
    }
}

#define RUN(qts, cpu, op, regs) run(qts, cpu, op, sizeof(op), regs)

static void run(QTestState *qts, unsigned cpu, const uint8_t *op, size_t len,
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

static uint64_t rdmsr(QTestState *qts, unsigned cpu, uint32_t msr)
{
    Regs r = { .rcx = msr };

    RUN(qts, cpu, op_rdmsr, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    return (uint32_t)r.rax | r.rdx << 32;
}

static uint64_t wrmsr(QTestState *qts, unsigned cpu, uint32_t msr,
                      uint64_t val)
{
    Regs r = { .rcx = msr, .rax = (uint32_t)val, .rdx = val >> 32 };

    RUN(qts, cpu, op_wrmsr, &r);
    return r.vector;
}

static uint64_t load(QTestState *qts, unsigned cpu, uint64_t addr)
{
    Regs r = { .rdi = addr };

    RUN(qts, cpu, op_load, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    return r.rax;
}

static void store(QTestState *qts, unsigned cpu, uint64_t addr, uint64_t val)
{
    Regs r = { .rdi = addr, .rax = val };

    RUN(qts, cpu, op_store, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
}

#define FLUSH(qts, cpu, op, addr) flush(qts, cpu, op, sizeof(op), addr)

static void flush(QTestState *qts, unsigned cpu, const uint8_t *op, size_t len,
                  uint64_t addr)
{
    Regs r = { .rdi = addr };

    run(qts, cpu, op, len, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
}

/* Have a page of physical memory at number @n of the window */
static uint64_t map(QTestState *qts, unsigned cpu, unsigned n, uint64_t phys)
{
    store(qts, cpu, PT + n * 8, phys | 7);
    FLUSH(qts, cpu, op_invlpg, WINDOW + n * 0x1000);
    return WINDOW + n * 0x1000;
}

static void key_program(uint8_t *buf, uint16_t keyid, uint32_t ctrl,
                        const uint8_t *key1, const uint8_t *key2)
{
    memset(buf, 0, 192);
    stw_le_p(buf, keyid);
    stl_le_p(buf + 2, ctrl);
    memcpy(buf + 64, key1, 32);
    memcpy(buf + 128, key2, 32);
}

static uint8_t data_key[32], tweak_key[32];

/* What the constants below were made with */
static void init_keys(void)
{
    for (int i = 0; i < 32; i++) {
        data_key[i] = i + 1;
        tweak_key[i] = 0x80 + i;
    }
}

/* Returns: RAX */
static uint64_t pconfig(QTestState *qts, unsigned cpu, uint16_t keyid,
                        uint32_t ctrl, const uint8_t *key1,
                        const uint8_t *key2)
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

static void set_key(QTestState *qts, unsigned cpu, uint16_t keyid)
{
    g_assert_cmpint(pconfig(qts, cpu, keyid, SET_KEY_DIRECT | AES_128,
                            data_key, tweak_key), ==, 0);
}

static void dump(QTestState *qts, uint64_t addr, void *buf, size_t len)
{
    g_autofree char *data = NULL;
    gsize got;

    qtest_qmp_assert_success(qts, "{ 'execute': 'mktme-dump', 'arguments':"
                             "  { 'addr': %" PRIu64 ", 'size': %" PRIu64 ","
                             "    'filename': %s } }", addr, (uint64_t)len,
                             tmp_path);
    g_assert(g_file_get_contents(tmp_path, &data, &got, NULL));
    g_assert_cmpint(got, ==, len);
    memcpy(buf, data, len);
}

static void restore(QTestState *qts, uint64_t addr, const void *buf,
                    size_t len)
{
    g_assert(g_file_set_contents(tmp_path, buf, len, NULL));
    qtest_qmp_assert_success(qts, "{ 'execute': 'mktme-restore', 'arguments':"
                             "  { 'addr': %" PRIu64 ", 'filename': %s } }",
                             addr, tmp_path);
}

static QDict *query(QTestState *qts)
{
    return qtest_qmp_assert_success_ref(qts, "{ 'execute': 'query-mktme' }");
}

static int64_t counter(QTestState *qts, const char *name)
{
    QDict *info = query(qts);
    int64_t val = qdict_get_int(info, name);

    qobject_unref(info);
    return val;
}

/* Wait until there have been @n late write-backs */
static void wait_late_writes(QTestState *qts, int64_t n)
{
    int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;

    while (counter(qts, "late-writes") < n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/*
 * The line at LINE, with byte i being 7 * i + 3, encrypted by OpenSSL's
 * EVP_aes_128_xts() and EVP_aes_256_xts(): keys as in init_keys(), the tweak
 * is LINE, little endian.
 */
static const uint8_t cipher_128[64] = {
    0x9a, 0xb6, 0xf0, 0xf5, 0x59, 0xca, 0xfd, 0x07, 0xce, 0x1b, 0x59, 0x1b,
    0xb0, 0x4a, 0x92, 0xc2, 0xa4, 0x86, 0x0e, 0xdf, 0xbb, 0xc2, 0xcb, 0xa0,
    0xba, 0x99, 0xaa, 0x4c, 0x50, 0x87, 0xbb, 0x70, 0x5f, 0x43, 0xe8, 0xb5,
    0xfe, 0x66, 0x0a, 0xba, 0x30, 0x49, 0xdc, 0x49, 0x51, 0xb2, 0x7e, 0x59,
    0x38, 0xc4, 0xa7, 0x62, 0xfc, 0xb3, 0x1f, 0x7f, 0x25, 0x50, 0x27, 0x45,
    0x84, 0x99, 0x25, 0xe8,
};

static const uint8_t cipher_256[64] = {
    0xd5, 0x64, 0xb6, 0x98, 0xd7, 0xad, 0x75, 0xa8, 0x9b, 0xe4, 0x62, 0xd0,
    0xeb, 0xda, 0x69, 0x4b, 0x92, 0xf0, 0x1c, 0x30, 0xd6, 0xf7, 0xf5, 0xb2,
    0x39, 0x07, 0xb4, 0xc4, 0xbb, 0x04, 0x74, 0xef, 0x26, 0xfa, 0x62, 0x5b,
    0xaf, 0x81, 0x32, 0x87, 0xef, 0x26, 0x28, 0x30, 0xa4, 0x76, 0x79, 0xc5,
    0xd7, 0x2c, 0x54, 0x41, 0x4c, 0xba, 0x37, 0xcd, 0x16, 0xa4, 0x53, 0x4a,
    0xe2, 0x67, 0x3b, 0xda,
};

static uint8_t plain[64];

static void store_plain(QTestState *qts, uint64_t addr)
{
    for (int i = 0; i < 64; i += 8) {
        store(qts, 0, addr + i, ldq_le_p(plain + i));
    }
}

static void load_line(QTestState *qts, uint64_t addr, uint8_t *buf)
{
    for (int i = 0; i < 64; i += 8) {
        stq_le_p(buf + i, load(qts, 0, addr + i));
    }
}

static void cpuid(QTestState *qts, uint32_t leaf, uint32_t subleaf, Regs *r)
{
    *r = (Regs) { .rax = leaf, .rcx = subleaf };
    RUN(qts, 0, op_cpuid, r);
}

static void test_enumeration(void)
{
    QTestState *qts = start("", "");
    Regs r;

    cpuid(qts, 7, 0, &r);
    g_assert(r.rcx & (1 << 13));
    g_assert(r.rdx & (1 << 18));
    cpuid(qts, 0, 0, &r);
    g_assert_cmphex(r.rax, >=, 0x1b);
    cpuid(qts, 0x1b, 0, &r);
    g_assert_cmphex(r.rax, ==, 1);
    g_assert_cmphex(r.rbx, ==, 1);
    g_assert_cmphex(r.rcx | r.rdx, ==, 0);
    cpuid(qts, 0x1b, 1, &r);
    g_assert_cmphex(r.rax, ==, 0);
    cpuid(qts, 0x80000008, 0, &r);
    g_assert_cmpint(r.rax & 0xff, ==, PHYS_BITS);

    g_assert_cmphex(rdmsr(qts, 0, MSR_CAPABILITY), ==,
                    5 | 6ULL << 32 | 63ULL << 36);
    g_assert_cmphex(rdmsr(qts, 0, MSR_ACTIVATE), ==,
                    3 | 6ULL << 32 | 5ULL << 48);
    stop(qts);

    /* Other properties */
    qts = start("keyid-bits=4,max-keys=9,aes-xts-128=off,tme-bypass=on", "");
    g_assert_cmphex(rdmsr(qts, 0, MSR_CAPABILITY), ==,
                    4 | 1ULL << 31 | 4ULL << 32 | 9ULL << 36);
    g_assert_cmphex(rdmsr(qts, 0, MSR_ACTIVATE), ==,
                    3 | 2 << 4 | 1ULL << 31 | 4ULL << 32 | 4ULL << 48);
    g_assert_cmpint(pconfig(qts, 0, 9, SET_KEY_DIRECT | AES_256,
                            data_key, tweak_key), ==, 0);
    g_assert_cmpint(pconfig(qts, 0, 10, SET_KEY_DIRECT | AES_256,
                            data_key, tweak_key), ==, 3);
    g_assert_cmpint(pconfig(qts, 0, 1, SET_KEY_DIRECT | AES_128,
                            data_key, tweak_key), ==, 4);
    stop(qts);

    /* An Intel model */
    qts = qtest_initf("-nodefaults -accel tcg -machine q35,mktme=mktme0 "
                      "-m 256 -bios %s -cpu Skylake-Server,phys-bits=46 "
                      "-object x86-mktme,id=mktme0", rom_path);
    cpuid(qts, 7, 0, &r);
    g_assert(r.rcx & (1 << 13));
    g_assert(r.rdx & (1 << 18));
    cpuid(qts, 0x1b, 0, &r);
    g_assert_cmphex(r.rax, ==, 1);
    stop(qts);
}

/* A part of the KeyIDs is TDX's */
static void test_tdx(void)
{
    QTestState *qts = start("keyid-bits=4,tdx-keyid-bits=1", "");
    Regs r = {};
    int k;

    g_assert_cmphex(rdmsr(qts, 0, MSR_CAPABILITY), ==,
                    5 | 4ULL << 32 | 15ULL << 36);
    g_assert_cmphex(rdmsr(qts, 0, MSR_ACTIVATE), ==,
                    3 | 4ULL << 32 | 1ULL << 36 | 5ULL << 48);
    g_assert_cmphex(rdmsr(qts, 0, MSR_PARTITIONING), ==, 7 | 8ULL << 32);
    g_assert_cmphex(wrmsr(qts, 0, MSR_PARTITIONING, 15), ==, GP);
    for (k = 0; k < 16; k++) {
        g_assert_cmpint(pconfig(qts, 0, k, SET_KEY_DIRECT | AES_256,
                                data_key, tweak_key), ==,
                        k >= 1 && k <= 7 ? 0 : 3);
    }

    /* KEYID() is for 6 bits */
    load(qts, 0, map(qts, 0, 0, PAGE | KEYID(7 << 2)));
    r.rdi = map(qts, 0, 0, PAGE | KEYID(8 << 2));
    RUN(qts, 0, op_load, &r);
    g_assert_cmphex(r.vector, ==, PF);
    g_assert_cmphex(r.error & 8, ==, 8);
    stop(qts);

    /* Fewer keys than the bits allow for: the last ones are missing */
    qts = start("keyid-bits=4,tdx-keyid-bits=2,max-keys=9", "");
    g_assert_cmphex(rdmsr(qts, 0, MSR_PARTITIONING), ==, 3 | 6ULL << 32);
    stop(qts);

    /* The guest activates it */
    qts = start("keyid-bits=4,tdx-keyid-bits=2,activate=off", "");
    g_assert_cmphex(rdmsr(qts, 0, MSR_PARTITIONING), ==, 0);
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE,
                          2 | 4ULL << 32 | 3ULL << 36 | 5ULL << 48), ==, GP);
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE,
                          2 | 2ULL << 32 | 2ULL << 36 | 5ULL << 48), ==, GP);
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE,
                          2 | 3ULL << 32 | 1ULL << 36 | 5ULL << 48), ==,
                    NO_EXCEPTION);
    g_assert_cmphex(rdmsr(qts, 0, MSR_PARTITIONING), ==, 3 | 4ULL << 32);
    g_assert_cmpint(pconfig(qts, 0, 3, SET_KEY_DIRECT | AES_256,
                            data_key, tweak_key), ==, 0);
    g_assert_cmpint(pconfig(qts, 0, 4, SET_KEY_DIRECT | AES_256,
                            data_key, tweak_key), ==, 3);
    stop(qts);

    /* None without TDX */
    qts = start("", "");
    g_assert_cmphex(rdmsr(qts, 0, MSR_PARTITIONING), ==, 0);
    stop(qts);
}

static void test_off(void)
{
    QTestState *qts = qtest_initf("-nodefaults -accel tcg -machine q35 -m 256 "
                                  "-bios %s -cpu max,phys-bits=46", rom_path);
    Regs r;

    cpuid(qts, 7, 0, &r);
    g_assert(!(r.rcx & (1 << 13)));
    g_assert(!(r.rdx & (1 << 18)));
    r = (Regs) { .rbx = KEY_PROGRAM };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, UD);
    qobject_unref(qtest_qmp_assert_failure_ref(
                      qts, "{ 'execute': 'query-mktme' }"));
    stop(qts);
}

static void test_activate(void)
{
    QTestState *qts = start("", "");
    const uint64_t activate = 3 | 6ULL << 32 | 5ULL << 48;
    const uint64_t bad[] = {
        activate | 1 << 4,              /* policy: with integrity */
        activate | 1ULL << 49,          /* algorithm: with integrity */
        activate | 1ULL << 31,          /* bypass is not there */
        (activate & ~(0xfULL << 32)) | 7ULL << 32, /* too many bits */
        activate | 1 << 8,              /* reserved */
        activate & ~2ULL,               /* KeyIDs, but not enabled */
    };
    uint64_t va;
    Regs r;

    /* Firmware has locked it */
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE, 3), ==, GP);
    g_assert_cmphex(wrmsr(qts, 0, MSR_CAPABILITY, 5), ==, GP);
    g_assert_cmphex(wrmsr(qts, 0, MSR_EXCLUDE_MASK, 0), ==, GP);
    g_assert_cmphex(wrmsr(qts, 0, MSR_EXCLUDE_BASE, 0), ==, GP);
    stop(qts);

    /* Firmware is the guest's */
    qts = start("activate=off", "");
    g_assert_cmphex(rdmsr(qts, 0, MSR_ACTIVATE), ==, 0);
    r = (Regs) { .rbx = KEY_PROGRAM };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, GP);
    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE, bad[i]), ==, GP);
        g_assert_cmphex(rdmsr(qts, 0, MSR_ACTIVATE), ==, 0);
    }
    /* The page at PAGE + 4 KiB is not to be encrypted */
    g_assert_cmphex(wrmsr(qts, 0, MSR_EXCLUDE_BASE, PAGE + 0x1000), ==,
                    NO_EXCEPTION);
    g_assert_cmphex(wrmsr(qts, 0, MSR_EXCLUDE_MASK,
                          (MAKE_64BIT_MASK(12, PHYS_BITS - 12)) | 1 << 11), ==,
                    NO_EXCEPTION);
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE, activate & ~1ULL), ==,
                    NO_EXCEPTION);
    g_assert_cmphex(rdmsr(qts, 0, MSR_ACTIVATE), ==, activate);
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE, activate), ==, GP);

    store(qts, 0, PAGE, 0x1234);
    store(qts, 0, PAGE + 0x1000, 0x1234);
    dump(qts, PAGE, &va, 8);
    g_assert_cmphex(va, !=, 0x1234);
    dump(qts, PAGE + 0x1000, &va, 8);
    g_assert_cmphex(va, ==, 0x1234);

    set_key(qts, 0, 5);
    va = map(qts, 0, 0, PAGE | KEYID(5));
    store(qts, 0, va, 0x5678);
    g_assert_cmphex(load(qts, 0, va), ==, 0x5678);
    stop(qts);
}

static void test_pconfig_failures(void)
{
    QTestState *qts = start("", "");
    static const struct {
        uint16_t keyid;
        uint32_t ctrl;
        uint64_t rax;
    } cases[] = {
        { 5, 4 | AES_128, 1 },
        { 5, 0xff | AES_128, 1 },
        { 0, SET_KEY_DIRECT | AES_128, 3 },
        { 64, SET_KEY_DIRECT | AES_128, 3 },
        { 0xffff, CLEAR_KEY | AES_128, 3 },
        { 5, SET_KEY_DIRECT, 4 },
        { 5, SET_KEY_DIRECT | AES_128 | AES_256, 4 },
        { 5, SET_KEY_RANDOM | 2 << 8, 4 },
        { 5, CLEAR_KEY, 4 },
        { 5, NO_ENCRYPT | 0x8000 << 8, 4 },
        { 5, SET_KEY_DIRECT | AES_128, 0 },
        { 63, SET_KEY_RANDOM | AES_256, 0 },
        { 63, CLEAR_KEY | AES_256, 0 },
        { 63, NO_ENCRYPT | AES_256, 0 },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_assert_cmpint(pconfig(qts, 0, cases[i].keyid, cases[i].ctrl,
                                data_key, tweak_key), ==, cases[i].rax);
    }
    g_assert_cmpint(counter(qts, "keys-programmed"), ==, 4);
    stop(qts);
}

static void test_pconfig_faults(void)
{
    static const uint8_t prefixes[] = { 0xf0, 0xf2, 0xf3, 0x66 };
    /* Go to CPL 3; the code there is after the iretq */
    static const uint8_t op_user[] = {
        0x6a, 0x23,                         /* push $UDATA */
        0x68, 0x00, 0x80, 0x03, 0x00,       /* push $USER_STACK */
        0x6a, 0x02,                         /* push $2 */
        0x6a, 0x2b,                         /* push $UCODE */
        0x68, 0x12, 0x00, 0x02, 0x00,       /* push $CODE + 0x12 */
        0x48, 0xcf,                         /* iretq */
        0x0f, 0x01, 0xc5,                   /* pconfig */
    };
    QTestState *qts = start("", "");
    uint8_t buf[256 + 192], op[8];
    Regs r;

    key_program(buf, 5, SET_KEY_DIRECT | AES_128, data_key, tweak_key);
    qtest_memwrite(qts, KEY_PROGRAM, buf, 192);

    for (int i = 0; i < ARRAY_SIZE(prefixes); i++) {
        op[0] = prefixes[i];
        memcpy(op + 1, op_pconfig, sizeof(op_pconfig));
        r = (Regs) { .rbx = KEY_PROGRAM };
        run(qts, 0, op, 1 + sizeof(op_pconfig), &r);
        g_assert_cmphex(r.vector, ==, UD);
    }

    r = (Regs) { .rbx = KEY_PROGRAM };
    RUN(qts, 0, op_user, &r);
    g_assert_cmphex(r.vector, ==, UD);
    g_assert_cmphex(r.rip, ==, CODE + 0x12);

    /* Leaf */
    r = (Regs) { .rax = 1, .rbx = KEY_PROGRAM };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, GP);
    g_assert_cmphex(r.error, ==, 0);

    /* Alignment */
    r = (Regs) { .rbx = KEY_PROGRAM + 64 };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, GP);

    /* Reserved bits */
    for (int i = 5; i < 64; i++) {
        buf[i] = i == 63 ? 0x80 : 1;
        qtest_memwrite(qts, KEY_PROGRAM, buf, 192);
        buf[i] = 0;
        r = (Regs) { .rbx = KEY_PROGRAM };
        RUN(qts, 0, op_pconfig, &r);
        g_assert_cmphex(r.vector, ==, GP);
    }

    /* Not mapped */
    r = (Regs) { .rbx = WINDOW + 0x100000 };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, PF);
    g_assert_cmphex(r.cr2, ==, WINDOW + 0x100000);
    g_assert_cmphex(r.error, ==, 0);

    g_assert_cmpint(counter(qts, "keys-programmed"), ==, 0);
    stop(qts);
}

static void test_ciphertext(void)
{
    QTestState *qts = start("tme-bypass=on", "");
    uint64_t va, va0;
    uint8_t buf[64];

    set_key(qts, 0, 5);
    g_assert_cmpint(pconfig(qts, 0, 6, SET_KEY_DIRECT | AES_256,
                            data_key, tweak_key), ==, 0);
    va0 = map(qts, 0, 0, PAGE) + 0x40;

    va = map(qts, 0, 1, PAGE | KEYID(5)) + 0x40;
    store_plain(qts, va);
    dump(qts, LINE, buf, 64);
    g_assert_cmpmem(buf, 64, cipher_128, 64);
    /* KeyID 0 is not encrypted here: a CPU sees what is in DRAM */
    load_line(qts, va0, buf);
    g_assert_cmpmem(buf, 64, cipher_128, 64);
    load_line(qts, va, buf);
    g_assert_cmpmem(buf, 64, plain, 64);

    va = map(qts, 0, 1, PAGE | KEYID(6)) + 0x40;
    store_plain(qts, va);
    load_line(qts, va0, buf);
    g_assert_cmpmem(buf, 64, cipher_256, 64);
    dump(qts, LINE, buf, 64);
    g_assert_cmpmem(buf, 64, cipher_256, 64);
    /* Part of a line, and across lines */
    dump(qts, LINE + 61, buf, 1);
    g_assert_cmphex(buf[0], ==, cipher_256[61]);
    dump(qts, LINE - 30, buf, 64);
    g_assert_cmpmem(buf + 30, 34, cipher_256, 34);

    /* What is under KeyID 0 is there in plaintext */
    store_plain(qts, va0);
    dump(qts, LINE, buf, 64);
    g_assert_cmpmem(buf, 64, plain, 64);
    stop(qts);
}

static void test_views(void)
{
    QTestState *qts = start("", "");
    uint64_t va0, va5, va6, va7, pattern = ldq_le_p(plain);
    uint8_t buf[64], buf2[64];
    Regs r;

    va0 = map(qts, 0, 0, PAGE);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    va6 = map(qts, 0, 6, PAGE | KEYID(6));
    va7 = map(qts, 0, 7, PAGE | KEYID(7));

    /* KeyIDs that were never programmed are as KeyID 0, which is encrypted */
    store(qts, 0, va0, pattern);
    g_assert_cmphex(load(qts, 0, va5), ==, pattern);
    g_assert_cmphex(load(qts, 0, va0), ==, pattern);
    dump(qts, PAGE, buf, 64);
    g_assert_cmphex(ldq_le_p(buf), !=, pattern);

    set_key(qts, 0, 5);
    g_assert_cmpint(pconfig(qts, 0, 6, SET_KEY_RANDOM | AES_256,
                            data_key, tweak_key), ==, 0);
    g_assert_cmpint(pconfig(qts, 0, 7, NO_ENCRYPT | AES_128,
                            data_key, tweak_key), ==, 0);

    /* A new key does not change what DRAM holds */
    dump(qts, PAGE, buf2, 64);
    g_assert_cmpmem(buf, 64, buf2, 64);
    g_assert_cmphex(load(qts, 0, va7), ==, ldq_le_p(buf));
    g_assert_cmphex(load(qts, 0, va5), !=, pattern);
    g_assert_cmphex(load(qts, 0, va6), !=, pattern);
    g_assert_cmphex(load(qts, 0, va6), !=, load(qts, 0, va5));
    g_assert_cmphex(load(qts, 0, va0), ==, pattern);

    store(qts, 0, va6, pattern);
    g_assert_cmphex(load(qts, 0, va5), !=, pattern);
    g_assert_cmphex(load(qts, 0, va0), !=, pattern);
    g_assert_cmphex(load(qts, 0, va6), ==, pattern);
    store(qts, 0, va7, pattern);
    dump(qts, PAGE, buf, 8);
    g_assert_cmphex(ldq_le_p(buf), ==, pattern);

    /* One instruction that uses both: encrypt in place */
    for (int i = 0; i < 64; i += 8) {
        store(qts, 0, va7 + i, ldq_le_p(plain + i));
    }
    r = (Regs) { .rsi = va7, .rdi = va5, .rcx = 64 };
    RUN(qts, 0, op_rep_movsb, &r);
    /* The other views change below its feet, but it comes to an end */
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmpint(r.rcx, ==, 0);

    /* Erase a key: the data is gone, unless someone has the key */
    store(qts, 0, va5, pattern);
    g_assert_cmphex(load(qts, 0, va5), ==, pattern);
    g_assert_cmpint(pconfig(qts, 0, 5, CLEAR_KEY | AES_128,
                            data_key, tweak_key), ==, 0);
    g_assert_cmphex(load(qts, 0, va5), !=, pattern);
    set_key(qts, 0, 5);
    g_assert_cmphex(load(qts, 0, va5), ==, pattern);
    g_assert_cmpint(pconfig(qts, 0, 5, SET_KEY_RANDOM | AES_128,
                            data_key, tweak_key), ==, 0);
    g_assert_cmphex(load(qts, 0, va5), !=, pattern);
    stop(qts);
}

static void test_code(void)
{
    /* mov $imm32, %eax; ret */
    const uint64_t ret1 = 0xc300000001b8, ret2 = 0xc300000002b8;
    QTestState *qts = start("", "");
    uint64_t va5, va6;
    unsigned tries = 0;
    uint8_t opcode;
    Regs r;

    set_key(qts, 0, 5);
    g_assert_cmpint(pconfig(qts, 0, 6, SET_KEY_RANDOM | AES_128,
                            data_key, tweak_key), ==, 0);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    va6 = map(qts, 0, 6, PAGE | KEYID(6));

    store(qts, 0, va5, ret1);
    r = (Regs) { .rdi = va5 };
    RUN(qts, 0, op_call_rdi, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex(r.rax, ==, 1);

    /* Through another KeyID, with other code at the same place */
    store(qts, 0, va6, ret2);
    r = (Regs) { .rdi = va6 };
    RUN(qts, 0, op_call_rdi, &r);
    g_assert_cmphex(r.rax, ==, 2);

    /*
     * What was translated is not executed through another KeyID. No store
     * may tell that the code has changed: look for a key that makes it begin
     * with what is no instruction.
     */
    store(qts, 0, va5, ret1);
    r = (Regs) { .rdi = va5 };
    RUN(qts, 0, op_call_rdi, &r);
    g_assert_cmphex(r.rax, ==, 1);
    do {
        uint8_t key[32] = { tries, tries >> 8 };

        tries++;
        g_assert_cmpint(tries, <, 10000);
        g_assert_cmpint(pconfig(qts, 0, 6, SET_KEY_DIRECT | AES_128, key,
                                tweak_key), ==, 0);
        opcode = load(qts, 0, va6);
        /* Run it again, in view of KeyID 5 */
        r = (Regs) { .rdi = va5 };
        RUN(qts, 0, op_call_rdi, &r);
        g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
        g_assert_cmphex(r.rax, ==, 1);
    } while (opcode != 0x06 && opcode != 0x0e && opcode != 0x16 &&
             opcode != 0x1e && opcode != 0x27 && opcode != 0x2f &&
             opcode != 0x37 && opcode != 0x3f && opcode != 0x60);
    r = (Regs) { .rdi = va6 };
    RUN(qts, 0, op_call_rdi, &r);
    g_assert_cmphex(r.vector, ==, UD);

    /* Code that crosses from a page to one that has to come into view */
    map(qts, 0, 9, (PAGE + 0x1000) | KEYID(5));
    map(qts, 0, 10, PAGE | KEYID(5));
    store(qts, 0, WINDOW + 10 * 0x1000, 0x90c3000000);
    store(qts, 0, WINDOW + 9 * 0x1000 + 0xff8, 0x07b8909090909090);
    load(qts, 0, va6);
    r = (Regs) { .rdi = WINDOW + 9 * 0x1000 + 0xff8 };
    RUN(qts, 0, op_call_rdi, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex(r.rax, ==, 7);
    stop(qts);
}

static void test_attack(void)
{
    QTestState *qts = start("", "");
    uint8_t old[4096], now[4096];
    uint64_t va5;

    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    store(qts, 0, va5, 1);
    dump(qts, PAGE, old, sizeof(old));
    store(qts, 0, va5, 2);
    dump(qts, PAGE, now, sizeof(now));
    /* Of one 16 byte block only, which is a weakness of XTS */
    g_assert(memcmp(old, now, 16));
    g_assert(!memcmp(old + 16, now + 16, sizeof(now) - 16));

    /* Replay */
    restore(qts, PAGE, old, sizeof(old));
    g_assert_cmphex(load(qts, 0, va5), ==, 1);
    restore(qts, PAGE + 3, now + 3, 13);
    dump(qts, PAGE, now, sizeof(now));
    g_assert(!memcmp(old, now, 3));
    restore(qts, PAGE, old, sizeof(old));

    /* Tamper: garbage, but only in that block */
    store(qts, 0, va5 + 16, 3);
    qtest_qmp_assert_success(qts, "{ 'execute': 'mktme-flip-bit', "
                             "'arguments': { 'addr': %d, 'bit': 3 } }",
                             PAGE + 5);
    g_assert_cmphex(load(qts, 0, va5), !=, 1);
    g_assert_cmphex(load(qts, 0, va5 + 16), ==, 3);
    qtest_qmp_assert_success(qts, "{ 'execute': 'mktme-flip-bit', "
                             "'arguments': { 'addr': %d, 'bit': 3 } }",
                             PAGE + 5);
    g_assert_cmphex(load(qts, 0, va5), ==, 1);

    /* Not DRAM */
    qobject_unref(qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'mktme-dump', 'arguments':"
        "  { 'addr': %d, 'size': 4096, 'filename': %s } }", 256 << 20,
        tmp_path));
    qobject_unref(qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'mktme-flip-bit', "
        "'arguments': { 'addr': %d, 'bit': 8 } }", PAGE));
    stop(qts);
}

static void test_inject(void)
{
    QTestState *qts = start("", "");

    qtest_qmp_assert_success(qts, "{ 'execute': 'mktme-inject-failure', "
                             "'arguments': { 'failure': 'device-busy', "
                             "'count': 2 } }");
    /* One that fails anyway does not count */
    g_assert_cmpint(pconfig(qts, 0, 0, AES_128, data_key, tweak_key), ==, 3);
    g_assert_cmpint(pconfig(qts, 0, 5, AES_128, data_key, tweak_key), ==, 5);
    g_assert_cmpint(pconfig(qts, 0, 5, AES_128, data_key, tweak_key), ==, 5);
    g_assert_cmpint(pconfig(qts, 0, 5, AES_128, data_key, tweak_key), ==, 0);
    qtest_qmp_assert_success(qts, "{ 'execute': 'mktme-inject-failure', "
                             "'arguments': { 'failure': 'entropy-error', "
                             "'package': 0 } }");
    g_assert_cmpint(pconfig(qts, 0, 5, SET_KEY_RANDOM | AES_128,
                            data_key, tweak_key), ==, 2);
    g_assert_cmpint(pconfig(qts, 0, 5, SET_KEY_RANDOM | AES_128,
                            data_key, tweak_key), ==, 0);
    qobject_unref(qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'mktme-inject-failure', "
        "'arguments': { 'failure': 'device-busy', 'package': 1 } }"));
    stop(qts);
}

static void test_reset(void)
{
    QTestState *qts = start("", "");
    uint8_t before[64], after[64];
    uint64_t va5;

    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    store(qts, 0, va5, 0x1234);
    dump(qts, PAGE, before, sizeof(before));

    qtest_qmp_assert_success(qts, "{ 'execute': 'stop' }");
    qtest_system_reset(qts);
    qtest_writeq(qts, MBOX + 0x70, 0);
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");

    dump(qts, PAGE, after, sizeof(after));
    g_assert_cmpmem(before, 64, after, 64);
    g_assert_cmphex(rdmsr(qts, 0, MSR_ACTIVATE) & 3, ==, 3);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    g_assert_cmphex(load(qts, 0, va5), !=, 0x1234);
    g_assert_cmphex(load(qts, 0, va5), ==, load(qts, 0, PAGE));
    stop(qts);
}

static void test_migration(void)
{
    QTestState *qts = start("", "");
    QDict *err = qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'migrate', 'arguments':"
        "  { 'uri': 'exec:cat >/dev/null' } }");

    g_autofree char *out = NULL;

    g_assert(strstr(qdict_get_str(err, "desc"), "x86-mktme"));
    qobject_unref(err);
    out = qtest_hmp(qts, "savevm now");
    g_assert(strstr(out, "non-migratable device 'x86-mktme'"));
    stop(qts);
}

static void test_guest_dump(void)
{
    QTestState *qts = start("", "");
    g_autofree char *uri = g_strdup_printf("file:%s", tmp_path);
    QDict *err = qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'dump-guest-memory', 'arguments':"
        "  { 'paging': false, 'protocol': %s } }", uri);

    g_assert(strstr(qdict_get_str(err, "desc"), "memory is encrypted"));
    qobject_unref(err);
    stop(qts);
}

/*
 * The rules for caches
 */

typedef struct CacheTest {
    QTestState *qts;
    uint64_t va0, va5, va6;
} CacheTest;

static void cache_start(CacheTest *t, const char *mode)
{
    g_autofree char *object = g_strdup_printf("cache=%s", mode);

    t->qts = start(object, "");
    set_key(t->qts, 0, 5);
    g_assert_cmpint(pconfig(t->qts, 0, 6, SET_KEY_RANDOM | AES_256,
                            data_key, tweak_key), ==, 0);
    t->va0 = map(t->qts, 0, 0, PAGE);
    t->va5 = map(t->qts, 0, 5, PAGE | KEYID(5));
    t->va6 = map(t->qts, 0, 6, PAGE | KEYID(6));
}

/* Expects exactly one violation, which ends the test */
static void cache_stop(CacheTest *t, const char *violation, uint64_t lines,
                       unsigned dirty_keyid, unsigned keyid)
{
    QTestState *qts = t->qts;
    bool reuse = g_str_equal(violation, "key-reuse");
    QDict *event, *data;

    g_assert_cmpint(counter(qts, "violations"), ==, reuse ? 0 : 1);
    g_assert_cmpint(counter(qts, "reuse-violations"), ==, reuse ? 1 : 0);
    event = qtest_qmp_eventwait_ref(qts, "MKTME_VIOLATION");
    data = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(data, "violation"), ==, violation);
    g_assert_cmphex(qdict_get_int(data, "addr"), ==, PAGE);
    g_assert_cmphex(qdict_get_int(data, "lines"), ==, lines);
    g_assert_cmpint(qdict_get_int(data, "dirty-keyid"), ==, dirty_keyid);
    g_assert_cmpint(qdict_get_int(data, "keyid"), ==, keyid);
    if (g_str_equal(violation, "device-access")) {
        g_assert(!qdict_haskey(data, "rip"));
    } else {
        g_assert_cmphex(qdict_get_int(data, "rip"), ==, CODE);
    }
    qobject_unref(event);
    stop(qts);
}

static void cache_stop_clean(CacheTest *t)
{
    g_assert_cmpint(counter(t->qts, "violations"), ==, 0);
    g_assert_cmpint(counter(t->qts, "reuse-violations"), ==, 0);
    g_assert_cmpint(counter(t->qts, "late-writes"), ==, 0);
    stop(t->qts);
}

static void test_cache_right(const void *mode)
{
    static const struct {
        const uint8_t *op;
        size_t len;
    } ops[] = {
        { op_clflush, sizeof(op_clflush) },
        { op_clflushopt, sizeof(op_clflushopt) },
        { op_clwb, sizeof(op_clwb) },
        { op_wbinvd, sizeof(op_wbinvd) },
        { op_wbnoinvd, sizeof(op_wbnoinvd) },
    };
    CacheTest t;

    cache_start(&t, mode);
    for (int i = 0; i < ARRAY_SIZE(ops); i++) {
        store(t.qts, 0, t.va0, i);
        flush(t.qts, 0, ops[i].op, ops[i].len, t.va0);
        store(t.qts, 0, t.va5, i);
        flush(t.qts, 0, ops[i].op, ops[i].len, t.va5);
        g_assert_cmpint(load(t.qts, 0, t.va0), !=, i);
        g_assert_cmpint(load(t.qts, 0, t.va5), ==, i);
        load(t.qts, 0, t.va6);
        set_key(t.qts, 0, 5);
    }
    g_assert_cmpint(counter(t.qts, "view-switches"), >, 10);
    cache_stop_clean(&t);
}

static void test_cache_missing_flush(const void *mode)
{
    CacheTest t;

    cache_start(&t, mode);
    store(t.qts, 0, t.va5 + 0x80, 1);
    load(t.qts, 0, t.va6);
    cache_stop(&t, "cpu-access", 1 << 2, 5, 6);
}

/* Also a KeyID that means the same key */
static void test_cache_same_key(const void *mode)
{
    CacheTest t;

    cache_start(&t, mode);
    store(t.qts, 0, t.va0, 1);
    load(t.qts, 0, map(t.qts, 0, 7, PAGE | KEYID(7)));
    cache_stop(&t, "cpu-access", 1, 0, 7);
}

static void test_cache_wrong_keyid(const void *mode)
{
    CacheTest t;

    cache_start(&t, mode);
    store(t.qts, 0, t.va5, 1);
    FLUSH(t.qts, 0, op_clflush, t.va6);
    FLUSH(t.qts, 0, op_clflush, t.va0);
    g_assert_cmpint(counter(t.qts, "violations"), ==, 0);
    load(t.qts, 0, t.va6);
    cache_stop(&t, "cpu-access", 1, 5, 6);
}

static void test_cache_partial(const void *mode)
{
    CacheTest t;

    cache_start(&t, mode);
    store(t.qts, 0, t.va5 + 60, 1);     /* two lines */
    FLUSH(t.qts, 0, op_clflush, t.va5 + 60);
    load(t.qts, 0, t.va6);
    cache_stop(&t, "cpu-access", 1 << 1, 5, 6);
}

static void test_cache_store_after(const void *mode)
{
    CacheTest t;

    cache_start(&t, mode);
    /* All lines: stores need not be seen any more */
    for (int i = 0; i < 64; i++) {
        store(t.qts, 0, t.va5 + i * 64, i);
    }
    for (int i = 0; i < 64; i++) {
        FLUSH(t.qts, 0, op_clflush, t.va5 + i * 64);
    }
    /* The same value again */
    store(t.qts, 0, t.va5 + 7 * 64, 7);
    load(t.qts, 0, t.va6);
    cache_stop(&t, "cpu-access", 1 << 7, 5, 6);
}

static void test_cache_reuse(const void *mode)
{
    CacheTest t;

    cache_start(&t, mode);
    store(t.qts, 0, t.va5, 1);
    set_key(t.qts, 0, 5);
    cache_stop(&t, "key-reuse", 1, 5, 5);
}

static void cache_store_often(CacheTest *t, unsigned count)
{
    Regs r = { .rdi = t->va5, .rcx = count };

    RUN(t->qts, 0, op_store_often, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
}

static void cache_flush_page(CacheTest *t)
{
    for (int i = 0; i < 64; i++) {
        FLUSH(t->qts, 0, op_clflush, t->va5 + i * 64);
    }
}

/* Leave the view, and return: how many violations have there been? */
static int64_t cache_leave(CacheTest *t)
{
    load(t->qts, 0, t->va6);
    load(t->qts, 0, t->va5);
    /* In strict mode lines come back */
    cache_flush_page(t);
    return counter(t->qts, "violations");
}

/* A page table is stored to where an entry's accessed bit is set, not else */
static void test_cache_page_table(const void *mode)
{
    CacheTest t;
    uint64_t pt5;

    cache_start(&t, mode);
    pt5 = map(t.qts, 0, 8, PT | KEYID(5) | 0x20);
    load(t.qts, 0, t.va0);
    FLUSH(t.qts, 0, op_wbinvd, 0);
    FLUSH(t.qts, 0, op_invlpg, t.va0);
    load(t.qts, 0, t.va0);
    load(t.qts, 0, pt5);
    g_assert_cmpint(counter(t.qts, "violations"), ==, 0);

    store(t.qts, 0, PT, PAGE | 7);
    FLUSH(t.qts, 0, op_wbinvd, 0);
    FLUSH(t.qts, 0, op_invlpg, t.va0);
    load(t.qts, 0, t.va0);
    load(t.qts, 0, pt5);
    g_assert_cmpint(counter(t.qts, "violations"), ==, 1);
    stop(t.qts);
}

/* Many stores to few lines: the others are taken as dirty, if one lets it */
static void test_cache_hot(const void *mode)
{
    g_autofree char *exact = g_strdup_printf("%s,cache-exact=on",
                                             (const char *)mode);
    CacheTest t;

    cache_start(&t, mode);
    load(t.qts, 0, t.va5);
    /* What counts is how many there are since the last time */
    for (int i = 0; i < 3; i++) {
        cache_store_often(&t, 1000);
        FLUSH(t.qts, 0, op_clflush, t.va5);
        g_assert_cmpint(cache_leave(&t), ==, 0);
    }
    cache_store_often(&t, 1100);
    FLUSH(t.qts, 0, op_clflush, t.va5);
    g_assert_cmpint(cache_leave(&t), ==, 1);

    /* A guest that writes back pages as a whole is not blamed */
    cache_store_often(&t, 1100);
    cache_flush_page(&t);
    g_assert_cmpint(cache_leave(&t), ==, 1);

    /* Stores after that are seen again */
    cache_store_often(&t, 1100);
    cache_flush_page(&t);
    store(t.qts, 0, t.va5, 0);
    g_assert_cmpint(cache_leave(&t), ==, 2);
    stop(t.qts);

    cache_start(&t, exact);
    load(t.qts, 0, t.va5);
    cache_store_often(&t, 20000);
    FLUSH(t.qts, 0, op_clflush, t.va5);
    g_assert_cmpint(cache_leave(&t), ==, 0);
    store(t.qts, 0, t.va5 + 0x80, 1);
    cache_store_often(&t, 20000);
    FLUSH(t.qts, 0, op_clflush, t.va5);
    g_assert_cmpint(cache_leave(&t), ==, 1);
    stop(t.qts);
}

/* The trace says who did it */
static void test_cache_trace(void)
{
    g_autofree char *args = g_strdup_printf("-trace mktme_violation -D %s",
                                            tmp_path);
    g_autofree char *log = NULL, *line = NULL;
    QTestState *qts = start("cache=report", args);
    uint64_t va5, va6;

    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    va6 = map(qts, 0, 6, PAGE | KEYID(6));
    store(qts, 0, va5 + 0x80, 1);
    load(qts, 0, va6);
    stop(qts);
    line = g_strdup_printf("mktme_violation cpu-access: page 0x%x lines 0x4 "
                           "dirty under KeyID 5, KeyID 6 now, rip 0x%x\n",
                           PAGE, CODE);
    g_assert(g_file_get_contents(tmp_path, &log, NULL, NULL));
    g_assert(strstr(log, line));
}

/*
 * Lose a store to a line that is written back late, by a flush that comes too
 * late or by itself. The line goes its way from the moment on in which the
 * page changes views: where that is before the store, try again.
 */
static void cache_lose_store(CacheTest *t, bool flush_late)
{
    int tries = 0;

    do {
        int64_t late = counter(t->qts, "late-writes");

        g_assert_cmpint(tries++, <, 1000);
        FLUSH(t->qts, 0, op_wbinvd, 0);
        store(t->qts, 0, t->va5, 0x1111);
        store(t->qts, 0, t->va6, 0x2222);   /* KeyID 5 was not flushed */
        if (flush_late) {
            FLUSH(t->qts, 0, op_clflush, t->va5);
            g_assert_cmpint(counter(t->qts, "late-writes"), ==, late + 1);
        }
        wait_late_writes(t->qts, late + 1);
        g_assert_cmpint(counter(t->qts, "stale-lines"), ==, 0);
    } while (load(t->qts, 0, t->va6) == 0x2222);
}

/* What the hardware does to those who break the rules */
static void test_cache_strict(void)
{
    CacheTest t;

    cache_start(&t, "strict");
    cache_lose_store(&t, true);
    FLUSH(t.qts, 0, op_clflush, t.va6);
    g_assert_cmphex(load(t.qts, 0, t.va5), ==, 0x1111);
    stop(t.qts);

    /* It happens by itself as well */
    cache_start(&t, "strict");
    cache_lose_store(&t, false);
    stop(t.qts);

    /* A line under the old key is written with the new one */
    cache_start(&t, "strict");
    store(t.qts, 0, t.va5, 0x1111);
    g_assert_cmpint(pconfig(t.qts, 0, 5, SET_KEY_DIRECT | AES_256, data_key,
                            tweak_key), ==, 0);
    g_assert_cmpint(counter(t.qts, "reuse-violations"), ==, 1);
    wait_late_writes(t.qts, 1);
    g_assert_cmphex(load(t.qts, 0, t.va5), ==, 0x1111);
    set_key(t.qts, 0, 5);
    g_assert_cmphex(load(t.qts, 0, t.va5), !=, 0x1111);
    stop(t.qts);

    /* Not with cache=report */
    cache_start(&t, "report");
    store(t.qts, 0, t.va5, 0x1111);
    store(t.qts, 0, t.va6, 0x2222);
    g_usleep(20 * 1000);
    g_assert_cmphex(load(t.qts, 0, t.va6), ==, 0x2222);
    g_assert_cmpint(counter(t.qts, "violations"), ==, 1);
    stop(t.qts);
}

/*
 * Devices. The "edu" device copies from and to memory.
 */

#define EDU_BUFFER 0x40000

static void edu_dma(QTestState *qts, QPCIDevice *dev, QPCIBar bar,
                    uint64_t src, uint64_t dst, unsigned len, bool to_memory)
{
    qpci_io_writeq(dev, bar, 0x80, src);
    qpci_io_writeq(dev, bar, 0x88, dst);
    qpci_io_writeq(dev, bar, 0x90, len);
    qpci_io_writeq(dev, bar, 0x98, 1 | (to_memory ? 2 : 0));
    while (qpci_io_readq(dev, bar, 0x98) & 1) {
        g_usleep(1000);
    }
}

static void test_dma(void)
{
    QTestState *qts = start("cache=report",
                            "-device edu,addr=04.0,dma_mask=0x3fffffffffff");
    QPCIBus *bus = qpci_new_pc(qts, NULL);
    QPCIDevice *dev = qpci_device_find(bus, QPCI_DEVFN(4, 0));
    uint64_t va0, va5;
    uint8_t buf[64];
    QPCIBar bar;

    g_assert(dev);
    qpci_device_enable(dev);
    bar = qpci_iomap(dev, 0, NULL);

    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, PAGE | KEYID(5)) + 0x40;
    va0 = map(qts, 0, 0, PAGE) + 0x40;
    store_plain(qts, va5);

    /* With the right KeyID: plaintext */
    edu_dma(qts, dev, bar, LINE | KEYID(5), EDU_BUFFER, 64, false);
    edu_dma(qts, dev, bar, EDU_BUFFER, PAGE + 0x2000, 64, true);
    load_line(qts, PAGE + 0x2000, buf);
    g_assert_cmpmem(buf, 64, plain, 64);
    g_assert_cmpint(counter(qts, "violations"), ==, 0);

    /* With KeyID 0: what KeyID 0 decrypts; the line should be flushed first */
    edu_dma(qts, dev, bar, LINE, EDU_BUFFER, 64, false);
    g_assert_cmpint(counter(qts, "violations"), ==, 1);
    edu_dma(qts, dev, bar, EDU_BUFFER, PAGE + 0x2000, 64, true);
    FLUSH(qts, 0, op_clflush, va5);
    load_line(qts, va0, buf);
    for (int i = 0; i < 64; i += 8) {
        g_assert_cmphex(load(qts, 0, PAGE + 0x2000 + i), ==, ldq_le_p(buf + i));
    }
    g_assert(memcmp(buf, plain, 64));
    g_assert_cmpint(counter(qts, "violations"), ==, 1);

    /* Write through both: the page is in view of KeyID 0 now */
    edu_dma(qts, dev, bar, PAGE + 0x2000, EDU_BUFFER, 64, false);
    edu_dma(qts, dev, bar, EDU_BUFFER, LINE | KEYID(5), 64, true);
    load_line(qts, va5, buf);
    for (int i = 0; i < 64; i += 8) {
        g_assert_cmphex(load(qts, 0, PAGE + 0x2000 + i), ==, ldq_le_p(buf + i));
    }
    FLUSH(qts, 0, op_wbinvd, 0);
    edu_dma(qts, dev, bar, PAGE + 0x2000, EDU_BUFFER, 64, false);
    edu_dma(qts, dev, bar, EDU_BUFFER, LINE, 64, true);
    FLUSH(qts, 0, op_clflush, va0);
    load_line(qts, va5, buf);
    g_assert_cmpmem(buf, 64, plain, 64);

    /* Lines that a device has written may be dirty too */
    FLUSH(qts, 0, op_wbinvd, 0);
    g_assert_cmpint(counter(qts, "violations"), ==, 1);
    load(qts, 0, va5);
    edu_dma(qts, dev, bar, EDU_BUFFER, LINE | KEYID(5), 64, true);
    load(qts, 0, va0);
    g_assert_cmpint(counter(qts, "violations"), ==, 2);

    g_free(dev);
    qpci_free_pc(bus);
    stop(qts);
}

typedef struct EduTest {
    QTestState *qts;
    QPCIBus *bus;
    QPCIDevice *dev;
    QPCIBar bar;
    uint64_t va0, va5;  /* of LINE, which is in view of KeyID 0 */
} EduTest;

static void edu_start(EduTest *t, const char *mode)
{
    g_autofree char *object = g_strdup_printf("cache=%s", mode);

    t->qts = start(object, "-device edu,addr=04.0,dma_mask=0x3fffffffffff");
    t->bus = qpci_new_pc(t->qts, NULL);
    t->dev = qpci_device_find(t->bus, QPCI_DEVFN(4, 0));
    g_assert(t->dev);
    qpci_device_enable(t->dev);
    t->bar = qpci_iomap(t->dev, 0, NULL);
    set_key(t->qts, 0, 5);
    t->va5 = map(t->qts, 0, 5, PAGE | KEYID(5)) + 0x40;
    t->va0 = map(t->qts, 0, 0, PAGE) + 0x40;
    /* What it writes from now on */
    store_plain(t->qts, PAGE + 0x2000);
    edu_dma(t->qts, t->dev, t->bar, PAGE + 0x2000, EDU_BUFFER, 64, false);
    load(t->qts, 0, t->va0);
}

static void edu_write(EduTest *t, uint64_t addr)
{
    edu_dma(t->qts, t->dev, t->bar, EDU_BUFFER, addr, 64, true);
}

static void edu_stop(EduTest *t, int64_t violations, int64_t reuse)
{
    g_assert_cmpint(counter(t->qts, "violations"), ==, violations);
    g_assert_cmpint(counter(t->qts, "reuse-violations"), ==, reuse);
    g_free(t->dev);
    qpci_free_pc(t->bus);
    stop(t->qts);
}

/* Lines that a device writes are dirty under its KeyID, in whatever view */
static void test_dma_dirty(const void *mode)
{
    bool strict = g_str_equal(mode, "strict");
    uint8_t buf[64];
    EduTest t;

    /* Flushed under that KeyID: right, also before the key is replaced */
    edu_start(&t, mode);
    edu_write(&t, LINE | KEYID(5));
    FLUSH(t.qts, 0, op_clflush, t.va5);
    load_line(t.qts, t.va0, buf);
    g_assert(memcmp(buf, plain, 64));
    edu_write(&t, LINE | KEYID(5));
    FLUSH(t.qts, 0, op_clflush, t.va5);
    set_key(t.qts, 0, 5);
    load_line(t.qts, t.va5, buf);
    g_assert_cmpmem(buf, 64, plain, 64);
    edu_stop(&t, 0, 0);

    /* Not flushed, or under another one */
    edu_start(&t, mode);
    edu_write(&t, LINE | KEYID(5));
    FLUSH(t.qts, 0, op_clflush, t.va0);
    g_assert_cmpint(counter(t.qts, "violations"), ==, 0);
    store(t.qts, 0, t.va0, 0x1111);
    FLUSH(t.qts, 0, op_clflush, t.va0);
    if (strict) {
        /* Over what the CPU has stored */
        wait_late_writes(t.qts, 1);
        load_line(t.qts, t.va5, buf);
        g_assert_cmpmem(buf, 64, plain, 64);
    } else {
        g_assert_cmphex(load(t.qts, 0, t.va0), ==, 0x1111);
    }
    edu_stop(&t, 1, 0);

    /* The key is programmed anew */
    edu_start(&t, mode);
    edu_write(&t, LINE | KEYID(5));
    set_key(t.qts, 0, 5);
    edu_stop(&t, 0, 1);
}

/* A device reads and writes what is dirty under another KeyID */
static void test_dma_finds_dirty(const void *mode)
{
    bool strict = g_str_equal(mode, "strict");
    uint8_t buf[64];
    EduTest t;

    /* The line stays dirty when it is read, and each read is told of */
    edu_start(&t, mode);
    store(t.qts, 0, t.va5, 0x1111);
    for (int i = 1; i <= 3; i++) {
        edu_dma(t.qts, t.dev, t.bar, LINE, EDU_BUFFER, 64, false);
        g_assert_cmpint(counter(t.qts, "violations"), ==, i);
    }
    g_assert_cmphex(load(t.qts, 0, t.va5), ==, 0x1111);
    load(t.qts, 0, t.va0);
    edu_stop(&t, 4, 0);

    /* So does each line that is read */
    edu_start(&t, mode);
    store(t.qts, 0, t.va5, 1);
    store(t.qts, 0, t.va5 + 64, 1);
    edu_dma(t.qts, t.dev, t.bar, LINE, EDU_BUFFER, 128, false);
    edu_stop(&t, 2, 0);

    /* What is written over it: a write is told of once a page */
    edu_start(&t, mode);
    store(t.qts, 0, t.va5, 0x1111);
    store(t.qts, 0, t.va5 + 128, 0x1111);
    edu_write(&t, LINE);
    if (strict) {
        wait_late_writes(t.qts, 2);
        FLUSH(t.qts, 0, op_clflush, t.va0);
        g_assert_cmphex(load(t.qts, 0, t.va5), ==, 0x1111);
        g_assert_cmphex(load(t.qts, 0, t.va5 + 128), ==, 0x1111);
    } else {
        load_line(t.qts, t.va0, buf);
        g_assert_cmpmem(buf, 64, plain, 64);
    }
    edu_stop(&t, 1, 0);
}

/* Start CPU 1 at the beginning of the firmware image */
static void start_ap(QTestState *qts, unsigned cpu)
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

/*
 * What a CPU does right after a device has written: fw_cfg is asked to over
 * and over by CPU 1, which goes on at once, while it takes CPU 0 a moment to
 * come to the stop in which the page comes into view.
 */
static void test_dma_at_once(const void *mode)
{
    static const uint8_t op_dma[] = {
        0xc7, 0x06, 0x00, 0x00, 0x00, 0x0a, /* movl $0x0a000000, (%rsi) */
        0x66, 0xba, 0x14, 0x05,             /* mov $0x514, %dx */
        0x31, 0xc0,                         /* xor %eax, %eax */
        0xef,                               /* out %eax, (%dx) */
        0x66, 0xba, 0x18, 0x05,             /* mov $0x518, %dx */
        0x89, 0xf0,                         /* mov %esi, %eax */
        0x0f, 0xc8,                         /* bswap %eax */
        0xef,                               /* out %eax, (%dx) */
    };
    static const uint8_t op_then_clflush[] = {
        0x0f, 0xae, 0x3f,                   /* clflush (%rdi) */
        0xf3, 0x90, 0xf3, 0x90,             /* pause, twice */
    };
    static const uint8_t op_then_wbinvd[] = { 0x0f, 0x09 };
    static const uint8_t op_then_pconfig[] = {
        0x31, 0xc0,                         /* xor %eax, %eax */
        0x0f, 0x01, 0xc5,                   /* pconfig */
    };
    static const uint8_t op_again[] = {
        0x48, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x40, 0x01, /* mov PAGE, %rax */
        0xff, 0xc9,                         /* dec %ecx */
        0x75, 0x00,                         /* jnz, to the beginning */
        0xc3,
    };
    const unsigned n = 1000;
    const struct {
        const uint8_t *op;
        size_t len;
        int reuse;
    } cases[] = {
        { op_then_clflush, sizeof(op_then_clflush), 0 },
        { op_then_wbinvd, sizeof(op_then_wbinvd), 0 },
        { op_then_pconfig, sizeof(op_then_pconfig), n },
    };
    const uint64_t access = 0x28000;        /* an FWCfgDmaAccess */
    g_autofree char *object = g_strdup_printf("cache=%s", (const char *)mode);

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        QTestState *qts = start(object, "-smp 2");
        size_t len = sizeof(op_dma) + cases[i].len + sizeof(op_again);
        uint8_t buf[192], code[64];
        Regs r;

        memcpy(code, op_dma, sizeof(op_dma));
        memcpy(code + sizeof(op_dma), cases[i].op, cases[i].len);
        memcpy(code + sizeof(op_dma) + cases[i].len, op_again,
               sizeof(op_again));
        code[len - 2] = 1 - len;

        start_ap(qts, 1);
        set_key(qts, 0, 5);
        r = (Regs) {
            .rbx = KEY_PROGRAM, .rcx = n, .rsi = access,
            .rdi = map(qts, 0, 5, PAGE | KEYID(5)),
        };
        key_program(buf, 5, SET_KEY_RANDOM | AES_128, data_key, tweak_key);
        qtest_memwrite(qts, KEY_PROGRAM, buf, sizeof(buf));
        /* RSI's first word says: select item 0, read */
        stl_be_p(buf + 4, 4);
        stq_be_p(buf + 8, PAGE | KEYID(5));
        qtest_memwrite(qts, access + 4, buf + 4, 12);

        run(qts, 1, code, len, &r);
        g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
        g_assert_cmphex(qtest_readl(qts, access), ==, 0);
        g_assert_cmpint(counter(qts, "violations"), ==, 0);
        g_assert_cmpint(counter(qts, "reuse-violations"), ==, cases[i].reuse);
        stop(qts);
    }
}

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

/* The monitor sees memory as a device does, and through page tables */
static void test_monitor(void)
{
    QTestState *qts = start("", "");
    g_autofree char *out = NULL;
    uint64_t va5;

    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    store(qts, 0, va5, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(qts, PAGE | KEYID(5)), ==, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(qts, PAGE), !=, 0x1122334455667788);
    qtest_writeq(qts, PAGE | KEYID(5), 0x8877665544332211);
    g_assert_cmphex(load(qts, 0, va5), ==, 0x8877665544332211);

    out = qtest_hmp(qts, "x /1gx 0x%" PRIx64, va5);
    g_assert(strstr(out, "0x8877665544332211"));
    g_free(out);
    out = qtest_hmp(qts, "xp /1gx 0x%x", PAGE);
    g_assert(!strstr(out, "0x8877665544332211"));
    g_free(out);
    out = qtest_hmp(qts, "info mktme");
    g_assert(strstr(out, "KeyID 5: aes-xts-128, 1 pages"));
    stop(qts);
}

/* The attacks by a human */
static void test_monitor_attack(void)
{
    QTestState *qts = start("", "");
    g_autofree char *out = NULL, *data = NULL;
    uint8_t buf[4096];
    uint64_t va5;
    gsize len;

    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    store(qts, 0, va5, 1);
    dump(qts, PAGE, buf, sizeof(buf));
    out = qtest_hmp(qts, "mktme_dump 0x%x 4096 \"%s\"", PAGE, tmp_path);
    g_assert_cmpstr(out, ==, "");
    g_free(out);
    g_assert(g_file_get_contents(tmp_path, &data, &len, NULL));
    g_assert_cmpmem(data, len, buf, sizeof(buf));

    store(qts, 0, va5, 2);
    out = qtest_hmp(qts, "mktme_restore 0x%x \"%s\"", PAGE, tmp_path);
    g_assert_cmpstr(out, ==, "");
    g_free(out);
    g_assert_cmphex(load(qts, 0, va5), ==, 1);

    for (int i = 0; i < 2; i++) {
        out = qtest_hmp(qts, "mktme_flip_bit 0x%x 7", PAGE + 7);
        g_assert_cmpstr(out, ==, "");
        g_free(out);
        dump(qts, PAGE + 7, buf + 8, 1);
        g_assert_cmphex(buf[8], ==, buf[7] ^ (i ? 0 : 0x80));
    }
    g_assert_cmphex(load(qts, 0, va5), ==, 1);

    out = qtest_hmp(qts, "mktme_dump 0x%x 4096 \"%s\"", 256 << 20, tmp_path);
    g_assert(strstr(out, "No DRAM at address 0x10000000"));
    g_free(out);
    out = qtest_hmp(qts, "mktme_restore 0x%x \"/nonexistent\"", PAGE);
    g_assert(strstr(out, "/nonexistent"));
    g_free(out);
    for (int bit = 8; bit <= 256; bit += 248) {
        out = qtest_hmp(qts, "mktme_flip_bit 0x%x %d", PAGE, bit);
        g_assert(strstr(out, "'bit' must be in the range 0 to 7"));
        g_clear_pointer(&out, g_free);
    }

    /* Another object is not the machine's, and does not become it */
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
                             "{ 'qom-type': 'x86-mktme', 'id': 'other' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'query-mktme' }");
    qobject_unref(qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'qom-set', 'arguments': { 'path': '/machine', "
        "'property': 'mktme', 'value': '/objects/other' } }"));
    stop(qts);
}

/*
 * More than one CPU
 */

static void test_packages(void)
{
    QTestState *qts = start("", "-smp 2,sockets=2 "
                            "-object memory-backend-ram,id=m0,size=128M "
                            "-object memory-backend-ram,id=m1,size=128M "
                            "-numa node,nodeid=0,memdev=m0 "
                            "-numa node,nodeid=1,memdev=m1 "
                            "-numa cpu,node-id=0,socket-id=0 "
                            "-numa cpu,node-id=1,socket-id=1");
    const uint64_t far = (128 << 20) + LINE;
    uint64_t near_va, far_va, val;
    QDict *info;
    QList *packages;

    start_ap(qts, 1);
    info = query(qts);
    packages = qdict_get_qlist(info, "packages");
    g_assert_cmpint(qlist_size(packages), ==, 2);
    g_assert_cmpint(qdict_get_int(qobject_to(QDict, qlist_peek(packages)),
                                  "memory"), ==, 128 << 20);
    qobject_unref(info);

    /* Programmed on package 0 only: package 1's memory does not know it */
    set_key(qts, 0, 5);
    near_va = map(qts, 0, 5, PAGE | KEYID(5));
    far_va = map(qts, 0, 6, (far & ~0xfffULL) | KEYID(5));
    store(qts, 0, near_va, 0x1234);
    store(qts, 0, far_va, 0x1234);
    g_assert_cmphex(load(qts, 0, PAGE), !=, 0x1234);
    g_assert_cmphex(load(qts, 0, far & ~0xfffULL), ==, 0x1234);

    /* It does not matter which CPU accesses the memory */
    g_assert_cmphex(load(qts, 1, near_va), ==, 0x1234);
    set_key(qts, 1, 5);
    g_assert_cmphex(load(qts, 0, far_va), !=, 0x1234);
    g_assert_cmphex(load(qts, 1, near_va), ==, 0x1234);
    store(qts, 1, far_va, 0x5678);
    g_assert_cmphex(load(qts, 0, far_va), ==, 0x5678);

    /* Random keys differ */
    for (int cpu = 0; cpu < 2; cpu++) {
        g_assert_cmpint(pconfig(qts, cpu, 6, SET_KEY_RANDOM | AES_128,
                                data_key, tweak_key), ==, 0);
    }
    /* Injected failures are for one package */
    qtest_qmp_assert_success(qts, "{ 'execute': 'mktme-inject-failure', "
                             "'arguments': { 'failure': 'device-busy', "
                             "'package': 1 } }");
    set_key(qts, 0, 7);
    g_assert_cmpint(pconfig(qts, 1, 7, AES_128, data_key, tweak_key), ==, 5);
    set_key(qts, 1, 7);
    dump(qts, far & ~0xfffULL, &val, 8);
    g_assert_cmphex(val, !=, 0x5678);
    stop(qts);
}

/* As many packages as there may be, programmed one by one */
static void test_sockets(const void *opaque)
{
    unsigned n = (uintptr_t)opaque, size = 256 / n;
    g_autoptr(GString) args = g_string_new(NULL);
    uint64_t va[4], phys[4];
    QTestState *qts;
    QDict *info;
    QList *packages;
    const QListEntry *entry;

    g_string_printf(args, "-smp %u,sockets=%u", n, n);
    for (int i = 0; i < n; i++) {
        g_string_append_printf(args, " -object memory-backend-ram,id=m%d,"
                               "size=%uM -numa node,nodeid=%d,memdev=m%d "
                               "-numa cpu,node-id=%d,socket-id=%d",
                               i, size, i, i, i, i);
        phys[i] = ((uint64_t)i * size << 20) + PAGE;
    }
    qts = start("", args->str);
    for (int i = 1; i < n; i++) {
        start_ap(qts, i);
    }
    info = query(qts);
    packages = qdict_get_qlist(info, "packages");
    g_assert_cmpint(qlist_size(packages), ==, n);
    QLIST_FOREACH_ENTRY(packages, entry) {
        QDict *package = qobject_to(QDict, qlist_entry_obj(entry));

        g_assert_cmpint(qdict_get_int(package, "memory"), ==, size << 20);
        g_assert(qlist_empty(qdict_get_qlist(package, "keys")));
    }
    qobject_unref(info);

    for (int i = 0; i < n; i++) {
        va[i] = map(qts, 0, i, phys[i] | KEYID(5));
    }
    for (int programmed = 0; programmed <= n; programmed++) {
        if (programmed) {
            set_key(qts, programmed - 1, 5);
        }
        for (int i = 0; i < n; i++) {
            /* Each CPU in turn: where it is does not matter */
            unsigned cpu = (i + programmed) % n;
            uint64_t val = i << 8 | programmed;

            store(qts, cpu, va[i], val);
            g_assert_cmphex(load(qts, n - 1 - cpu, va[i]), ==, val);
            if (i < programmed) {
                g_assert_cmphex(load(qts, cpu, phys[i]), !=, val);
            } else {
                g_assert_cmphex(load(qts, cpu, phys[i]), ==, val);
            }
        }
    }
    /* Taken from one package only */
    g_assert_cmpint(pconfig(qts, n - 1, 5, CLEAR_KEY | AES_128, data_key,
                            tweak_key), ==, 0);
    for (int i = 0; i < n; i++) {
        uint64_t val = i << 8 | n;

        if (i < n - 1) {
            g_assert_cmphex(load(qts, 0, va[i]), ==, val);
        } else {
            g_assert_cmphex(load(qts, 0, va[i]), !=, val);
        }
    }
    stop(qts);
}

/* A package that comes later has an empty table */
static void test_hotplug(void)
{
    QTestState *qts = start("", "-smp 1,maxcpus=2,sockets=2 "
                            "-object memory-backend-ram,id=m0,size=128M "
                            "-object memory-backend-ram,id=m1,size=128M "
                            "-numa node,nodeid=0,memdev=m0 "
                            "-numa node,nodeid=1,memdev=m1 "
                            "-numa cpu,node-id=0,socket-id=0 "
                            "-numa cpu,node-id=1,socket-id=1");
    const uint64_t far = (128 << 20) + PAGE;
    uint64_t far_va;
    QDict *err;

    set_key(qts, 0, 5);
    far_va = map(qts, 0, 6, far | KEYID(5));
    store(qts, 0, far_va, 0x1234);
    g_assert_cmphex(load(qts, 0, far), ==, 0x1234);

    /* One that can't be, before one that can */
    err = qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'device_add', 'arguments':"
        "  { 'driver': 'max-x86_64-cpu', 'id': 'cpu1', 'socket-id': 1,"
        "    'core-id': 0, 'thread-id': 0, 'phys-bits': %d } }", PHYS_BITS - 1);
    g_assert(strstr(qdict_get_str(err, "desc"), "phys-bits"));
    qobject_unref(err);
    load(qts, 0, far_va);
    qtest_qmp_device_add(qts, "max-x86_64-cpu", "cpu1",
                         "{ 'socket-id': 1, 'core-id': 0, 'thread-id': 0,"
                         "  'phys-bits': %d }", PHYS_BITS);
    start_ap(qts, 1);
    g_assert_cmphex(load(qts, 1, far_va), ==, 0x1234);
    set_key(qts, 1, 5);
    g_assert_cmphex(load(qts, 1, far_va), !=, 0x1234);
    stop(qts);
}

/*
 * Memory that comes and goes while a CPU switches views all the time: it is
 * encrypted by its node's package
 */
static void test_memory_hotplug(void)
{
    /* incq (%rdi); incq (%rsi); jmp back until told to stop */
    static const uint8_t op_switch[] = {
        0x48, 0xff, 0x07, 0x48, 0xff, 0x06,
        0x48, 0x83, 0x3a, 0x00,             /* cmpq $0, (%rdx) */
        0x74, 0xf4,                         /* je */
        0xc3,
    };
    const uint64_t flag = 0x38800;
    QTestState *qts = start("cache=report", "-m 256,slots=2,maxmem=2G "
                            "-smp 2,sockets=2 "
                            "-object memory-backend-ram,id=m0,size=128M "
                            "-object memory-backend-ram,id=m1,size=128M "
                            "-numa node,nodeid=0,memdev=m0 "
                            "-numa node,nodeid=1,memdev=m1 "
                            "-numa cpu,node-id=0,socket-id=0 "
                            "-numa cpu,node-id=1,socket-id=1");
    Regs r;

    start_ap(qts, 1);
    set_key(qts, 1, 5);
    r = (Regs) { .rdi = map(qts, 0, 5, PAGE | KEYID(5)),
                 .rsi = map(qts, 0, 6, PAGE), .rdx = flag,
                 .code = CODE + 0x1000 };
    qtest_writeq(qts, flag, 0);
    qtest_memwrite(qts, r.code, op_switch, sizeof(op_switch));
    qtest_memwrite(qts, MBOX + 256 + 8, &r, offsetof(Regs, vector));
    qtest_writeq(qts, MBOX + 256, 1);

    for (int i = 0; i < 5; i++) {
        QDict *resp, *dimm;
        QList *list;
        uint64_t addr, va0, va5, val;

        qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments':"
                                 "  { 'qom-type': 'memory-backend-ram',"
                                 "    'id': 'm2', 'size': %d } }", 128 << 20);
        qtest_qmp_device_add(qts, "pc-dimm", "dimm",
                             "{ 'memdev': 'm2', 'node': %d }", i % 2);
        resp = qtest_qmp(qts, "{ 'execute': 'query-memory-devices' }");
        list = qdict_get_qlist(resp, "return");
        dimm = qdict_get_qdict(qobject_to(QDict, qlist_peek(list)), "data");
        addr = qdict_get_int(dimm, "addr");
        g_assert_cmphex(addr, >=, 1ULL << 32);
        qobject_unref(resp);

        va0 = map(qts, 0, 7, addr);
        va5 = map(qts, 0, 8, addr | KEYID(5));
        /* The key is known to package 1 only */
        g_assert_cmphex(load(qts, 0, va0), ==, 0);
        store(qts, 0, va5, 0x1234);
        FLUSH(qts, 0, op_clflush, va5);
        g_assert_cmphex(load(qts, 0, va5), ==, 0x1234);
        if (i % 2) {
            g_assert_cmphex(load(qts, 0, va0), !=, 0x1234);
        } else {
            g_assert_cmphex(load(qts, 0, va0), ==, 0x1234);
        }
        dump(qts, addr + (128 << 20) - 8, &val, 8);
        g_assert_cmphex(val, !=, 0);
        load(qts, 0, va5);

        /* What the guest's ACPI does */
        qtest_qmp_device_del_send(qts, "dimm");
        qtest_outl(qts, 0xa00, 0);
        qtest_outb(qts, 0xa14, 1 << 3);
        qtest_qmp_eventwait(qts, "DEVICE_DELETED");
        qtest_qmp_assert_success(qts, "{ 'execute': 'object-del',"
                                 "  'arguments': { 'id': 'm2' } }");
        qobject_unref(qtest_qmp_assert_failure_ref(
            qts, "{ 'execute': 'mktme-dump', 'arguments':"
            "  { 'addr': %" PRIu64 ", 'size': 4096, 'filename': %s } }",
            addr, tmp_path));
        g_assert_cmphex(load(qts, 0, va5), ==, 0);
    }
    qtest_writeq(qts, flag, 1);
    wait_cpu(qts, 1, 0, 0);
    stop(qts);
}

/*
 * A nested guest: its memory, and its page table, are under KeyIDs that the
 * nested page tables give, of which it knows nothing
 */
static void test_nested(const void *mode)
{
    static const uint8_t op_vmrun[] = {
        0x0f, 0x01, 0xd8,                   /* vmrun */
        0x0f, 0x01, 0xdc,                   /* stgi */
        0xc3,
    };
    static const uint8_t op_guest[] = {
        0x48, 0x8b, 0x1f,                   /* mov (%rdi), %rbx */
        0x48, 0x89, 0x77, 0x08,             /* mov %rsi, 8(%rdi) */
        0x0f, 0xae, 0x3f,                   /* clflush (%rdi) */
        0x0f, 0x01, 0xd9,                   /* vmmcall */
    };
    const uint64_t vmcb = 0x200000, npt = 0x210000, hsave = 0x220000;
    const uint64_t guest_code = 0x230000, guest_pt = PAGE + 0x100000;
    const uint64_t handler = guest_code + 0x100, gdt = 0x250000;
    const uint64_t stack = PAGE + 0x1000, idt = PAGE + 0x2000;
    g_autofree char *object = g_strdup_printf("cache=%s", (const char *)mode);
    /* Two CPUs: the other one has to be stopped to change a view */
    QTestState *qts = start(object, "-smp 2");
    uint64_t table[512], va5, va6, va_stack, va_idt;
    int64_t violations;
    static const struct {
        unsigned offset;
        uint16_t selector, attrib;
    } segs[] = {
        { 0x400, 0x10, 0xc93 }, { 0x410, 0x08, 0xa9b }, { 0x420, 0x10, 0xc93 },
        { 0x430, 0x10, 0xc93 },
    };
    Regs r;

    set_key(qts, 0, 5);
    g_assert_cmpint(pconfig(qts, 0, 6, SET_KEY_RANDOM | AES_256,
                            data_key, tweak_key), ==, 0);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    va6 = map(qts, 0, 6, guest_pt | KEYID(6));
    store(qts, 0, va5, 0x1234);
    /* The guest's page table, which is at guest physical address PT */
    store(qts, 0, va6, PAGE | 7);

    memset(table, 0, sizeof(table));
    table[0] = (npt + 0x1000) | 7;
    qtest_memwrite(qts, npt, table, sizeof(table));
    table[0] = (npt + 0x2000) | 7;
    qtest_memwrite(qts, npt + 0x1000, table, sizeof(table));
    for (int i = 0; i < 512; i++) {
        table[i] = ((uint64_t)i << 21) | 0x87;
    }
    table[0] = (npt + 0x3000) | 7;
    table[PAGE >> 21] = (npt + 0x4000) | 7;
    qtest_memwrite(qts, npt + 0x2000, table, sizeof(table));
    for (int i = 0; i < 512; i++) {
        table[i] = ((uint64_t)i << 12) | 7;
    }
    table[PT >> 12] = guest_pt | KEYID(6) | 7;
    qtest_memwrite(qts, npt + 0x3000, table, sizeof(table));
    for (int i = 0; i < 512; i++) {
        table[i] = (PAGE + ((uint64_t)i << 12)) | 7;
    }
    table[0] = PAGE | KEYID(5) | 7;
    table[1] = stack | KEYID(5) | 7;
    table[2] = idt | KEYID(6) | 7;
    qtest_memwrite(qts, npt + 0x4000, table, sizeof(table));

    qtest_memset(qts, vmcb, 0, 0x1000);
    qtest_writel(qts, vmcb + 0x0c, 1u << 31);           /* shutdown */
    qtest_writel(qts, vmcb + 0x10, 3);                  /* vmrun, vmmcall */
    qtest_writel(qts, vmcb + 0x08, 0xffffffff);         /* exceptions */
    qtest_writel(qts, vmcb + 0x58, 1);                  /* ASID */
    qtest_writeq(qts, vmcb + 0x90, 1);                  /* nested paging */
    qtest_writeq(qts, vmcb + 0xb0, npt);
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
    qtest_writeq(qts, vmcb + 0x578, guest_code);
    qtest_writeq(qts, vmcb + 0x5d8, 0x240000);
    qtest_writeq(qts, vmcb + 0x668, 0x0007040600070406); /* PAT */
    qtest_memwrite(qts, guest_code, op_guest, sizeof(op_guest));

    g_assert_cmphex(wrmsr(qts, 0, 0xc0000080, 0x1500), ==, NO_EXCEPTION);
    g_assert_cmphex(wrmsr(qts, 0, 0xc0010117, hsave), ==, NO_EXCEPTION);
    FLUSH(qts, 0, op_wbinvd, 0);
    /* Both pages come into another view meanwhile */
    load(qts, 0, PAGE);
    load(qts, 0, guest_pt);

    r = (Regs) { .rax = vmcb, .rdi = WINDOW, .rsi = 0x5678 };
    RUN(qts, 0, op_vmrun, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex(qtest_readl(qts, vmcb + 0x70), ==, 0x81);
    g_assert_cmphex(r.rbx, ==, 0x1234);
    g_assert_cmphex(load(qts, 0, va5 + 8), ==, 0x5678);
    /* It has set the accessed and dirty bits */
    g_assert_cmphex(load(qts, 0, va6), ==, PAGE | 0x67);

    if (!g_str_equal(mode, "off")) {
        /* The guest has flushed its page, but not its page table */
        load(qts, 0, PAGE);
        g_assert_cmpint(counter(qts, "violations"), ==, 0);
        load(qts, 0, guest_pt);
        g_assert_cmpint(counter(qts, "violations"), ==, 1);
    }

    /* An interrupt is injected: neither stack nor IDT are in view */
    violations = counter(qts, "violations");
    va_stack = map(qts, 0, 7, stack | KEYID(5));
    va_idt = map(qts, 0, 8, idt | KEYID(6));
    store(qts, 0, va_stack + 0xfd8, 0);
    store(qts, 0, va_idt + 0x200, (handler & 0xffff) | 0x08 << 16 |
                                  0x8e00ULL << 32 | handler >> 16 << 48);
    store(qts, 0, va_idt + 0x208, 0);
    qtest_writeq(qts, gdt + 8, 0x00af9b000000ffff);
    qtest_writel(qts, vmcb + 0x464, 0xf);
    qtest_writeq(qts, vmcb + 0x468, gdt);
    qtest_writel(qts, vmcb + 0x484, 0xfff);
    qtest_writeq(qts, vmcb + 0x488, PAGE + 0x2000);
    qtest_writel(qts, vmcb + 0xa8, 1u << 31 | 0x20);    /* event_inj */
    qtest_writeq(qts, vmcb + 0x578, guest_code);
    qtest_writeq(qts, vmcb + 0x5d8, PAGE + 0x2000);
    qtest_memwrite(qts, handler, op_guest + 10, 3);     /* vmmcall */
    FLUSH(qts, 0, op_wbinvd, 0);
    load(qts, 0, stack);
    load(qts, 0, idt);

    r = (Regs) { .rax = vmcb };
    RUN(qts, 0, op_vmrun, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex(qtest_readl(qts, vmcb + 0x70), ==, 0x81);
    g_assert_cmphex(qtest_readq(qts, vmcb + 0x578), ==, handler);
    g_assert_cmphex(qtest_readl(qts, vmcb + 0xa8) >> 31, ==, 0);
    g_assert_cmphex(load(qts, 0, va_stack + 0xfd8), ==, guest_code);
    g_assert_cmpint(counter(qts, "violations"), ==, violations);
    stop(qts);
}

static void test_smp(const void *thread)
{
    /* Add 1 to 8 bytes at RDI, RCX times */
    static const uint8_t op_count[] = {
        0xf0, 0x48, 0xff, 0x07,             /* lock incq (%rdi) */
        0xe2, 0xfa,                         /* loop */
        0xc3,
    };
    QTestState *qts = qtest_initf("-nodefaults -accel tcg,thread=%s "
                                  "-machine q35,mktme=mktme0 -smp 4 "
                                  "-cpu max,phys-bits=%d -m 256 -bios %s "
                                  "-object x86-mktme,id=mktme0",
                                  (const char *)thread, PHYS_BITS, rom_path);
    const unsigned n = 10000;
    uint64_t va[4];
    Regs r;

    set_key(qts, 0, 5);
    g_assert_cmpint(pconfig(qts, 0, 6, SET_KEY_RANDOM | AES_256,
                            data_key, tweak_key), ==, 0);
    g_assert_cmpint(pconfig(qts, 0, 7, NO_ENCRYPT | AES_128,
                            data_key, tweak_key), ==, 0);
    for (int i = 0; i < 4; i++) {
        if (i) {
            start_ap(qts, i);
        }
        /* One page, of which each CPU uses a line, with a key of its own */
        va[i] = map(qts, 0, i, PAGE | KEYID(5 + i)) + i * 64;
        store(qts, 0, va[i], 0);
    }
    for (int i = 0; i < 4; i++) {
        r = (Regs) { .rdi = va[i], .rcx = n, .code = CODE + i * 0x1000 };
        qtest_memwrite(qts, r.code, op_count, sizeof(op_count));
        qtest_memwrite(qts, MBOX + i * 256 + 8, &r, offsetof(Regs, vector));
        qtest_writeq(qts, MBOX + i * 256, 1);
    }
    for (int i = 0; i < 4; i++) {
        wait_cpu(qts, i, 0, 0);
    }
    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(load(qts, 3 - i, va[i]), ==, n);
    }
    stop(qts);
}

/* An instruction for which all other CPUs are stopped needs another view */
static void test_smp_split_lock(void)
{
    /* lock incq (%rdi) */
    static const uint8_t op_inc[] = { 0xf0, 0x48, 0xff, 0x07, 0xc3 };
    QTestState *qts = start("", "-smp 2");
    uint64_t va0, va5;
    Regs r;

    start_ap(qts, 1);
    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    map(qts, 0, 6, (PAGE + 0x1000) | KEYID(5));
    va0 = map(qts, 0, 7, PAGE);
    map(qts, 0, 8, PAGE + 0x1000);

    /* Within a page, then across two */
    for (uint64_t offset = 0x3c; offset < 0x1000; offset += 0xfc0) {
        store(qts, 0, va5 + offset, 0xffffffff);
        load(qts, 0, va0);
        load(qts, 0, va0 + 0x1000);
        r = (Regs) { .rdi = va5 + offset };
        RUN(qts, 0, op_inc, &r);
        g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
        g_assert_cmphex(load(qts, 0, va5 + offset), ==, 0x100000000);
    }
    stop(qts);
}

int main(int argc, char **argv)
{
    g_autofree uint8_t *rom = g_malloc0(64 * 1024);
    const char *modes[] = { "report", "strict" };
    int fd, ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_accel("tcg") || !qtest_has_machine("q35")) {
        g_test_skip("needs q35 with tcg");
        return 0;
    }

    init_keys();
    for (int i = 0; i < sizeof(plain); i++) {
        plain[i] = i * 7 + 3;
    }

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

    qtest_add_func("/mktme/enumeration", test_enumeration);
    qtest_add_func("/mktme/tdx", test_tdx);
    qtest_add_func("/mktme/off", test_off);
    qtest_add_func("/mktme/activate", test_activate);
    qtest_add_func("/mktme/pconfig/failures", test_pconfig_failures);
    qtest_add_func("/mktme/pconfig/faults", test_pconfig_faults);
    qtest_add_func("/mktme/ciphertext", test_ciphertext);
    qtest_add_func("/mktme/views", test_views);
    qtest_add_func("/mktme/code", test_code);
    qtest_add_func("/mktme/attack", test_attack);
    qtest_add_func("/mktme/inject", test_inject);
    qtest_add_func("/mktme/reset", test_reset);
    qtest_add_func("/mktme/migration", test_migration);
    qtest_add_func("/mktme/guest-dump", test_guest_dump);
    qtest_add_func("/mktme/monitor/views", test_monitor);
    qtest_add_func("/mktme/monitor/attack", test_monitor_attack);
    qtest_add_func("/mktme/packages", test_packages);
    for (uintptr_t n = 1; n <= 4; n *= 2) {
        g_autofree char *path = g_strdup_printf("/mktme/sockets/%u",
                                                (unsigned)n);

        qtest_add_data_func(path, (void *)n, test_sockets);
    }
    qtest_add_func("/mktme/hotplug/package", test_hotplug);
    qtest_add_func("/mktme/hotplug/memory", test_memory_hotplug);
    qtest_add_data_func("/mktme/nested/off", "off", test_nested);
    qtest_add_data_func("/mktme/nested/strict", "strict", test_nested);
    qtest_add_data_func("/mktme/smp/single", "single", test_smp);
    qtest_add_data_func("/mktme/smp/multi", "multi", test_smp);
    qtest_add_func("/mktme/smp/split-lock", test_smp_split_lock);
    if (qtest_has_device("edu")) {
        qtest_add_func("/mktme/dma/lines", test_dma);
    }
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
    for (int i = 0; i < ARRAY_SIZE(modes); i++) {
        static const struct {
            const char *name;
            void (*func)(const void *);
        } tests[] = {
            { "right", test_cache_right },
            { "missing-flush", test_cache_missing_flush },
            { "same-key", test_cache_same_key },
            { "wrong-keyid", test_cache_wrong_keyid },
            { "partial-flush", test_cache_partial },
            { "hot", test_cache_hot },
            { "store-after-flush", test_cache_store_after },
            { "key-reuse", test_cache_reuse },
            { "page-table", test_cache_page_table },
            { "dma-dirty", test_dma_dirty },
            { "dma-finds-dirty", test_dma_finds_dirty },
            { "at-once", test_dma_at_once },
        };

        for (int j = 0; j < ARRAY_SIZE(tests); j++) {
            g_autofree char *path = g_strdup_printf("/mktme/cache/%s/%s",
                                                    modes[i], tests[j].name);

            if (g_str_has_prefix(tests[j].name, "dma") &&
                !qtest_has_device("edu")) {
                continue;
            }
            qtest_add_data_func(path, modes[i], tests[j].func);
        }
    }
    qtest_add_func("/mktme/cache/trace", test_cache_trace);
    qtest_add_func("/mktme/cache/late-write", test_cache_strict);

    ret = g_test_run();

    unlink(rom_path);
    unlink(tmp_path);
    unlink(disk_path);
    g_free(rom_path);
    g_free(tmp_path);
    g_free(disk_path);
    return ret;
}
