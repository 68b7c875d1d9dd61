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

static void test_inject(void)
{
    QTestState *qts = start("", "");

    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-inject-failure', "
                             "'arguments': { 'failure': 'device-busy', "
                             "'count': 2 } }");
    /* One that fails anyway does not count */
    g_assert_cmpint(pconfig(qts, 0, 0, AES_128, data_key, tweak_key), ==, 3);
    g_assert_cmpint(pconfig(qts, 0, 5, AES_128, data_key, tweak_key), ==, 5);
    g_assert_cmpint(pconfig(qts, 0, 5, AES_128, data_key, tweak_key), ==, 5);
    g_assert_cmpint(pconfig(qts, 0, 5, AES_128, data_key, tweak_key), ==, 0);
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-inject-failure', "
                             "'arguments': { 'failure': 'entropy-error', "
                             "'package': 0 } }");
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
    qtest_add_func("/mktme/inject", test_inject);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
