/*
 * Memory encryption keys of the host
 *
 * On hosts with Intel MKTME (TME-MK), Linux has keys of the type "mktme" in its
 * key retention service, and puts anonymous memory under them by the system
 * call encrypt_mprotect().  An object of this type is such a key: one that is
 * there already, or one that lives as long as the object.  Memory backends
 * take it by their property "mktme-key".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/keyctl.h>
#include <sys/syscall.h>
#include "block/aio.h"
#include "crypto/secret.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "qemu/rcu.h"
#include "qom/object_interfaces.h"
#include "system/mktme-key.h"
#include "trace.h"

#define MKTME_KEY_LINUX_TYPE    "mktme"

struct MktmeKey {
    Object parent_obj;

    /* Properties: they can be set until mktme_key_complete() */
    bool complete;
    MktmeKeySource source;
    int32_t wanted_serial;
    char *wanted_description;
    MktmeAlgorithm algorithm;
    char *key_secret;
    char *tweak_secret;

    int32_t serial;
    bool ephemeral;         /* made by us */

    unsigned users;         /* mktme_key_get(); protected by the BQL */
};

/* Of a user whose memory is about to be unmapped */
typedef struct MktmeKeyPut {
    struct rcu_head rcu;
    MktmeKey *key;
    QSIMPLEQ_ENTRY(MktmeKeyPut) next;
} MktmeKeyPut;

/* Those whose memory is unmapped.  Protected by the BQL. */
static QSIMPLEQ_HEAD(, MktmeKeyPut) unmapped =
    QSIMPLEQ_HEAD_INITIALIZER(unmapped);

static int encrypt_mprotect(void *addr, size_t size, int prot, int32_t serial)
{
#ifdef __NR_encrypt_mprotect    /* x86-64 */
    return syscall(__NR_encrypt_mprotect, addr, size, prot, serial);
#else
    errno = ENOSYS;
    return -1;
#endif
}

/* What the errors mean here; the others say it themselves. */
static const char *encrypt_error(int err)
{
    switch (err) {
    case ENOSYS:
        return "the host's kernel cannot do that (no encrypt_mprotect())";
    case EOPNOTSUPP:
        return "the host has no MKTME, or does not use it";
    case ENOKEY:
        return "there is no such key, or it was invalidated or erased";
    case EACCES:
        return "no search permission for the key";
    case EINVAL:
        return "this is no key of type 'mktme', or the memory is not private, "
               "or neither anonymous nor from hugetlbfs";
    case EBUSY:
        return "pages of it are there already and are in use, by a device "
               "that QEMU itself drives (nvme://) for example";
    case ENOMEM:
    case EPERM:
        return "it counts as locked memory, of which the process may not "
               "have that much (RLIMIT_MEMLOCK)";
    default:
        return strerror(err);
    }
}

static const char *create_error(int err)
{
    switch (err) {
    case ENOSYS:
    case ENODEV:
        return "the host's kernel has no keys of type 'mktme', or the host "
               "has no MKTME";
    case EPERM:
        return "that takes CAP_SYS_RESOURCE";
    case ENOSPC:
        return "all KeyIDs are in use";
    case EDQUOT:
        return "the limit of the misc cgroup for KeyIDs, or the user's quota "
               "of keys, is reached";
    case EINVAL:
        return "the host does not offer the algorithm";
    case EOPNOTSUPP:
        return "the host has memory that cannot be encrypted";
    default:
        return strerror(err);
    }
}

bool mktme_key_encrypt(MktmeKey *key, void *addr, size_t size, Error **errp)
{
    if (encrypt_mprotect(addr, size, PROT_READ | PROT_WRITE, key->serial)) {
        error_setg(errp, "cannot put memory under key %" PRId32 ": %s",
                   key->serial, encrypt_error(errno));
        return false;
    }
    trace_mktme_key_encrypt(key->serial, addr, size);
    return true;
}

void mktme_key_get(MktmeKey *key)
{
    object_ref(OBJECT(key));
    key->users++;
}

/*
 * In the main thread: a key that is made by us is in the process keyring, which
 * the kernel gives to the thread that caused it to be, and to those that are
 * created after that.  Others may have no permission to invalidate it, the RCU
 * thread, which is the first of all, among them.
 */
