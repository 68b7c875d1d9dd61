/*
 * Test for Intel Multi-Key Total Memory Encryption: the memory of SVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "mktme-helper.h"

/* Pages under KeyIDs 5 and 6 */
#define VMCB            (PAGE + 0x2000)
#define HSAVE           (PAGE + 0x3000)
#define MSRPM           (PAGE + 0x4000)     /* 2 pages */
#define IOPM            (PAGE + 0x6000)     /* 3 pages */

#define GUEST_CODE      0x230000
#define GUEST_STACK     0x240000

#define EXIT_CODE       0x70
#define RIP             0x578

#define VMEXIT_MSR      0x7c
#define VMEXIT_IOIO     0x7b
#define VMEXIT_VMMCALL  0x81

#define MSR_EFER        0xc0000080
#define MSR_STAR        0xc0000081
#define MSR_VM_HSAVE_PA 0xc0010117

typedef struct Svm {
    QTestState *qts;
    uint64_t vmcb, hsave, msrpm, iopm;      /* linear addresses */
} Svm;

/* A page of zeros under a KeyID */
static uint64_t new_page(QTestState *qts, unsigned n, uint64_t phys)
{
    static const uint8_t op_clear[] = { 0xf3, 0x48, 0xab, 0xc3 };
    uint64_t va = map(qts, 0, n, phys);
    Regs r = { .rdi = va, .rcx = 512 };

    RUN(qts, 0, op_clear, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    return va;
}

static void svm_start(Svm *t, const char *object)
{
    /* ES, CS, SS, DS */
    static const uint64_t segs[] = {
        0xffffffff0c930010, 0xffffffff0a9b0008, 0xffffffff0c930010,
        0xffffffff0c930010,
    };
    /* With one CPU, views can be changed at any time */
    QTestState *qts = start(object, "-smp 2");

    t->qts = qts;
    set_key(qts, 0, 5);
    g_assert_cmpint(pconfig(qts, 0, 6, SET_KEY_RANDOM | AES_256,
                            data_key, tweak_key), ==, 0);
    t->vmcb = new_page(qts, 5, VMCB | KEYID(5));
    t->hsave = new_page(qts, 6, HSAVE | KEYID(6));
    for (int i = 0; i < 5; i++) {
        new_page(qts, 7 + i, (MSRPM + i * 0x1000) | KEYID(6));
    }
    t->msrpm = WINDOW + 7 * 0x1000;
    t->iopm = t->msrpm + 0x2000;

    store(qts, 0, t->vmcb + 0x08, 0xffffffff | 1ULL << 63); /* shutdown */
    store(qts, 0, t->vmcb + 0x10, 3);                   /* vmrun, vmmcall */
    store(qts, 0, t->vmcb + 0x40, IOPM | KEYID(6));
    store(qts, 0, t->vmcb + 0x48, MSRPM | KEYID(6));
    store(qts, 0, t->vmcb + 0x58, 1);                   /* ASID */
    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        store(qts, 0, t->vmcb + 0x400 + i * 16, segs[i]);
    }
    store(qts, 0, t->vmcb + 0x4d0, 0x1500);             /* EFER */
    store(qts, 0, t->vmcb + 0x548, 0x620);              /* CR4 */
    store(qts, 0, t->vmcb + 0x550, 0x1000);             /* CR3 */
    store(qts, 0, t->vmcb + 0x558, 0x80010033);         /* CR0 */
    store(qts, 0, t->vmcb + 0x560, 0x400);              /* DR7 */
    store(qts, 0, t->vmcb + 0x568, 0xffff0ff0);         /* DR6 */
    store(qts, 0, t->vmcb + 0x570, 2);
    store(qts, 0, t->vmcb + 0x5d8, GUEST_STACK);

    g_assert_cmphex(wrmsr(qts, 0, MSR_EFER, 0x1500), ==, NO_EXCEPTION);
    g_assert_cmphex(wrmsr(qts, 0, MSR_VM_HSAVE_PA, HSAVE | KEYID(6)), ==,
                    NO_EXCEPTION);
}

#define SVM_RUN(t, op, regs) svm_run(t, op, sizeof(op), regs)

/* Run the guest with @op, which ends with VMMCALL or is intercepted */
static uint64_t svm_run(Svm *t, const uint8_t *op, size_t len, Regs *r)
{
    r->rax = VMCB | KEYID(5);
    RUN(t->qts, 0, op_vmrun, r);
    g_assert_cmphex(r->vector, ==, NO_EXCEPTION);
    g_assert_cmphex(r->rax, ==, VMCB | KEYID(5));
    return load(t->qts, 0, t->vmcb + EXIT_CODE);
}

