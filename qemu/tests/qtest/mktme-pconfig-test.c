/*
 * Test for Intel Multi-Key Total Memory Encryption: PCONFIG
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "mktme-helper.h"

static void test_pconfig_failures(void)
{
    QTestState *qts = start("", "");
    static const struct {
        uint16_t keyid;
        uint32_t ctrl;
        uint64_t vector;
    } cases[] = {
        { 5, 4 | AES_128, GP },
        { 5, 0xff | AES_128, GP },
        { 5, 1u << 24 | AES_128, GP },
        { 5, 1u << 31 | AES_128, GP },
        { 0, SET_KEY_DIRECT | AES_128, GP },
        { 64, SET_KEY_DIRECT | AES_128, GP },
        { 0xffff, CLEAR_KEY | AES_128, GP },
        { 5, SET_KEY_DIRECT, GP },
        { 5, SET_KEY_DIRECT | AES_128 | AES_256, GP },
        { 5, SET_KEY_RANDOM | 2 << 8, GP },
        { 5, CLEAR_KEY, GP },
        { 5, NO_ENCRYPT | 0x8000 << 8, GP },
        { 5, SET_KEY_DIRECT | AES_128, NO_EXCEPTION },
        { 63, SET_KEY_RANDOM | AES_256, NO_EXCEPTION },
        { 63, CLEAR_KEY | AES_256, NO_EXCEPTION },
        { 63, NO_ENCRYPT | AES_256, NO_EXCEPTION },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_assert_cmphex(pconfig_vector(qts, 0, cases[i].keyid, cases[i].ctrl),
                        ==, cases[i].vector);
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

    /* Leaves, before the address is looked at; those of TSE are not there */
    for (int i = 1; i <= 3; i++) {
        r = (Regs) { .rax = i, .rbx = WINDOW + 0x100000 };
        RUN(qts, 0, op_pconfig, &r);
        g_assert_cmphex(r.vector, ==, GP);
        g_assert_cmphex(r.error, ==, 0);
    }

    /* Alignment, before it is read */
    r = (Regs) { .rbx = KEY_PROGRAM + 64 };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, GP);
    r = (Regs) { .rbx = WINDOW + 0x100040 };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, GP);

    /* Not canonical */
    r = (Regs) { .rbx = 1ULL << 63 };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, GP);

    /* Not mapped */
    r = (Regs) { .rbx = WINDOW + 0x100000 };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, PF);
    g_assert_cmphex(r.cr2, ==, WINDOW + 0x100000);
    g_assert_cmphex(r.error, ==, 0);

    /* The address is 64 bits wide, with an address-size prefix too */
    op[0] = 0x67;
    memcpy(op + 1, op_pconfig, sizeof(op_pconfig));
    r = (Regs) { .rbx = 1ULL << 40 | KEY_PROGRAM };
    run(qts, 0, op, 1 + sizeof(op_pconfig), &r);
    g_assert_cmphex(r.vector, ==, PF);
    g_assert_cmphex(r.cr2, ==, 1ULL << 40 | KEY_PROGRAM);

    g_assert_cmpint(counter(qts, "keys-programmed"), ==, 0);

    /* EAX is the leaf; the bytes after KEYID_CTRL are ignored */
    memset(buf + 6, 0xff, 58);
    qtest_memwrite(qts, KEY_PROGRAM, buf, 192);
    r = (Regs) { .rax = 1ULL << 32, .rbx = KEY_PROGRAM };
    RUN(qts, 0, op_pconfig, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex(r.rax, ==, 0);
    g_assert_cmpint(counter(qts, "keys-programmed"), ==, 1);
    stop(qts);
}