static void mktme_key_reap(void *opaque)
{
    MktmeKeyPut *put;

    while ((put = QSIMPLEQ_FIRST(&unmapped))) {
        QSIMPLEQ_REMOVE_HEAD(&unmapped, next);
        put->key->users--;
        object_unref(OBJECT(put->key));
        g_free(put);
    }
}

/* In the RCU thread */
static void mktme_key_unmapped(MktmeKeyPut *put)
{
    QSIMPLEQ_INSERT_TAIL(&unmapped, put, next);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), mktme_key_reap, NULL);
}

/*
 * qemu_ram_free() leaves it to an RCU callback to unmap the memory.  They are
 * called one after the other, as drain_call_rcu() needs it: the memory is gone
 * when this one is called.
 */
void mktme_key_put(MktmeKey *key)
{
    MktmeKeyPut *put = g_new0(MktmeKeyPut, 1);

    put->key = key;
    call_rcu(put, mktme_key_unmapped, rcu);
}

/* Can it be used?  Better known before there is any memory that needs it. */
static bool mktme_key_probe(MktmeKey *key, Error **errp)
{
    size_t size = qemu_real_host_page_size();
    void *addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool ok;

    if (addr == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map a page");
        return false;
    }
    ok = mktme_key_encrypt(key, addr, size, errp);
    munmap(addr, size);
    return ok;
}

/* The KeyID is told by /proc/keys alone, and to those with view permission. */
static bool mktme_key_keyid(MktmeKey *key, uint16_t *keyid)
{
    g_autofree char *contents = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents("/proc/keys", &contents, NULL, NULL)) {
        return false;
    }
    lines = g_strsplit(contents, "\n", -1);
    for (char **line = lines; *line; line++) {
        const char *p = g_strrstr(*line, " KeyID "), *end;
        unsigned long serial, n;

        if (p && !qemu_strtoul(*line, &end, 16, &serial) &&
            serial == (unsigned long)key->serial &&
            !qemu_strtoul(p + strlen(" KeyID "), NULL, 10, &n)) {
            *keyid = n;
            return true;
        }
    }
    return false;
}

/* What the kernel calls the key, if we may know. */
static char *mktme_key_description(MktmeKey *key)
{
    char buf[4096 + 64];    /* a description is shorter than a page */
    long len = syscall(__NR_keyctl, KEYCTL_DESCRIBE, key->serial, buf,
                       sizeof(buf));
    g_auto(GStrv) fields = NULL;

    if (len < 0 || len > sizeof(buf)) {
        return NULL;
    }
    /* "type;uid;gid;perm;description" */
    fields = g_strsplit(buf, ";", 5);
    return g_strv_length(fields) == 5 ? g_strdup(fields[4]) : NULL;
}

MemdevMktmeKey *mktme_key_query(MktmeKey *key)
{
    MemdevMktmeKey *info = g_new0(MemdevMktmeKey, 1);

    info->id = g_strdup(object_get_canonical_path_component(OBJECT(key)));
    info->serial = key->serial;
    info->description = mktme_key_description(key);
    info->has_keyid = mktme_key_keyid(key, &info->keyid);
    return info;
}

/* Append " WORD=HEX" to a payload. */
static bool append_secret(char *payload, size_t size, const char *word,
                          const char *secret, size_t want, Error **errp)
{
    g_autofree uint8_t *data = NULL;
    size_t len, pos = strlen(payload);

    if (!secret) {
        return true;
    }
    if (qcrypto_secret_lookup(secret, &data, &len, errp) < 0) {
        return false;
    }
    if (len != want) {
        error_setg(errp, "secret '%s' has %zu bytes, the algorithm needs %zu",
                   secret, len, want);
    } else {
        pos += snprintf(payload + pos, size - pos, " %s=", word);
        for (size_t i = 0; i < len; i++) {
            pos += snprintf(payload + pos, size - pos, "%02x", data[i]);
        }
    }
    explicit_bzero(data, len);
    return len == want;
}

