/*
 * Test for Intel Multi-Key Total Memory Encryption: views of pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "mktme-helper.h"

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

/*
 * A nested guest: its memory, and its page table, are under KeyIDs that the
 * nested page tables give, of which it knows nothing
 */
static void test_nested(const void *mode)
{
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

    vmcb_init(qts, vmcb, guest_code, 0x240000);
    qtest_writeq(qts, vmcb + 0x90, 1);                  /* nested paging */
    qtest_writeq(qts, vmcb + 0xb0, npt);
    qtest_memwrite(qts, guest_code, op_guest, sizeof(op_guest));

    svm_enable(qts, hsave);
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

    /* No intercept is there for PCONFIG: the guest has none */
    qtest_memwrite(qts, guest_code, op_pconfig, sizeof(op_pconfig));
    qtest_writeq(qts, vmcb + 0x578, guest_code);
    r = (Regs) { .rax = vmcb, .rbx = KEY_PROGRAM };
    RUN(qts, 0, op_vmrun, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex(qtest_readq(qts, vmcb + 0x578), ==, guest_code);
    g_assert_cmphex(qtest_readl(qts, vmcb + 0x70), ==, 0x40 + UD);
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

static void add_tests(void)
{
    qtest_add_func("/mktme/ciphertext", test_ciphertext);
    qtest_add_func("/mktme/views", test_views);
    qtest_add_func("/mktme/code", test_code);
    qtest_add_data_func("/mktme/nested/off", "off", test_nested);
    qtest_add_data_func("/mktme/nested/strict", "strict", test_nested);
    qtest_add_data_func("/mktme/smp/single", "single", test_smp);
    qtest_add_data_func("/mktme/smp/multi", "multi", test_smp);
    qtest_add_func("/mktme/smp/split-lock", test_smp_split_lock);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
