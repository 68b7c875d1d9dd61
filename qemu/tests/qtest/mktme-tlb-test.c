/*
 * Test for Intel Multi-Key Total Memory Encryption: TLBs of the CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "mktme-helper.h"

/*
 * One physical page under two KeyIDs at adjacent linear addresses: what
 * crosses from one to the other can't have both halves in view.
 */
typedef struct Split {
    QTestState *qts;
    uint64_t va5, va6;
    /* What is in the last line of the one, and in the first of the other */
    uint8_t line[128];
} Split;

static void split_start(Split *t, const char *object, const char *args)
{
    QTestState *qts = start(object, args);

    t->qts = qts;
    set_key(qts, 0, 5);
    g_assert_cmpint(pconfig(qts, 0, 6, SET_KEY_RANDOM | AES_256,
                            data_key, tweak_key), ==, 0);
    t->va5 = map(qts, 0, 5, PAGE | KEYID(5));
    t->va6 = map(qts, 0, 6, PAGE | KEYID(6));
    for (int i = 0; i < sizeof(t->line); i += 8) {
        stq_le_p(t->line + i, 0x0102030405060708 * (i / 8 + 1));
        store(qts, 0, t->va6 - 64 + i, ldq_le_p(t->line + i));
        FLUSH(qts, 0, op_wbinvd, 0);
    }
}

/* Both lines have what they should, and nothing else */
static void split_check(Split *t)
{
    uint8_t buf[128];

    load_line(t->qts, t->va6 - 64, buf);
    load_line(t->qts, t->va6, buf + 64);
    g_assert_cmpmem(buf, sizeof(buf), t->line, sizeof(t->line));
    FLUSH(t->qts, 0, op_wbinvd, 0);
}

#define SPLIT_RUN(t, op, size, regs) split_run(t, op, sizeof(op), size, regs)

static void split_run(Split *t, const uint8_t *op, size_t len, unsigned size,
                      Regs *r)
{
    r->rdi = t->va6 - size;
    run(t->qts, 0, op, len, r);
    g_assert_cmphex(r->vector, ==, NO_EXCEPTION);
}