static bool mktme_key_create(MktmeKey *key, Error **errp)
{
    g_autofree char *name =
        g_strdup_printf("qemu:%s",
                        object_get_canonical_path_component(OBJECT(key)));
    bool has_algorithm = key->source != MKTME_KEY_SOURCE_NO_ENCRYPT;
    size_t size = key->algorithm == MKTME_ALGORITHM_AES_XTS_256 ? 32 : 16;
    char payload[256];
    long serial = -1;

    snprintf(payload, sizeof(payload), "type=%s%s%s",
             MktmeKeySource_str(key->source),
             has_algorithm ? " algorithm=" : "",
             has_algorithm ? MktmeAlgorithm_str(key->algorithm) : "");
    if (append_secret(payload, sizeof(payload), "key", key->key_secret, size,
                      errp) &&
        append_secret(payload, sizeof(payload), "tweak", key->tweak_secret,
                      size, errp)) {
        /* Goes with the process, whatever becomes of that */
        serial = syscall(__NR_add_key, MKTME_KEY_LINUX_TYPE, name, payload,
                         strlen(payload), KEY_SPEC_PROCESS_KEYRING);
        if (serial < 0) {
            error_setg(errp, "cannot create a key: %s", create_error(errno));
        }
    }
    explicit_bzero(payload, sizeof(payload));
    if (serial < 0) {
        return false;
    }

    key->serial = serial;
    key->ephemeral = true;
    trace_mktme_key_create(key->serial, MktmeKeySource_str(key->source));
    return true;
}

static bool mktme_key_find(MktmeKey *key, Error **errp)
{
    long serial = syscall(__NR_request_key, MKTME_KEY_LINUX_TYPE,
                          key->wanted_description, NULL, 0);

    /* The session's keyring need not have a link to the user's */
    if (serial < 0 && errno == ENOKEY) {
        serial = syscall(__NR_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING,
                         MKTME_KEY_LINUX_TYPE, key->wanted_description, 0);
    }
    if (serial < 0) {
        error_setg(errp, "cannot find a key with the description '%s': %s",
                   key->wanted_description,
                   errno == ENOSYS ? create_error(errno) : strerror(errno));
        return false;
    }
    key->serial = serial;
    return true;
}

static void mktme_key_complete(UserCreatable *uc, Error **errp)
{
    MktmeKey *key = MKTME_KEY(uc);
    bool ok = false;

    key->complete = true;
    switch (key->source) {
    case MKTME_KEY_SOURCE_SERIAL:
        /* QAPI has seen to it; for encrypt_mprotect(), 0 would be no key */
        assert(key->wanted_serial > 0);
        key->serial = key->wanted_serial;
        ok = true;
        break;
    case MKTME_KEY_SOURCE_DESCRIPTION:
        ok = mktme_key_find(key, errp);
        break;
    case MKTME_KEY_SOURCE_CPU:
    case MKTME_KEY_SOURCE_USER:
        if (!!key->key_secret != !!key->tweak_secret) {
            error_setg(errp, "'key-secret' and 'tweak-secret' go together");
            break;
        }
        ok = mktme_key_create(key, errp);
        break;
    case MKTME_KEY_SOURCE_NO_ENCRYPT:
        ok = mktme_key_create(key, errp);
        break;
    default:
        g_assert_not_reached();
    }
    if (ok) {
        mktme_key_probe(key, errp);
    }
}

/*
 * Not as long as there is memory under it: a new object by the same name would
 * find the old one's key in the keyring, and change that.
 */
static bool mktme_key_can_be_deleted(UserCreatable *uc)
{
    MktmeKey *key = MKTME_KEY(uc);

    if (key->users) {
        /* Of a backend that has just been deleted, the memory may be left */
        drain_call_rcu();
        mktme_key_reap(NULL);
    }
    return !key->users;
}

/* What is set later than mktme_key_complete() would have no effect. */
static bool mktme_key_can_set(Object *obj, const char *name, Error **errp)
{
    if (MKTME_KEY(obj)->complete) {
        error_setg(errp, "cannot change property '%s'", name);
        return false;
    }
    return true;
}

static void mktme_key_get_serial(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    visit_type_int32(v, name, &MKTME_KEY(obj)->serial, errp);
}