static void svm_set_code(Svm *t, const uint8_t *op, size_t len)
{
    qtest_memwrite(t->qts, GUEST_CODE, op, len);
    store(t->qts, 0, t->vmcb + RIP, GUEST_CODE);
}

/* VMRUN and #VMEXIT, of which each page is in view or not */
static void test_vmrun(const void *object)
{
    /* inc %rbx; vmmcall */
    static const uint8_t op[] = { 0x48, 0xff, 0xc3, 0x0f, 0x01, 0xd9 };
    Svm t;
    Regs r = { 0 };

    svm_start(&t, object);
    for (int i = 0; i < 4; i++) {
        svm_set_code(&t, op, sizeof(op));
        FLUSH(t.qts, 0, op_wbinvd, 0);
        load(t.qts, 0, i & 1 ? t.vmcb : VMCB);
        load(t.qts, 0, i & 2 ? t.hsave : HSAVE);
        g_assert_cmphex(SVM_RUN(&t, op, &r), ==, VMEXIT_VMMCALL);
        g_assert_cmpint(r.rbx, ==, i + 1);
        g_assert_cmphex(load(t.qts, 0, t.vmcb + RIP), ==, GUEST_CODE + 3);
        /* Nobody else has used them */
        FLUSH(t.qts, 0, op_wbinvd, 0);
    }
    g_assert_cmpint(counter(t.qts, "violations"), ==, 0);
    stop(t.qts);
}

/* Another CPU changes the views all the time */
static void test_race(void)
{
    static const uint8_t op_host[] = {
        0x48, 0x89, 0xb7, 0x78, 0x05, 0, 0, /* 1: mov %rsi, RIP(%rdi) */
        0x0f, 0x01, 0xd8,                   /* vmrun */
        0x81, 0x7f, 0x70, 0x81, 0, 0, 0,    /* cmpl $VMMCALL, EXIT(%rdi) */
        0x75, 0x05,                         /* jne 2f */
        0x48, 0xff, 0xc9,                   /* dec %rcx */
        0x75, 0xe8,                         /* jne 1b */
        0x0f, 0x01, 0xdc,                   /* 2: stgi */
        0xc3,
    };
    static const uint8_t op_other[] = {
        0x48, 0x8b, 0x07,                   /* 1: mov (%rdi), %rax */
        0x48, 0x8b, 0x06,                   /* mov (%rsi), %rax */
        0x48, 0x83, 0x3b, 0x00,             /* cmpq $0, (%rbx) */
        0x74, 0xf4,                         /* je 1b */
        0xc3,
    };
    static const uint8_t op_guest[] = { 0x48, 0xff, 0xc3, 0x0f, 0x01, 0xd9 };
    const uint64_t flag = 0x250000;
    const unsigned n = 2000;
    int64_t end;
    Svm t;
    Regs r;

    svm_start(&t, "");
    start_ap(t.qts, 1);
    svm_set_code(&t, op_guest, sizeof(op_guest));
    qtest_writeq(t.qts, flag, 0);
    r = (Regs) { .rdi = VMCB, .rsi = HSAVE, .rbx = flag,
                 .code = CODE + 0x1000 };
    qtest_memwrite(t.qts, r.code, op_other, sizeof(op_other));
    qtest_memwrite(t.qts, MBOX + 256 + 8, &r, offsetof(Regs, vector));
    qtest_writeq(t.qts, MBOX + 256, 1);

    /* Until they have met often enough */
    end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    do {
        r = (Regs) { .rax = VMCB | KEYID(5), .rdi = t.vmcb, .rsi = GUEST_CODE,
                     .rcx = n };
        RUN(t.qts, 0, op_host, &r);
        g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
        g_assert_cmphex(load(t.qts, 0, t.vmcb + EXIT_CODE), ==,
                        VMEXIT_VMMCALL);
        g_assert_cmpint(r.rcx, ==, 0);
        g_assert_cmpint(r.rbx, ==, n);
        g_assert_cmphex(r.rax, ==, VMCB | KEYID(5));
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    } while (counter(t.qts, "view-switches") < 10000);
    qtest_writeq(t.qts, flag, 1);
    wait_cpu(t.qts, 1, 0, 0);
    stop(t.qts);
}

static void expect_cpu_violation(Svm *t, uint64_t addr, unsigned keyid)
{
    QDict *event = qtest_qmp_eventwait_ref(t->qts, "MKTME_VIOLATION");
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "violation"), ==, "cpu-access");
    g_assert_cmphex(qdict_get_int(data, "addr"), ==, addr);
    g_assert_cmpint(qdict_get_int(data, "dirty-keyid"), ==, 0);
    g_assert_cmpint(qdict_get_int(data, "keyid"), ==, keyid);
    qobject_unref(event);
    FLUSH(t->qts, 0, op_wbinvd, 0);
}

