/*
 * Test for Intel Multi-Key Total Memory Encryption: the monitor and the attacks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/un.h>
#include "mktme-helper.h"

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
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-flip-bit', "
                             "'arguments': { 'addr': %d, 'bit': 3 } }",
                             PAGE + 5);
    g_assert_cmphex(load(qts, 0, va5), !=, 1);
    g_assert_cmphex(load(qts, 0, va5 + 16), ==, 3);
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-flip-bit', "
                             "'arguments': { 'addr': %d, 'bit': 3 } }",
                             PAGE + 5);
    g_assert_cmphex(load(qts, 0, va5), ==, 1);

    /* Not DRAM */
    qobject_unref(qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'x-mktme-dump', 'arguments':"
        "  { 'addr': %d, 'size': 4096, 'filename': %s } }", 256 << 20,
        tmp_path));
    qobject_unref(qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'x-mktme-flip-bit', "
        "'arguments': { 'addr': %d, 'bit': 8 } }", PAGE));
    stop(qts);
}

/* Files may be descriptors that were passed to QEMU */
static void test_fdset(void)
{
    QTestState *qts = start("", "");
    g_autofree char *after = NULL;
    uint8_t before[4096];
    uint64_t va5;
    gsize len;
    int fd;

    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    store(qts, 0, va5, 1);
    dump(qts, PAGE, before, sizeof(before));

    fd = open(tmp_path, O_WRONLY | O_TRUNC);
    g_assert_cmpint(fd, >=, 0);
    qobject_unref(qtest_qmp_fds(qts, &fd, 1, "{ 'execute': 'add-fd',"
                                "  'arguments': { 'fdset-id': 1 } }"));
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-dump', 'arguments':"
                             "  { 'addr': %d, 'size': 4096,"
                             "    'filename': '/dev/fdset/1' } }", PAGE);
    close(fd);
    g_assert(g_file_get_contents(tmp_path, &after, &len, NULL));
    g_assert_cmpmem(after, len, before, sizeof(before));
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

/* Send a command to the gdbstub; returns the answer */
static char *gdb(int sock, const char *command)
{
    g_autofree char *packet = NULL;
    g_autoptr(GString) answer = g_string_new(NULL);
    uint8_t sum = 0;
    char c;

    for (const char *p = command; *p; p++) {
        sum += *p;
    }
    packet = g_strdup_printf("$%s#%02x", command, sum);
    g_assert_cmpint(send(sock, packet, strlen(packet), 0), ==, strlen(packet));
    do {
        g_assert_cmpint(recv(sock, &c, 1, 0), ==, 1);
    } while (c != '$');
    while (recv(sock, &c, 1, 0) == 1 && c != '#') {
        g_string_append_c(answer, c);
    }
    g_assert_cmpint(send(sock, "+", 1, 0), ==, 1);
    return g_strdup(answer->str);
}