static void mktme_key_set_serial(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    int32_t serial;

    if (!mktme_key_can_set(obj, name, errp) ||
        !visit_type_int32(v, name, &serial, errp)) {
        return;
    }
    /* Those below are keyrings; 0 means no key */
    if (serial <= 0) {
        error_setg(errp, "'%s' must be greater than 0", name);
        return;
    }
    MKTME_KEY(obj)->wanted_serial = serial;
}

static int mktme_key_get_source(Object *obj, Error **errp)
{
    return MKTME_KEY(obj)->source;
}

static void mktme_key_set_source(Object *obj, int value, Error **errp)
{
    if (mktme_key_can_set(obj, "source", errp)) {
        MKTME_KEY(obj)->source = value;
    }
}

static int mktme_key_get_algorithm(Object *obj, Error **errp)
{
    return MKTME_KEY(obj)->algorithm;
}

static void mktme_key_set_algorithm(Object *obj, int value, Error **errp)
{
    if (mktme_key_can_set(obj, "algorithm", errp)) {
        MKTME_KEY(obj)->algorithm = value;
    }
}

/* The three properties that are strings. */
static char **mktme_key_string(MktmeKey *key, const char *name)
{
    return g_str_equal(name, "description") ? &key->wanted_description :
           g_str_equal(name, "key-secret") ? &key->key_secret :
           &key->tweak_secret;
}

static void mktme_key_get_string(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    char *value = *mktme_key_string(MKTME_KEY(obj), name) ?: (char *)"";

    visit_type_str(v, name, &value, errp);
}

static void mktme_key_set_string(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    char **field = mktme_key_string(MKTME_KEY(obj), name);
    char *value;

    if (mktme_key_can_set(obj, name, errp) &&
        visit_type_str(v, name, &value, errp)) {
        g_free(*field);
        *field = value;
    }
}

static void mktme_key_finalize(Object *obj)
{
    MktmeKey *key = MKTME_KEY(obj);

    /* Nothing is mapped under it any more: see mktme_key_put() */
    assert(!key->users);
    if (key->ephemeral) {
        syscall(__NR_keyctl, KEYCTL_INVALIDATE, key->serial);
    }
    g_free(key->wanted_description);
    g_free(key->key_secret);
    g_free(key->tweak_secret);
}

static void mktme_key_class_init(ObjectClass *oc, const void *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = mktme_key_complete;
    ucc->can_be_deleted = mktme_key_can_be_deleted;

    object_class_property_add_enum(oc, "source", "MktmeKeySource",
                                   &MktmeKeySource_lookup,
                                   mktme_key_get_source, mktme_key_set_source);
    object_class_property_set_description(oc, "source",
        "where the key comes from: serial, description; or a new one: cpu (a "
        "random one), user, no-encrypt");
    object_class_property_add(oc, "serial", "int32", mktme_key_get_serial,
                              mktme_key_set_serial, NULL, NULL);
    object_class_property_set_description(oc, "serial",
        "serial number of a key that is there");
    object_class_property_add(oc, "description", "str", mktme_key_get_string,
                              mktme_key_set_string, NULL, NULL);
    object_class_property_set_description(oc, "description",
        "description of a key to be found in the keyrings");
    object_class_property_add_enum(oc, "algorithm", "MktmeAlgorithm",
                                   &MktmeAlgorithm_lookup,
                                   mktme_key_get_algorithm,
                                   mktme_key_set_algorithm);
    object_class_property_set_description(oc, "algorithm",
        "algorithm of a key that is created");
    object_class_property_add(oc, "key-secret", "str", mktme_key_get_string,
                              mktme_key_set_string, NULL, NULL);
    object_class_property_set_description(oc, "key-secret",
        "ID of the secret with the data key");
    object_class_property_add(oc, "tweak-secret", "str", mktme_key_get_string,
                              mktme_key_set_string, NULL, NULL);
    object_class_property_set_description(oc, "tweak-secret",
        "ID of the secret with the tweak key");
}

static const TypeInfo mktme_key_info = {
    .parent = TYPE_OBJECT,
    .name = TYPE_MKTME_KEY,
    .instance_size = sizeof(MktmeKey),
    .instance_finalize = mktme_key_finalize,
    .class_init = mktme_key_class_init,
    .interfaces = (const InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { }
    }
};

static void mktme_key_register_types(void)
{
    type_register_static(&mktme_key_info);
}

type_init(mktme_key_register_types);
