/*
 * Test for Intel Multi-Key Total Memory Encryption: CPUID and MSRs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "mktme-helper.h"

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
    g_assert_cmphex(pconfig_vector(qts, 0, 10, SET_KEY_DIRECT | AES_256), ==,
                    GP);
    g_assert_cmphex(pconfig_vector(qts, 0, 1, SET_KEY_DIRECT | AES_128), ==,
                    GP);
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
        g_assert_cmphex(pconfig_vector(qts, 0, k, SET_KEY_DIRECT | AES_256),
                        ==, k >= 1 && k <= 7 ? NO_EXCEPTION : GP);
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
    g_assert_cmphex(pconfig_vector(qts, 0, 4, SET_KEY_DIRECT | AES_256), ==,
                    GP);
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

    /*
     * Firmware that leaves it disabled, and locks that: whatever policy 0,
     * which it does not ask for, stands for
     */
    qts = start("activate=off,aes-xts-128=off", "");
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE, 2), ==, GP);
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE, 0), ==, NO_EXCEPTION);
    g_assert_cmphex(rdmsr(qts, 0, MSR_ACTIVATE), ==, 1);
    g_assert_cmphex(wrmsr(qts, 0, MSR_ACTIVATE, 0), ==, GP);
    g_assert_cmphex(pconfig_vector(qts, 0, 5, SET_KEY_DIRECT | AES_256), ==,
                    GP);
    stop(qts);
}

static void add_tests(void)
{
    qtest_add_func("/mktme/enumeration", test_enumeration);
    qtest_add_func("/mktme/tdx", test_tdx);
    qtest_add_func("/mktme/off", test_off);
    qtest_add_func("/mktme/activate", test_activate);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
