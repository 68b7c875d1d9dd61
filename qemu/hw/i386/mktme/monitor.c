/*
 * Multi-Key Total Memory Encryption: monitor commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "hw/i386/x86.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-mktme.h"
#include "qemu/rcu_queue.h"
#include "qobject/qdict.h"
#include "internal.h"

/* How much is copied at a time */
#define CHUNK_SIZE (64 * 1024)

static X86MktmeState *mktme_get(Error **errp)
{
    Object *machine = object_dynamic_cast(qdev_get_machine(),
                                          TYPE_X86_MACHINE);
    X86MktmeState *s = machine ? X86_MACHINE(machine)->mktme : NULL;

    if (!s) {
        error_setg(errp, "The machine has no multi-key memory encryption");
    }
    return s;
}

/* The attacker's view: access memory as the DIMM holds it, without KeyID */
static bool mktme_dram_rw(X86MktmeState *s, hwaddr addr, uint8_t *buf,
                          size_t len, bool write, Error **errp)
{
    size_t done, n;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&s->lock);

    for (done = 0; done < len; done += n, addr += n) {
        MktmeRange *r = mktme_find(s, addr);

        if (!r) {
            error_setg(errp, "No DRAM at address 0x%" HWADDR_PRIx, addr);
            return false;
        }
        n = MIN(len - done, MKTME_LINE_SIZE - addr % MKTME_LINE_SIZE);
        mktme_access_line(s, r, addr, MKTME_VIEW_DRAM, buf + done, n, write);
    }
    return true;
}

/* The state, without secrets */
static MktmeInfo *mktme_query(X86MktmeState *s)
{
    MktmeInfo *info = g_new0(MktmeInfo, 1);
    MktmePackageInfoList **tail = &info->packages;

    QEMU_LOCK_GUARD(&s->lock);

    info->keyid_bits = s->max_keyid_bits;
    info->max_keys = s->max_keys;
    info->phys_bits = s->phys_bits;
    info->tme_bypass = s->tme_bypass;
    info->cache = s->cache;
    info->view_switches = s->nr_switches;
    info->violations = s->nr_violations;
    info->reuse_violations = s->nr_reuse_violations;
    info->late_writes = s->nr_late_writes;
    info->stale_lines = s->stale->len;
    info->keys_programmed = s->nr_pconfig;

    for (unsigned i = 0; i < s->nr_packages; i++) {
        MktmePackage *pkg = &s->packages[i];
        MktmePackageInfo *p = g_new0(MktmePackageInfo, 1);
        MktmeKeyInfoList **ktail = &p->keys;
        MktmeRange *r;

        p->id = i;
        p->activate = pkg->activate;
        QLIST_FOREACH(r, &s->ranges, next) {
            p->memory += r->package == i ? r->size : 0;
        }
        for (unsigned k = 1; k <= s->max_keys; k++) {
            MktmeSlot *slot = &pkg->slots[k];

            if (slot->state != MKTME_KEY_STATE_TME || slot->pages) {
                MktmeKeyInfo *key = g_new0(MktmeKeyInfo, 1);

                key->keyid = k;
                key->state = slot->state;
                key->pages = slot->pages;
                QAPI_LIST_APPEND(ktail, key);
            }
        }
        QAPI_LIST_APPEND(tail, p);
    }
    return info;
}

MktmeInfo *qmp_query_mktme(Error **errp)
{
    X86MktmeState *s = mktme_get(errp);

    return s ? mktme_query(s) : NULL;
}

void qmp_x_mktme_dump(uint64_t addr, uint64_t size, const char *filename,
                      Error **errp)
{
    X86MktmeState *s = mktme_get(errp);
    g_autofree uint8_t *buf = g_malloc(CHUNK_SIZE);
    int fd;

    if (!s) {
        return;
    }
    fd = qemu_create(filename, O_WRONLY | O_TRUNC | O_BINARY, 0600, errp);
    if (fd < 0) {
        return;
    }
    while (size) {
        size_t len = MIN(size, CHUNK_SIZE);

        if (!mktme_dram_rw(s, addr, buf, len, false, errp)) {
            break;
        }
        if (qemu_write_full(fd, buf, len) != len) {
            error_setg_errno(errp, errno, "Writing to '%s' failed", filename);
            break;
        }
        addr += len;
        size -= len;
    }
    if (qemu_close(fd) && !size) {
        error_setg_errno(errp, errno, "Writing to '%s' failed", filename);
    }
}

