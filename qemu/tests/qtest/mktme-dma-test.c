/*
 * Test for Intel Multi-Key Total Memory Encryption: lines that a device uses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "mktme-helper.h"

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

static void add_tests(void)
{
    const char *modes[] = { "report", "strict" };

    for (int i = 0; i < ARRAY_SIZE(modes); i++) {
        static const struct {
            const char *name;
            void (*func)(const void *);
        } tests[] = {
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
    if (qtest_has_device("edu")) {
        qtest_add_func("/mktme/dma/lines", test_dma);
    }
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