static void test_split(const void *opaque)
{
    static const struct {
        unsigned size;
        uint8_t load[8], store[8];
    } ops[] = {
        /* movzwl (%rdi), %eax; mov %ax, (%rdi) */
        { 2, { 0x0f, 0xb7, 0x07, 0xc3 }, { 0x66, 0x89, 0x07, 0xc3 } },
        /* mov (%rdi), %eax; mov %eax, (%rdi) */
        { 4, { 0x8b, 0x07, 0xc3 }, { 0x89, 0x07, 0xc3 } },
        /* mov (%rdi), %rax; mov %rax, (%rdi) */
        { 8, { 0x48, 0x8b, 0x07, 0xc3 }, { 0x48, 0x89, 0x07, 0xc3 } },
    };
    static const uint8_t op_load16[] = {
        0xf3, 0x0f, 0x6f, 0x07,                     /* movdqu (%rdi), %xmm0 */
        0x66, 0x48, 0x0f, 0x7e, 0xc0,               /* movq %xmm0, %rax */
        0x66, 0x48, 0x0f, 0x3a, 0x16, 0xc3, 0x01,   /* pextrq $1, .., %rbx */
        0xc3,
    };
    static const uint8_t op_store16[] = {
        0x66, 0x48, 0x0f, 0x6e, 0xc0,               /* movq %rax, %xmm0 */
        0x66, 0x48, 0x0f, 0x3a, 0x22, 0xc3, 0x01,   /* pinsrq $1, %rbx, .. */
        0xf3, 0x0f, 0x7f, 0x07,                     /* movdqu %xmm0, (%rdi) */
        0xc3,
    };
    /* lock incq (%rdi) */
    static const uint8_t op_inc[] = { 0xf0, 0x48, 0xff, 0x07, 0xc3 };
    /* xchg %rax, (%rdi) */
    static const uint8_t op_xchg[] = { 0x48, 0x87, 0x07, 0xc3 };
    /* lock cmpxchg %rcx, (%rdi) */
    static const uint8_t op_cmpxchg[] = { 0xf0, 0x48, 0x0f, 0xb1, 0x0f, 0xc3 };
    /* incq (%rdi) */
    static const uint8_t op_inc_plain[] = { 0x48, 0xff, 0x07, 0xc3 };
    const uint64_t a = 0x1122334455667788, b = 0x99aabbccddeeff00;
    uint64_t val;
    Split t;
    Regs r;

    split_start(&t, opaque, "-smp 2");
    for (int i = 0; i < ARRAY_SIZE(ops); i++) {
        const unsigned size = ops[i].size;

        for (int n = 1; n < size; n++) {
            uint8_t *p = t.line + 64 - n;

            r = (Regs) { 0 };
            SPLIT_RUN(&t, ops[i].load, n, &r);
            g_assert_cmphex(r.rax, ==, ldn_le_p(p, size));

            r = (Regs) { .rax = a };
            SPLIT_RUN(&t, ops[i].store, n, &r);
            FLUSH(t.qts, 0, op_wbinvd, 0);
            stn_le_p(p, size, a);
            split_check(&t);
        }
    }
    for (int n = 1; n < 16; n++) {
        uint8_t *p = t.line + 64 - n;

        r = (Regs) { 0 };
        SPLIT_RUN(&t, op_load16, n, &r);
        g_assert_cmphex(r.rax, ==, ldq_le_p(p));
        g_assert_cmphex(r.rbx, ==, ldq_le_p(p + 8));

        r = (Regs) { .rax = b, .rbx = a };
        SPLIT_RUN(&t, op_store16, n, &r);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        stq_le_p(p, b);
        stq_le_p(p + 8, a);
        split_check(&t);
    }
    for (int n = 1; n < 8; n++) {
        uint8_t *p = t.line + 64 - n;

        /* So that one half carries over to the other */
        stq_le_p(p, MAKE_64BIT_MASK(0, n * 8));
        r = (Regs) { .rax = ldq_le_p(p) };
        SPLIT_RUN(&t, op_store, n, &r);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        r = (Regs) { 0 };
        SPLIT_RUN(&t, op_inc, n, &r);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        stq_le_p(p, ldq_le_p(p) + 1);
        split_check(&t);

        SPLIT_RUN(&t, op_inc_plain, n, &r);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        stq_le_p(p, ldq_le_p(p) + 1);
        split_check(&t);

        val = ldq_le_p(p);
        r = (Regs) { .rax = a };
        SPLIT_RUN(&t, op_xchg, n, &r);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        g_assert_cmphex(r.rax, ==, val);
        stq_le_p(p, a);
        split_check(&t);

        /* Not equal, then equal */
        r = (Regs) { .rax = b, .rcx = 1 };
        SPLIT_RUN(&t, op_cmpxchg, n, &r);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        g_assert_cmphex(r.rax, ==, a);
        split_check(&t);
        r = (Regs) { .rax = a, .rcx = b };
        SPLIT_RUN(&t, op_cmpxchg, n, &r);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        stq_le_p(p, b);
        split_check(&t);
    }
    stop(t.qts);
}

