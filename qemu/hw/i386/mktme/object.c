/*
 * Multi-Key Total Memory Encryption: the QOM object
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-qom.h"
#include "exec/cputlb.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "migration/blocker.h"
#include "migration/vmstate.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qom/object_interfaces.h"
#include "system/reset.h"
#include "system/tcg.h"
#include "internal.h"

OBJECT_DEFINE_TYPE_WITH_INTERFACES(X86MktmeState, x86_mktme, X86_MKTME, OBJECT,
                                   { TYPE_USER_CREATABLE }, {})

/*
 * After a reset all KeyIDs behave as KeyID 0 again. DRAM keeps what it holds:
 * what was encrypted with another key can no longer be read by anyone. Pages
 * go back to KeyID 0's view here, as boards and firmware load their images
 * before a CPU runs.
 */
static void mktme_reset(void *opaque)
{
    X86MktmeState *s = opaque;
    MktmeRange *r;
    CPUState *cpu;

    QEMU_LOCK_GUARD(&s->lock);
    g_ptr_array_set_size(s->stale, 0);
    g_array_set_size(s->device_writes, 0);
    s->told = HWADDR_MAX;
    timer_del(s->late_write);
    s->late_write_due = false;

    QLIST_FOREACH(r, &s->ranges, next) {
        size_t i, n = r->size / MKTME_PAGE_SIZE;

        for (i = 0; i < n; i++) {
            hwaddr page = r->base + i * MKTME_PAGE_SIZE;

            if (r->view[i]) {
                mktme_convert(s, r, page, mktme_host(r, page),
                              MKTME_PAGE_SIZE, r->view[i], 0);
                mktme_invalidate(r, page, MKTME_PAGE_SIZE);
                mktme_count_view(s, r, r->view[i], -1);
                mktme_count_view(s, r, 0, 1);
                qatomic_set(&r->view[i], 0);
            }
        }
        if (r->dirty) {
            memset(r->dirty, 0, n * sizeof(*r->dirty));
            memset(r->stores, 0, n * sizeof(*r->stores));
        }
    }
    for (unsigned i = 0; i < s->nr_packages; i++) {
        MktmePackage *pkg = &s->packages[i];

        for (unsigned k = 1; k <= s->max_keys; k++) {
            mktme_free_cipher(&pkg->slots[k].cipher);
            pkg->slots[k].state = MKTME_KEY_STATE_TME;
        }
        pkg->inject_count = 0;
        if (!s->activated) {
            /* Back to how it was: contents are kept, as by activation */
            mktme_free_cipher(&pkg->tme);
            pkg->activate = 0;
            pkg->exclude_mask = 0;
            pkg->exclude_base = 0;
            pkg->keyid_bits = 0;
        }
    }
    CPU_FOREACH(cpu) {
        tlb_flush(cpu);
    }
}

static unsigned mktme_keyid_bits(X86MktmeState *s)
{
    return s->max_keyid_bits;
}

/* A blocker stops only what leaves the machine, this also what is loaded */
static const VMStateDescription mktme_vmstate = {
    .name = TYPE_X86_MKTME,
    .unmigratable = 1,
};

static bool mktme_machine_init(X86MktmeState *s, MachineState *machine,
                               unsigned phys_bits, Error **errp)
{
    unsigned algs = mktme_algorithms(s);

    if (!tcg_enabled()) {
        error_setg(errp, "%s needs the tcg accelerator", TYPE_X86_MKTME);
        return false;
    }

    if (!memory_deny_direct(errp)) {
        return false;
    }

    error_setg(&s->migration_blocker,
               "Migration and snapshots are not supported with %s: "
               "keys and ciphertext would have to move along",
               TYPE_X86_MKTME);
    if (migrate_add_blocker(&s->migration_blocker, errp) < 0) {
        return false;
    }
    vmstate_register(NULL, 0, &mktme_vmstate, s);

    s->machine = machine;
    s->phys_bits = phys_bits;
    s->nr_packages = machine->smp.sockets;
    s->packages = g_new0(MktmePackage, s->nr_packages);
    for (unsigned i = 0; i < s->nr_packages; i++) {
        MktmePackage *pkg = &s->packages[i];

        pkg->slots = g_new0(MktmeSlot, s->max_keys + 1);
        if (s->activated) {
            unsigned policy = ctz32(algs);

            mktme_activate(s, pkg, TME_ACT_ENABLE |
                           ((uint64_t)policy << TME_ACT_POLICY_SHIFT) |
                           (s->tme_bypass ? TME_ACT_BYPASS : 0) |
                           ((uint64_t)s->max_keyid_bits <<
                            TME_ACT_KEYID_BITS_SHIFT) |
                           ((uint64_t)s->tdx_keyid_bits <<
                            TME_ACT_TDX_BITS_SHIFT) |
                           ((uint64_t)algs << TME_ACT_ALGS_SHIFT));
        }
    }
    s->event_bh = qemu_bh_new(mktme_event_bh, s);
    s->late_write = timer_new_ns(QEMU_CLOCK_VIRTUAL, mktme_late_write_timer,
                                 s);
    mktme_ranges_init(s);
    mktme_dma_init(s);

    qemu_register_reset(mktme_reset, s);
    return true;
}