/* In compatibility mode the address is that in EBX, whatever CS.D says */
static void test_pconfig_address(void)
{
    static const uint8_t op_sgdt[] = { 0x0f, 0x01, 0x07, 0xc3 };
    /* The far return leads to the pconfig, the jump from there to the ret */
    static const uint8_t op_32[] = {
        0x6a, 0x18,                         /* push $CODE32 */
        0x68, 0x09, 0x00, 0x02, 0x00,       /* push $CODE + 9 */
        0x48, 0xcb,                         /* lretq */
        0x0f, 0x01, 0xc5,                   /* pconfig */
        0xea, 0x13, 0x00, 0x02, 0x00, 0x08, 0x00, /* ljmp $CODE64, $CODE + 19 */
        0xc3,
    };
    static const uint8_t op_16[] = {
        0x68, 0x20, 0x01, 0x00, 0x00,       /* push $0x120 */
        0x6a, 0x09,                         /* push $9 */
        0x48, 0xcb,                         /* lretq */
        0x0f, 0x01, 0xc5,                   /* pconfig */
        0x66, 0xea, 0x14, 0x00, 0x02, 0x00, 0x08, 0x00, /* ljmpl */
        0xc3,
    };
    QTestState *qts = start("", "");
    uint8_t buf[192];
    Regs r;

    /* A 16-bit code segment at CODE in place of the 16th CPU's TSS */
    r = (Regs) { .rdi = USER_STACK };
    RUN(qts, 0, op_sgdt, &r);
    qtest_writeq(qts, qtest_readq(qts, USER_STACK + 2) + 0x120,
                 0x008f9b020000ffff);

    key_program(buf, 5, SET_KEY_DIRECT | AES_128, data_key, tweak_key);
    qtest_memwrite(qts, KEY_PROGRAM, buf, sizeof(buf));
    r = (Regs) { .rbx = 1ULL << 40 | KEY_PROGRAM };
    RUN(qts, 0, op_32, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex((uint32_t)r.rax, ==, 0);
    g_assert_cmpint(counter(qts, "keys-programmed"), ==, 1);
    r = (Regs) { .rbx = 1ULL << 40 | KEY_PROGRAM };
    RUN(qts, 0, op_16, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex((uint32_t)r.rax, ==, 0);
    g_assert_cmpint(counter(qts, "keys-programmed"), ==, 2);
    stop(qts);
}

static void test_inject(void)
{
    QTestState *qts = start("", "");

    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-inject-failure', "
                             "'arguments': { 'failure': 'device-busy', "
                             "'count': 2 } }");
    /* One that faults does not count; any other does */
    g_assert_cmphex(pconfig_vector(qts, 0, 0, AES_128), ==, GP);
    g_assert_cmpint(pconfig(qts, 0, 5, AES_128, data_key, tweak_key), ==, 5);
    g_assert_cmpint(pconfig(qts, 0, 5, CLEAR_KEY | AES_128, data_key,
                            tweak_key), ==, 5);
    g_assert_cmpint(pconfig(qts, 0, 5, AES_128, data_key, tweak_key), ==, 0);
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-inject-failure', "
                             "'arguments': { 'failure': 'entropy-error', "
                             "'package': 0 } }");
    /* No other command needs entropy */
    set_key(qts, 0, 5);
    g_assert_cmpint(pconfig(qts, 0, 5, CLEAR_KEY | AES_128,
                            data_key, tweak_key), ==, 0);
    g_assert_cmpint(pconfig(qts, 0, 5, NO_ENCRYPT | AES_128,
                            data_key, tweak_key), ==, 0);
    g_assert_cmpint(pconfig(qts, 0, 5, SET_KEY_RANDOM | AES_128,
                            data_key, tweak_key), ==, 2);
    g_assert_cmpint(pconfig(qts, 0, 5, SET_KEY_RANDOM | AES_128,
                            data_key, tweak_key), ==, 0);
    qobject_unref(qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'x-mktme-inject-failure', "
        "'arguments': { 'failure': 'device-busy', 'package': 1 } }"));
    stop(qts);
}

static void add_tests(void)
{
    qtest_add_func("/mktme/pconfig/failures", test_pconfig_failures);
    qtest_add_func("/mktme/pconfig/faults", test_pconfig_faults);
    qtest_add_func("/mktme/pconfig/address", test_pconfig_address);
    qtest_add_func("/mktme/inject", test_inject);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