void qmp_x_mktme_restore(uint64_t addr, const char *filename, Error **errp)
{
    X86MktmeState *s = mktme_get(errp);
    g_autofree uint8_t *buf = g_malloc(CHUNK_SIZE);
    ssize_t len;
    int fd;

    if (!s) {
        return;
    }
    fd = qemu_open(filename, O_RDONLY | O_BINARY, errp);
    if (fd < 0) {
        return;
    }
    while ((len = RETRY_ON_EINTR(read(fd, buf, CHUNK_SIZE))) > 0) {
        if (!mktme_dram_rw(s, addr, buf, len, true, errp)) {
            break;
        }
        addr += len;
    }
    if (len < 0) {
        error_setg_errno(errp, errno, "Reading from '%s' failed", filename);
    }
    qemu_close(fd);
}

void qmp_x_mktme_flip_bit(uint64_t addr, uint8_t bit, Error **errp)
{
    X86MktmeState *s = mktme_get(errp);
    uint8_t byte;

    if (!s) {
        return;
    }
    if (bit > 7) {
        error_setg(errp, "'bit' must be in the range 0 to 7");
        return;
    }
    if (mktme_dram_rw(s, addr, &byte, 1, false, errp)) {
        byte ^= 1 << bit;
        mktme_dram_rw(s, addr, &byte, 1, true, errp);
    }
}

void qmp_x_mktme_inject_failure(MktmeFailure failure, bool has_package,
                                uint32_t package, bool has_count,
                                uint32_t count, Error **errp)
{
    X86MktmeState *s = mktme_get(errp);

    if (s) {
        mktme_inject(s, has_package ? package : 0,
                         failure == MKTME_FAILURE_DEVICE_BUSY ?
                         MKTME_DEVICE_BUSY : MKTME_ENTROPY_ERROR,
                         has_count ? count : 1, errp);
    }
}

static void hmp_info_mktme(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    g_autoptr(MktmeInfo) info = qmp_query_mktme(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    monitor_printf(mon, "keyid-bits %u, max-keys %u, phys-bits %u, "
                   "tme-bypass %s, cache %s\n",
                   info->keyid_bits, info->max_keys, info->phys_bits,
                   info->tme_bypass ? "on" : "off",
                   MktmeCacheMode_str(info->cache));
    monitor_printf(mon, "%" PRIu64 " view switches, %" PRIu64
                   " keys programmed\n",
                   info->view_switches, info->keys_programmed);
    monitor_printf(mon, "%" PRIu64 " violations, %" PRIu64
                   " reuse violations, %" PRIu64 " late writes, %" PRIu64
                   " stale lines\n", info->violations, info->reuse_violations,
                   info->late_writes, info->stale_lines);
    for (MktmePackageInfoList *p = info->packages; p; p = p->next) {
        monitor_printf(mon, "package %u: IA32_TME_ACTIVATE 0x%016" PRIx64
                       ", DRAM %" PRIu64 " MiB\n", p->value->id,
                       p->value->activate, p->value->memory >> 20);
        for (MktmeKeyInfoList *k = p->value->keys; k; k = k->next) {
            monitor_printf(mon, "  KeyID %u: %s, %" PRIu64 " pages\n",
                           k->value->keyid,
                           MktmeKeyState_str(k->value->state),
                           k->value->pages);
        }
    }
}

static void hmp_mktme_dump(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_x_mktme_dump(qdict_get_int(qdict, "addr"), qdict_get_int(qdict, "size"),
                   qdict_get_str(qdict, "filename"), &err);
    hmp_handle_error(mon, err);
}

static void hmp_mktme_restore(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_x_mktme_restore(qdict_get_int(qdict, "addr"),
                      qdict_get_str(qdict, "filename"), &err);
    hmp_handle_error(mon, err);
}

static void hmp_mktme_flip_bit(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_x_mktme_flip_bit(qdict_get_int(qdict, "addr"),
                       MIN((uint64_t)qdict_get_int(qdict, "bit"), UINT8_MAX),
                       &err);
    hmp_handle_error(mon, err);
}

static void mktme_register_hmp(void)
{
    monitor_register_hmp("mktme", true, hmp_info_mktme);
    monitor_register_hmp("mktme_dump", false, hmp_mktme_dump);
    monitor_register_hmp("mktme_restore", false, hmp_mktme_restore);
    monitor_register_hmp("mktme_flip_bit", false, hmp_mktme_flip_bit);
}

type_init(mktme_register_hmp)