static const X86MktmeOps mktme_cpu_ops = {
    .keyid_bits = mktme_keyid_bits,
    .views = mktme_views,
    .split = mktme_split,
    .join = mktme_join,
    .reserved = mktme_reserved,
    .in_view = mktme_in_view,
    .set_view = mktme_set_view,
    .usable = mktme_usable,
    .key_program = mktme_key_program,
    .rdmsr = mktme_rdmsr,
    .wrmsr = mktme_wrmsr,
    .tracks_lines = mktme_tracks_lines,
    .store = mktme_store,
    .clean_line = mktme_clean_line,
    .clean_all = mktme_clean_all,
};

static void mktme_complete(UserCreatable *uc, Error **errp)
{
    X86MktmeState *s = X86_MKTME(uc);
    unsigned most = (1u << s->max_keyid_bits) - 1;

    if (!mktme_algorithms(s)) {
        error_setg(errp, "At least one of aes-xts-128 and aes-xts-256 must be "
                   "on");
        return;
    }
    if (s->max_keys > most) {
        error_setg(errp, "max-keys=%u does not fit in keyid-bits=%u, which "
                   "allows for %u", s->max_keys, s->max_keyid_bits, most);
        return;
    }
    if (!s->max_keys) {
        s->max_keys = most;
    }
    if (s->tdx_keyid_bits >= s->max_keyid_bits) {
        error_setg(errp, "tdx-keyid-bits=%u must be less than keyid-bits=%u",
                   s->tdx_keyid_bits, s->max_keyid_bits);
        return;
    }
    if (s->tdx_keyid_bits &&
        s->max_keys < 1u << (s->max_keyid_bits - s->tdx_keyid_bits)) {
        error_setg(errp, "max-keys=%u leaves no KeyID for tdx-keyid-bits=%u",
                   s->max_keys, s->tdx_keyid_bits);
        return;
    }
    for (int alg = 0; alg < 2; alg++) {
        QCryptoCipherAlgo a = alg ? QCRYPTO_CIPHER_ALGO_AES_256 :
                                    QCRYPTO_CIPHER_ALGO_AES_128;

        if (!qcrypto_cipher_supports(a, QCRYPTO_CIPHER_MODE_XTS)) {
            error_setg(errp, "This QEMU was built without %s in XTS mode",
                       QCryptoCipherAlgo_str(a));
            return;
        }
    }
}

static bool mktme_can_be_deleted(UserCreatable *uc)
{
    return !X86_MKTME(uc)->machine;
}

static bool mktme_in_use(X86MktmeState *s, Error **errp)
{
    if (s->machine) {
        error_setg(errp, "Cannot be changed while the machine uses it");
        return true;
    }
    return false;
}

static void mktme_get_keyid_bits(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    visit_type_uint8(v, name, &X86_MKTME(obj)->max_keyid_bits, errp);
}

static void mktme_set_keyid_bits(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    X86MktmeState *s = X86_MKTME(obj);
    uint8_t val;

    if (mktme_in_use(s, errp) || !visit_type_uint8(v, name, &val, errp)) {
        return;
    }
    if (val < 1 || val > 15) {
        error_setg(errp, "%s must be in the range 1 to 15", name);
        return;
    }
    s->max_keyid_bits = val;
}

static void mktme_get_max_keys(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    visit_type_uint16(v, name, &X86_MKTME(obj)->max_keys, errp);
}

static void mktme_set_max_keys(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    X86MktmeState *s = X86_MKTME(obj);
    uint16_t val;

    if (mktme_in_use(s, errp) || !visit_type_uint16(v, name, &val, errp)) {
        return;
    }
    if (val < 1) {
        error_setg(errp, "%s must be at least 1", name);
        return;
    }
    s->max_keys = val;
}

static void mktme_get_tdx_keyid_bits(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    visit_type_uint8(v, name, &X86_MKTME(obj)->tdx_keyid_bits, errp);
}

static void mktme_set_tdx_keyid_bits(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    X86MktmeState *s = X86_MKTME(obj);
    uint8_t val;

    if (!mktme_in_use(s, errp) && visit_type_uint8(v, name, &val, errp)) {
        s->tdx_keyid_bits = val;
    }
}

#define MKTME_BOOL(field) \
static bool mktme_get_##field(Object *obj, Error **errp) \
{ \
    return X86_MKTME(obj)->field; \
} \
static void mktme_set_##field(Object *obj, bool value, Error **errp) \
{ \
    if (!mktme_in_use(X86_MKTME(obj), errp)) { \
        X86_MKTME(obj)->field = value; \
    } \
}

