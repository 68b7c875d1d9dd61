/*
 * Test for Intel Multi-Key Total Memory Encryption: packages, hotplug and reset
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "mktme-helper.h"

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
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-mktme-inject-failure', "
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

static void unplug(QTestState *qts)
{
    /* What the guest's ACPI does */
    qtest_qmp_device_del_send(qts, "dimm");
    qtest_outl(qts, 0xa00, 0);
    qtest_outb(qts, 0xa14, 1 << 3);
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
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

        unplug(qts);
        qtest_qmp_assert_success(qts, "{ 'execute': 'object-del',"
                                 "  'arguments': { 'id': 'm2' } }");
        qobject_unref(qtest_qmp_assert_failure_ref(
            qts, "{ 'execute': 'x-mktme-dump', 'arguments':"
            "  { 'addr': %" PRIu64 ", 'size': 4096, 'filename': %s } }",
            addr, tmp_path));
        g_assert_cmphex(load(qts, 0, va5), ==, 0);
    }
    qtest_writeq(qts, flag, 1);
    wait_cpu(qts, 1, 0, 0);
    stop(qts);
}

/* A DIMM that is taken out and put in again holds what it held: ciphertext */
static void test_memory_replug(void)
{
    QTestState *qts = start("cache=report", "-m 256,slots=2,maxmem=2G "
                            "-object memory-backend-ram,id=m1,size=128M");
    const uint64_t addr = 1ULL << 32;
    uint8_t before[4096], after[4096];
    uint64_t va0, va5, val;

    set_key(qts, 0, 5);
    va0 = map(qts, 0, 0, addr);
    va5 = map(qts, 0, 5, addr | KEYID(5));
    map(qts, 0, 1, addr + 0x1000);
    map(qts, 0, 2, addr + 0x2000);

    qtest_qmp_device_add(qts, "pc-dimm", "dimm", "{ 'memdev': 'm1' }");
    store(qts, 0, va5, 0x1234);
    store(qts, 0, va0 + 0x1000, 0x5678);
    FLUSH(qts, 0, op_wbinvd, 0);
    dump(qts, addr, before, sizeof(before));
    unplug(qts);

    /* Meanwhile the key is replaced */
    g_assert_cmpint(pconfig(qts, 0, 5, SET_KEY_RANDOM | AES_128,
                            data_key, tweak_key), ==, 0);
    qtest_qmp_device_add(qts, "pc-dimm", "dimm", "{ 'memdev': 'm1' }");
    dump(qts, addr, after, sizeof(after));
    g_assert_cmpmem(after, sizeof(after), before, sizeof(before));
    g_assert_cmphex(load(qts, 0, va0), !=, 0x1234);
    g_assert_cmphex(load(qts, 0, va5), !=, 0x1234);
    g_assert_cmphex(load(qts, 0, va0 + 0x1000), ==, 0x5678);
    set_key(qts, 0, 5);
    g_assert_cmphex(load(qts, 0, va5), ==, 0x1234);
    unplug(qts);

    /* The platform key's memory, too, is of no use in another place */
    qtest_qmp_device_add(qts, "pc-dimm", "dimm",
                         "{ 'memdev': 'm1', 'addr': %" PRIu64 " }",
                         addr + (128 << 20));
    map(qts, 0, 1, addr + (128 << 20) + 0x1000);
    val = load(qts, 0, va0 + 0x1000);
    g_assert_cmphex(val, !=, 0x5678);
    g_assert_cmphex(val, !=, 0);
    unplug(qts);

    /* Another one at the same place in QEMU's memory, maybe, is a new one */
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del',"
                             "  'arguments': { 'id': 'm1' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments':"
                             "  { 'qom-type': 'memory-backend-ram',"
                             "    'id': 'm1', 'size': %d } }", 128 << 20);
    qtest_qmp_device_add(qts, "pc-dimm", "dimm", "{ 'memdev': 'm1' }");
    map(qts, 0, 1, addr + 0x1000);
    g_assert_cmphex(load(qts, 0, va0 + 0x1000), ==, 0);
    stop(qts);
}

static void add_tests(void)
{
    qtest_add_func("/mktme/reset", test_reset);
    qtest_add_func("/mktme/packages", test_packages);
    for (uintptr_t n = 1; n <= 4; n *= 2) {
        g_autofree char *path = g_strdup_printf("/mktme/sockets/%u",
                                                (unsigned)n);

        qtest_add_data_func(path, (void *)n, test_sockets);
    }
    qtest_add_func("/mktme/hotplug/package", test_hotplug);
    qtest_add_func("/mktme/hotplug/memory", test_memory_hotplug);
    qtest_add_func("/mktme/hotplug/replug", test_memory_replug);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