/* What VMRUN and others access counts as a CPU's access, not as a device's */
static void test_violations(void)
{
    /* rdmsr; vmmcall */
    static const uint8_t op_rdmsr_guest[] = {
        0x0f, 0x32, 0x0f, 0x01, 0xd9,
    };
    /* in (%dx), %ax */
    static const uint8_t op_in[] = { 0x66, 0xed, 0x0f, 0x01, 0xd9 };
    static const uint8_t op_vmload[] = { 0x0f, 0x01, 0xda, 0xc3 };
    static const uint8_t op_vmsave[] = { 0x0f, 0x01, 0xdb, 0xc3 };
    const uint64_t pages[] = { VMCB, HSAVE };
    Svm t;
    Regs r;

    svm_start(&t, "cache=report");
    FLUSH(t.qts, 0, op_wbinvd, 0);

    /* VMLOAD and VMSAVE */
    g_assert_cmphex(wrmsr(t.qts, 0, MSR_STAR, 0x1234), ==, NO_EXCEPTION);
    r = (Regs) { .rax = VMCB | KEYID(5) };
    store(t.qts, 0, VMCB + 0xff8, 0);
    RUN(t.qts, 0, op_vmsave, &r);
    expect_cpu_violation(&t, VMCB, 5);
    g_assert_cmphex(load(t.qts, 0, t.vmcb + 0x600), ==, 0x1234);
    store(t.qts, 0, t.vmcb + 0x600, 0x5678);
    FLUSH(t.qts, 0, op_wbinvd, 0);
    store(t.qts, 0, VMCB + 0xff8, 0);
    RUN(t.qts, 0, op_vmload, &r);
    expect_cpu_violation(&t, VMCB, 5);
    g_assert_cmphex(rdmsr(t.qts, 0, MSR_STAR), ==, 0x5678);

    /* VMRUN: of the two pages */
    svm_set_code(&t, op_in + 2, 3);
    FLUSH(t.qts, 0, op_wbinvd, 0);
    for (int i = 0; i < ARRAY_SIZE(pages); i++) {
        store(t.qts, 0, pages[i] + 0xff8, 0);
        r = (Regs) { 0 };
        g_assert_cmphex(SVM_RUN(&t, op_in, &r), ==, VMEXIT_VMMCALL);
        expect_cpu_violation(&t, pages[i], 5 + i);
    }

    /* The MSR permission map, which lets it pass, and intercepts it */
    store(t.qts, 0, t.vmcb + 0x08, 0xffffffff | 1ULL << 63 | 1ULL << 60);
    for (int i = 0; i < 2; i++) {
        svm_set_code(&t, op_rdmsr_guest, sizeof(op_rdmsr_guest));
        store(t.qts, 0, t.msrpm + 0x820, i ? 3 << 2 : 0);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        store(t.qts, 0, MSRPM + 0xff8, 0);
        r = (Regs) { .rcx = MSR_STAR };
        g_assert_cmphex(SVM_RUN(&t, op_rdmsr_guest, &r), ==,
                        i ? VMEXIT_MSR : VMEXIT_VMMCALL);
        g_assert_cmphex(load(t.qts, 0, t.vmcb + RIP), ==,
                        GUEST_CODE + (i ? 0 : 2));
        expect_cpu_violation(&t, MSRPM, 6);
    }

    /* The port permission map, whose bits are in two pages */
    store(t.qts, 0, t.vmcb + 0x08, 0xffffffff | 1ULL << 63 | 1ULL << 59);
    for (int i = 0; i < 2; i++) {
        svm_set_code(&t, op_in, sizeof(op_in));
        store(t.qts, 0, t.iopm + 0x1000, i);
        FLUSH(t.qts, 0, op_wbinvd, 0);
        store(t.qts, 0, IOPM + 0x1ff8, 0);
        r = (Regs) { .rdx = 0x7fff };
        g_assert_cmphex(SVM_RUN(&t, op_in, &r), ==,
                        i ? VMEXIT_IOIO : VMEXIT_VMMCALL);
        g_assert_cmphex(load(t.qts, 0, t.vmcb + RIP), ==,
                        GUEST_CODE + (i ? 0 : 2));
        expect_cpu_violation(&t, IOPM + 0x1000, 6);
    }

    /* Each of them once */
    g_assert_cmpint(counter(t.qts, "violations"), ==, 8);
    stop(t.qts);
}

static void add_tests(void)
{
    qtest_add_data_func("/mktme/svm/vmrun/off", "", test_vmrun);
    qtest_add_data_func("/mktme/svm/vmrun/strict", "cache=strict", test_vmrun);
    qtest_add_func("/mktme/svm/race", test_race);
    qtest_add_func("/mktme/svm/violations", test_violations);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