MKTME_BOOL(aes_xts_128)
MKTME_BOOL(aes_xts_256)
MKTME_BOOL(tme_bypass)
MKTME_BOOL(activated)
MKTME_BOOL(cache_exact)

static int mktme_get_cache(Object *obj, Error **errp)
{
    return X86_MKTME(obj)->cache;
}

static void mktme_set_cache(Object *obj, int value, Error **errp)
{
    if (!mktme_in_use(X86_MKTME(obj), errp)) {
        X86_MKTME(obj)->cache = value;
    }
}

static void x86_mktme_class_init(ObjectClass *oc, const void *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);
    X86MktmeStateClass *mc = X86_MKTME_CLASS(oc);

    ucc->complete = mktme_complete;
    ucc->can_be_deleted = mktme_can_be_deleted;

    mc->cpu_ops = &mktme_cpu_ops;
    mc->keyid_bits = mktme_keyid_bits;
    mc->machine_init = mktme_machine_init;
    mc->add_ram = mktme_add_ram;
    mc->del_ram = mktme_del_ram;

    object_class_property_add(oc, "keyid-bits", "uint8",
                              mktme_get_keyid_bits, mktme_set_keyid_bits,
                              NULL, NULL);
    object_class_property_set_description(oc, "keyid-bits",
        "Number of physical address bits that hold the KeyID (1 to 15)");
    object_class_property_add(oc, "max-keys", "uint16",
                              mktme_get_max_keys, mktme_set_max_keys,
                              NULL, NULL);
    object_class_property_set_description(oc, "max-keys",
        "Number of KeyIDs beside KeyID 0 (default: as many as fit)");
    object_class_property_add(oc, "tdx-keyid-bits", "uint8",
                              mktme_get_tdx_keyid_bits,
                              mktme_set_tdx_keyid_bits, NULL, NULL);
    object_class_property_set_description(oc, "tdx-keyid-bits",
        "Number of KeyID bits that are set aside for TDX");
    object_class_property_add_bool(oc, "aes-xts-128", mktme_get_aes_xts_128,
                                   mktme_set_aes_xts_128);
    object_class_property_set_description(oc, "aes-xts-128",
        "Support AES-XTS with keys of 128 bits");
    object_class_property_add_bool(oc, "aes-xts-256", mktme_get_aes_xts_256,
                                   mktme_set_aes_xts_256);
    object_class_property_set_description(oc, "aes-xts-256",
        "Support AES-XTS with keys of 256 bits");
    object_class_property_add_bool(oc, "tme-bypass", mktme_get_tme_bypass,
                                   mktme_set_tme_bypass);
    object_class_property_set_description(oc, "tme-bypass",
        "Memory under KeyID 0 is not encrypted");
    object_class_property_add_bool(oc, "activate", mktme_get_activated,
                                   mktme_set_activated);
    object_class_property_set_description(oc, "activate",
        "Come up with IA32_TME_ACTIVATE written and locked, as firmware "
        "leaves it");
    object_class_property_add_enum(oc, "cache", "MktmeCacheMode",
                                   &MktmeCacheMode_lookup,
                                   mktme_get_cache, mktme_set_cache);
    object_class_property_set_description(oc, "cache",
        "What to do about cache lines that are not written back before "
        "memory is used under another KeyID");
    object_class_property_add_bool(oc, "cache-exact", mktme_get_cache_exact,
                                   mktme_set_cache_exact);
    object_class_property_set_description(oc, "cache-exact",
        "Never take lines as dirty that are not, however slow that is");
}

static void x86_mktme_init(Object *obj)
{
    X86MktmeState *s = X86_MKTME(obj);

    s->max_keyid_bits = 6;
    s->aes_xts_128 = true;
    s->aes_xts_256 = true;
    s->activated = true;
    QLIST_INIT(&s->ranges);
    QLIST_INIT(&s->unplugged);
    s->stale = g_ptr_array_new_with_free_func(g_free);
    s->told = HWADDR_MAX;
    s->device_writes = g_array_new(false, false, sizeof(MktmeDeviceWrite));
    qemu_mutex_init(&s->lock);
    memory_region_init(&s->dma_root, obj, "mktme-views", UINT64_MAX);
}

/* Deletion is refused once a machine uses the object */
static void x86_mktme_finalize(Object *obj)
{
    X86MktmeState *s = X86_MKTME(obj);
    MktmeRange *r, *next;

    for (unsigned i = 0; i < s->nr_packages; i++) {
        mktme_free_cipher(&s->packages[i].tme);
        for (unsigned k = 0; k <= s->max_keys; k++) {
            mktme_free_cipher(&s->packages[i].slots[k].cipher);
        }
        g_free(s->packages[i].slots);
    }
    g_free(s->packages);
    QLIST_FOREACH_SAFE(r, &s->ranges, next, next) {
        mktme_range_free(r);
    }
    g_ptr_array_free(s->stale, true);
    g_array_free(s->device_writes, true);
    qemu_mutex_destroy(&s->lock);
}
