/*
 * Monitor commands for Multi-Key Total Memory Encryption
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/i386/mktme.h"
#include "hw/i386/x86.h"
#include "monitor/hmp.h"
#include "monitor/hmp-target.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-misc-i386.h"
#include "qobject/qdict.h"

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

MktmeInfo *qmp_query_mktme(Error **errp)
{
    X86MktmeState *s = mktme_get(errp);

    return s ? x86_mktme_query(s) : NULL;
}

void qmp_mktme_dump(uint64_t addr, uint64_t size, const char *filename,
                    Error **errp)
{
    X86MktmeState *s = mktme_get(errp);
    g_autofree uint8_t *buf = g_malloc(CHUNK_SIZE);
    FILE *f;

    if (!s) {
        return;
    }
    f = fopen(filename, "wb");
    if (!f) {
        error_setg_file_open(errp, errno, filename);
        return;
    }
    while (size) {
        size_t len = MIN(size, CHUNK_SIZE);

        if (!x86_mktme_dram_rw(s, addr, buf, len, false, errp)) {
            break;
        }
        if (fwrite(buf, 1, len, f) != len) {
            error_setg_errno(errp, errno, "Writing to '%s' failed", filename);
            break;
        }
        addr += len;
        size -= len;
    }
    if (fclose(f) && !size) {
        error_setg_errno(errp, errno, "Writing to '%s' failed", filename);
    }
}

void qmp_mktme_restore(uint64_t addr, const char *filename, Error **errp)
{
    X86MktmeState *s = mktme_get(errp);
    g_autofree uint8_t *buf = g_malloc(CHUNK_SIZE);
    size_t len;
    FILE *f;

    if (!s) {
        return;
    }
    f = fopen(filename, "rb");
    if (!f) {
        error_setg_file_open(errp, errno, filename);
        return;
    }
    while ((len = fread(buf, 1, CHUNK_SIZE, f))) {
        if (!x86_mktme_dram_rw(s, addr, buf, len, true, errp)) {
            fclose(f);
            return;
        }
        addr += len;
    }
    if (ferror(f)) {
        error_setg_errno(errp, errno, "Reading from '%s' failed", filename);
    }
    fclose(f);
}

void qmp_mktme_flip_bit(uint64_t addr, uint8_t bit, Error **errp)
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
    if (x86_mktme_dram_rw(s, addr, &byte, 1, false, errp)) {
        byte ^= 1 << bit;
        x86_mktme_dram_rw(s, addr, &byte, 1, true, errp);
    }
}

void qmp_mktme_inject_failure(MktmeFailure failure, bool has_package,
                              uint32_t package, bool has_count,
                              uint32_t count, Error **errp)
{
    X86MktmeState *s = mktme_get(errp);

    if (s) {
        x86_mktme_inject(s, has_package ? package : 0,
                         failure == MKTME_FAILURE_DEVICE_BUSY ?
                         MKTME_DEVICE_BUSY : MKTME_ENTROPY_ERROR,
                         has_count ? count : 1, errp);
    }
}

void hmp_info_mktme(Monitor *mon, const QDict *qdict)
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

void hmp_mktme_dump(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_mktme_dump(qdict_get_int(qdict, "addr"), qdict_get_int(qdict, "size"),
                   qdict_get_str(qdict, "filename"), &err);
    hmp_handle_error(mon, err);
}

void hmp_mktme_restore(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_mktme_restore(qdict_get_int(qdict, "addr"),
                      qdict_get_str(qdict, "filename"), &err);
    hmp_handle_error(mon, err);
}

void hmp_mktme_flip_bit(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_mktme_flip_bit(qdict_get_int(qdict, "addr"),
                       MIN((uint64_t)qdict_get_int(qdict, "bit"), UINT8_MAX),
                       &err);
    hmp_handle_error(mon, err);
}
