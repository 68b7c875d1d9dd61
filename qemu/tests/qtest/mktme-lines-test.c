/*
 * Test for Intel Multi-Key Total Memory Encryption: the rules for caches
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "mktme-helper.h"

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
    g_assert_cmpstr(qdict_get_str(data, "qom-path"), ==, "/objects/mktme0");
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
 * With -icount a clock can't be read in the middle of a translation block. That
 * is where the page fault of a nested guest is stored into its VMCB, which the
 * guest has made dirty under another KeyID: one that means the same key.
 */
static void test_cache_icount(void)
{
    static const uint8_t op_guest[] = {
        0x0f, 0x09,                         /* wbinvd */
        0xb9, 0x40, 0x42, 0x0f, 0x00,       /* mov $1000000, %ecx */
        0xe2, 0xfe,                         /* loop, to itself */
        0x48, 0x89, 0x77, 0x40,             /* mov %rsi, 0x40(%rdi) */
        0x48, 0x8b, 0x1b,                   /* mov (%rbx), %rbx */
        0x90, 0x90, 0x90, 0x90,
    };
    const uint64_t hsave = 0x220000, guest_code = 0x230000;
    QTestState *qts = start("cache=strict", "-icount shift=1");
    int64_t violations;
    uint64_t va5, va7;
    Regs r;

    va7 = map(qts, 0, 7, PAGE | KEYID(7));
    svm_enable(qts, hsave);
    vmcb_init(qts, PAGE, guest_code, 0x240000);
    qtest_memwrite(qts, guest_code, op_guest, sizeof(op_guest));
    FLUSH(qts, 0, op_wbinvd, 0);
    r = (Regs) { .rax = PAGE, .rbx = WINDOW + 0x100000, .rdi = va7 };
    RUN(qts, 0, op_vmrun, &r);
    g_assert_cmphex(r.vector, ==, NO_EXCEPTION);
    g_assert_cmphex(qtest_readl(qts, PAGE + 0x70), ==, 0x40 + PF);
    violations = counter(qts, "violations");
    g_assert_cmpint(violations, >, 0);
    wait_late_writes(qts, 1);

    /* And where the page comes into another view */
    set_key(qts, 0, 5);
    va5 = map(qts, 0, 5, (PAGE + 0x1000) | KEYID(5));
    store(qts, 0, va5, 0x2222);
    load(qts, 0, map(qts, 0, 6, PAGE + 0x1000));
    g_assert_cmpint(counter(qts, "violations"), >, violations);
    wait_late_writes(qts, 2);
    stop(qts);
}

static void add_tests(void)
{
    const char *modes[] = { "report", "strict" };

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
        };

        for (int j = 0; j < ARRAY_SIZE(tests); j++) {
            g_autofree char *path = g_strdup_printf("/mktme/cache/%s/%s",
                                                    modes[i], tests[j].name);

            qtest_add_data_func(path, modes[i], tests[j].func);
        }
    }
    qtest_add_func("/mktme/cache/trace", test_cache_trace);
    qtest_add_func("/mktme/cache/late-write", test_cache_strict);
    qtest_add_func("/mktme/cache/icount", test_cache_icount);
}

int main(int argc, char **argv)
{
    return mktme_test_main(argc, argv, add_tests);
}