/* Debuggers change neither views nor what is dirty, and break no rule */
static void test_debug(const void *mode)
{
    g_autofree char *dir = g_dir_make_tmp("mktme-gdb-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/sock", dir);
    g_autofree char *args = g_strdup_printf("-gdb unix:%s,server=on,wait=off",
                                            path);
    g_autofree char *object = g_strdup_printf("cache=%s", (const char *)mode);
    QTestState *qts = start(object, args);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    g_autofree char *before = NULL, *after = NULL, *out = NULL;
    uint64_t va0, va5;
    int64_t switches;
    int sock;

    set_key(qts, 0, 5);
    va0 = map(qts, 0, 0, PAGE);
    va5 = map(qts, 0, 5, PAGE | KEYID(5));
    FLUSH(qts, 0, op_wbinvd, 0);
    store(qts, 0, va5, 0x1234);
    before = qtest_hmp(qts, "info mktme");
    switches = counter(qts, "view-switches");

    sock = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(sock, >=, 0);
    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    g_assert_cmpint(connect(sock, (struct sockaddr *)&addr, sizeof(addr)), ==,
                    0);
    for (int i = 0; i < 2; i++) {
        g_autofree char *read0 = g_strdup_printf("m%" PRIx64 ",8", va0);
        g_autofree char *read5 = g_strdup_printf("m%" PRIx64 ",8", va5);
        g_autofree char *write0 = g_strdup_printf("M%" PRIx64
                                                  ",8:8877665544332211",
                                                  va0 + 64);
        g_autofree char *check0 = g_strdup_printf("m%" PRIx64 ",8", va0 + 64);

        /* By virtual addresses, then by physical ones */
        if (i) {
            g_free(gdb(sock, "Qqemu.PhyMemMode:1"));
            g_free(read0);
            read0 = g_strdup_printf("m%x,8", PAGE);
            g_free(read5);
            read5 = g_strdup_printf("m%" PRIx64 ",8", PAGE | KEYID(5));
            g_free(write0);
            write0 = g_strdup_printf("M%x,8:8877665544332211", PAGE + 64);
            g_free(check0);
            check0 = g_strdup_printf("m%x,8", PAGE + 64);
        }
        out = gdb(sock, read5);
        g_assert_cmpstr(out, ==, "3412000000000000");
        g_free(out);
        out = gdb(sock, read0);
        g_assert_cmpstr(out, !=, "3412000000000000");
        g_free(out);
        out = gdb(sock, write0);
        g_assert_cmpstr(out, ==, "OK");
        g_free(out);
        out = gdb(sock, check0);
        g_assert_cmpstr(out, ==, "8877665544332211");
        g_free(out);
    }
    g_free(gdb(sock, "Qqemu.PhyMemMode:0"));
    g_free(gdb(sock, "D"));
    close(sock);
    out = qtest_hmp(qts, "xp /2gx 0x%x", PAGE);
    g_free(out);
    out = qtest_hmp(qts, "x /2gx 0x%" PRIx64, va0);
    g_free(out);
    out = qtest_hmp(qts, "pmemsave 0x%x 4096 \"%s\"", PAGE, tmp_path);
    g_assert_cmpstr(out, ==, "");

    after = qtest_hmp(qts, "info mktme");
    g_assert_cmpstr(before, ==, after);
    g_assert_cmpint(counter(qts, "violations"), ==, 0);
    g_assert_cmpint(counter(qts, "stale-lines"), ==, 0);
    g_assert_cmpint(counter(qts, "view-switches"), ==, switches);

    /* What was dirty is so, and nothing else */
    g_assert_cmphex(load(qts, 0, va5), ==, 0x1234);
    FLUSH(qts, 0, op_clflush, va5);
    g_assert_cmphex(load(qts, 0, va0 + 64), ==, 0x1122334455667788);
    g_assert_cmpint(counter(qts, "violations"), ==, 0);

    /* Nor is a page under KeyID 0 */
    FLUSH(qts, 0, op_wbinvd, 0);
    sock = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(connect(sock, (struct sockaddr *)&addr, sizeof(addr)), ==,
                    0);
    g_free(out);
    out = g_strdup_printf("M%" PRIx64 ",1:00", va0);
    g_free(gdb(sock, out));
    g_free(gdb(sock, "D"));
    close(sock);
    load(qts, 0, va5);
    g_assert_cmpint(counter(qts, "violations"), ==, 0);
    stop(qts);
    unlink(path);
    rmdir(dir);
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

static void add_tests(void)
{
    qtest_add_func("/mktme/attack", test_attack);
    qtest_add_func("/mktme/attack/fdset", test_fdset);
    qtest_add_func("/mktme/migration", test_migration);
    qtest_add_func("/mktme/guest-dump", test_guest_dump);
    qtest_add_func("/mktme/monitor/views", test_monitor);
    qtest_add_data_func("/mktme/monitor/debug/report", "report", test_debug);
    qtest_add_data_func("/mktme/monitor/debug/strict", "strict", test_debug);
    qtest_add_func("/mktme/monitor/attack", test_monitor_attack);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
