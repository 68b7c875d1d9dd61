/* SPDX-License-Identifier: GPL-2.0-or-later */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-mktme.h"

MktmeInfo *qmp_query_mktme(Error **errp)
{
    error_setg(errp, "The machine has no multi-key memory encryption");
    return NULL;
}

void qmp_x_mktme_dump(uint64_t addr, uint64_t size, const char *filename,
                      Error **errp)
{
    error_setg(errp, "The machine has no multi-key memory encryption");
}

void qmp_x_mktme_restore(uint64_t addr, const char *filename, Error **errp)
{
    error_setg(errp, "The machine has no multi-key memory encryption");
}

void qmp_x_mktme_flip_bit(uint64_t addr, uint8_t bit, Error **errp)
{
    error_setg(errp, "The machine has no multi-key memory encryption");
}

void qmp_x_mktme_inject_failure(MktmeFailure failure, bool has_package,
                                uint32_t package, bool has_count,
                                uint32_t count, Error **errp)
{
    error_setg(errp, "The machine has no multi-key memory encryption");
}
