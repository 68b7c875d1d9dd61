/*
 * Tests of mktme-key, and of memory backends that have one
 *
 * They do without a host that has such keys: they are about what is refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"

/* object-add fails, and says @text; the object is not there then. */
static void refused(QTestState *qts, const char *arguments, const char *text)
{
    QDict *response = qtest_qmp(
        qts, "{ 'execute': 'object-add', 'arguments': %p }",
        qobject_from_json(arguments, &error_abort));
    QDict *error = qdict_get_qdict(response, "error");
    QList *list;
    QListEntry *e;

    g_assert_nonnull(error);
    if (!strstr(qdict_get_str(error, "desc"), text)) {
        g_error("%s: wanted '%s', got '%s'", arguments, text,
                qdict_get_str(error, "desc"));
    }
    qobject_unref(response);

    response = qtest_qmp(qts, "{ 'execute': 'qom-list',"
                         "  'arguments': { 'path': '/objects' } }");
    list = qdict_get_qlist(response, "return");
    QLIST_FOREACH_ENTRY(list, e) {
        g_assert_cmpstr(qdict_get_str(qobject_to(QDict, qlist_entry_obj(e)),
                                      "name"), !=, "x");
    }
    qobject_unref(response);
}

#define KEY(props) "{ 'qom-type': 'mktme-key', 'id': 'x'" props " }"
#define CPU ", 'source': 'cpu'"
#define USER ", 'source': 'user'"
#define SERIAL ", 'source': 'serial'"
#define DESCRIPTION ", 'source': 'description'"
#define NO_ENCRYPT ", 'source': 'no-encrypt'"
#define AES128 ", 'algorithm': 'aes-xts-128'"
#define AES256 ", 'algorithm': 'aes-xts-256'"
#define SECRETS ", 'key-secret': 's16', 'tweak-secret': 's16'"

static void test_properties(void)
{
    QTestState *qts = qtest_init("-machine none "
        "-object secret,id=s16,data=0123456789abcdef "
        "-object secret,id=s32,data=0123456789abcdef0123456789abcdef");

    refused(qts, KEY(""), "'source' is missing");
    refused(qts, KEY(", 'source': 'other'"), "other");
    refused(qts, KEY(", 'serial': 7"), "'source' is missing");

    refused(qts, KEY(SERIAL), "'serial' is missing");
    refused(qts, KEY(SERIAL ", 'serial': 0"), "greater than 0");
    refused(qts, KEY(SERIAL ", 'serial': -3"), "greater than 0");
    refused(qts, KEY(SERIAL ", 'serial': 7, 'description': 'd'"),
            "'description' is unexpected");
    refused(qts, KEY(SERIAL ", 'serial': 7" AES128),
            "'algorithm' is unexpected");
    refused(qts, KEY(DESCRIPTION), "'description' is missing");
    refused(qts, KEY(DESCRIPTION ", 'description': 'd'" SECRETS),
            "-secret' is unexpected");

    refused(qts, KEY(CPU), "'algorithm' is missing");
    refused(qts, KEY(CPU ", 'algorithm': 'aes-xts-512'"), "aes-xts-512");
    refused(qts, KEY(CPU ", 'serial': 7" AES128), "'serial' is unexpected");
    refused(qts, KEY(CPU ", 'tweak-secret': 's16'" AES128), "go together");
    refused(qts, KEY(CPU ", 'key-secret': 's16'" AES128), "go together");
    refused(qts, KEY(NO_ENCRYPT AES128), "'algorithm' is unexpected");
    refused(qts, KEY(NO_ENCRYPT SECRETS), "-secret' is unexpected");

    refused(qts, KEY(USER AES128), "'key-secret' is missing");
    refused(qts, KEY(USER ", 'key-secret': 's16'" AES128),
            "'tweak-secret' is missing");
    refused(qts, KEY(USER SECRETS), "'algorithm' is missing");
    refused(qts, KEY(USER ", 'key-secret': 'none', 'tweak-secret': 's16'"
                     AES128), "No secret with id 'none'");
    refused(qts, KEY(USER SECRETS AES256),
            "has 16 bytes, the algorithm needs 32");
    refused(qts, KEY(USER ", 'key-secret': 's32', 'tweak-secret': 's16'"
                     AES256), "'s16' has 16 bytes, the algorithm needs 32");

    qtest_quit(qts);
}

/* Whether the host has such keys or not: there can't be these. */
static void test_no_key(void)
{
    QTestState *qts = qtest_init("-machine none -object secret,id=s16,data=x");

    refused(qts, KEY(SERIAL ", 'serial': 2147483647"),
            "cannot put memory under key 2147483647: ");
    refused(qts, KEY(DESCRIPTION ", 'description': 'qtest: there is no such "
                     "key'"),
            "cannot find a key with the description 'qtest: there is no such "
            "key': ");
    refused(qts, "{ 'qom-type': 'memory-backend-ram', 'id': 'x',"
                 "  'size': 1048576, 'mktme-key': 'none' }", "none");
    refused(qts, "{ 'qom-type': 'memory-backend-ram', 'id': 'x',"
                 "  'size': 1048576, 'mktme-key': 's16' }",
            "expected: mktme-key");
    /* Not by an empty variable either is there memory without a key */
    refused(qts, "{ 'qom-type': 'memory-backend-ram', 'id': 'x',"
                 "  'size': 1048576, 'mktme-key': '' }",
                 "needs the ID of a key");

    qtest_quit(qts);
}

/* If the host has no such keys, that is said, and nothing else is taken. */
static void test_no_host(void)
{
    QTestState *qts;

    if (!access("/sys/kernel/mm/mktme", F_OK)) {
        g_test_skip("the host has MKTME");
        return;
    }
    qts = qtest_init("-machine none");
    refused(qts, KEY(CPU AES128), "cannot create a key: the host's kernel");
    refused(qts, KEY(SERIAL ", 'serial': 7"),
            "cannot put memory under key 7: the host");
    qtest_quit(qts);
}

/* What management software looks for */
static void test_introspection(void)
{
    static const char *const props[] = {
        "serial", "description", "source", "algorithm", "key-secret",
        "tweak-secret",
    };
    QTestState *qts = qtest_init("-machine none");
    const char *types[] = { "mktme-key", "memory-backend-ram" };

    for (int t = 0; t < ARRAY_SIZE(types); t++) {
        QDict *response = qtest_qmp(qts,
            "{ 'execute': 'qom-list-properties',"
            "  'arguments': { 'typename': %s } }", types[t]);
        QList *list = qdict_get_qlist(response, "return");
        unsigned found = 0;
        QListEntry *e;

        QLIST_FOREACH_ENTRY(list, e) {
            const char *name = qdict_get_str(qobject_to(QDict,
                                                        qlist_entry_obj(e)),
                                             "name");

            if (t) {
                found += g_str_equal(name, "mktme-key");
                continue;
            }
            for (int i = 0; i < ARRAY_SIZE(props); i++) {
                found += g_str_equal(name, props[i]);
            }
        }
        g_assert_cmpuint(found, ==, t ? 1 : ARRAY_SIZE(props));
        qobject_unref(response);
    }
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/mktme-key/properties", test_properties);
    qtest_add_func("/mktme-key/no-key", test_no_key);
    qtest_add_func("/mktme-key/no-host", test_no_host);
    qtest_add_func("/mktme-key/introspection", test_introspection);

    return g_test_run();
}