/* FXSAVE and FXRSTOR access memory in one piece, where they can */
static void test_split_fxsave(const void *opaque)
{
    static const uint8_t op_fxsave[] = {
        0x66, 0x48, 0x0f, 0x6e, 0xf8,               /* movq %rax, %xmm7 */
        0x66, 0x48, 0x0f, 0x6e, 0xf3,               /* movq %rbx, %xmm6 */
        0x66, 0x48, 0x0f, 0x6e, 0xeb,               /* movq %rbx, %xmm5 */
        0x0f, 0xae, 0x07,                           /* fxsave (%rdi) */
        0xc3,
    };
    static const uint8_t op_fxrstor[] = {
        0x0f, 0xae, 0x0f,                           /* fxrstor (%rdi) */
        0x66, 0x48, 0x0f, 0x7e, 0xf8,               /* movq %xmm7, %rax */
        0x66, 0x48, 0x0f, 0x7e, 0xeb,               /* movq %xmm5, %rbx */
        0xc3,
    };
    const uint64_t a = 0x1122334455667788, b = 0x99aabbccddeeff00;
    Split t;
    Regs r;

    split_start(&t, opaque, "-smp 2");
    /* The second page begins with XMM6 */
    r = (Regs) { .rax = a, .rbx = b };
    SPLIT_RUN(&t, op_fxsave, 256, &r);
    FLUSH(t.qts, 0, op_wbinvd, 0);
    g_assert_cmphex(load(t.qts, 0, t.va6 - 256 + 24) & 0xffffffff, ==, 0x1f80);
    g_assert_cmphex(load(t.qts, 0, t.va6 - 16), ==, b);
    g_assert_cmphex(load(t.qts, 0, t.va6), ==, b);
    g_assert_cmphex(load(t.qts, 0, t.va6 + 16), ==, a);

    r = (Regs) { .rax = 0, .rbx = 0 };
    SPLIT_RUN(&t, op_fxrstor, 256, &r);
    g_assert_cmphex(r.rax, ==, a);
    g_assert_cmphex(r.rbx, ==, b);
    stop(t.qts);
}

/* An instruction that lies in both */
static void test_split_code(const void *opaque)
{
    static const uint8_t op_mov[] = {
        0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8,         /* mov $.., %rax */
        0xc3,
    };
    Split t;
    Regs r;

    split_start(&t, "", opaque);
    for (int n = 1; n < 10; n++) {
        uint8_t *p = t.line + 64 - n;

        memcpy(p, op_mov, sizeof(op_mov));
        for (int i = 0; i < sizeof(t.line); i += 8) {
            store(t.qts, 0, t.va6 - 64 + i, ldq_le_p(t.line + i));
        }
        for (int i = 0; i < 3; i++) {
            r = (Regs) { 0 };
            SPLIT_RUN(&t, op_call_rdi, n, &r);
            g_assert_cmphex(r.rax, ==, 0x0807060504030201);
        }
    }
    stop(t.qts);
}

/*
 * Page tables under a KeyID that are not in its view: the monitor reads them
 * as a CPU would.
 */
static void test_info_tlb(void)
{
    const uint64_t pd2 = 0x7000, table = PAGE + 0x1000;
    QTestState *qts = start("", "");
    g_autofree char *tlb = NULL, *mem = NULL;
    uint64_t va5;

    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, table | KEYID(5));
    /* The rest of the table is noise: its neighbours must not be added to it */
    store(qts, 0, va5 + 8 * 8, 0);
    store(qts, 0, va5 + 9 * 8, PAGE | KEYID(5) | 7);
    store(qts, 0, va5 + 10 * 8, 0);
    load(qts, 0, table);
    store(qts, 0, pd2 + 8, table | KEYID(5) | 7);

    tlb = qtest_hmp(qts, "info tlb");
    g_assert(strstr(tlb, "0000008000209000: 0000050001400000 "));
    mem = qtest_hmp(qts, "info mem");
    g_assert(strstr(mem, "0000008000209000-000000800020a000 "
                         "0000000000001000 urw"));
    stop(qts);
}

static void add_tests(void)
{
    qtest_add_data_func("/mktme/tlb/split/off", "", test_split);
    qtest_add_data_func("/mktme/tlb/split/report", "cache=report", test_split);
    qtest_add_data_func("/mktme/tlb/split/strict", "cache=strict", test_split);
    qtest_add_data_func("/mktme/tlb/split/fxsave/off", "", test_split_fxsave);
    qtest_add_data_func("/mktme/tlb/split/fxsave/strict", "cache=strict",
                        test_split_fxsave);
    qtest_add_data_func("/mktme/tlb/split/code/one", "", test_split_code);
    qtest_add_data_func("/mktme/tlb/split/code/two", "-smp 2",
                        test_split_code);
    qtest_add_func("/mktme/tlb/info", test_info_tlb);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
