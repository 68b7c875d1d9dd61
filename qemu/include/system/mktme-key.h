/*
 * Memory encryption keys of the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_MKTME_KEY_H
#define SYSTEM_MKTME_KEY_H

#ifdef CONFIG_LINUX

#include "qapi/qapi-types-machine.h"
#include "qom/object.h"

#define TYPE_MKTME_KEY "mktme-key"
OBJECT_DECLARE_SIMPLE_TYPE(MktmeKey, MKTME_KEY)

/**
 * mktme_key_encrypt: put memory of this process under a key
 * @key: the key
 * @addr: where it starts; private anonymous memory, readable and writable
 * @size: in bytes, a multiple of the page size
 * @errp: set on failure, which leaves the memory as it was
 *
 * Contents are kept; pages that are discarded come back under the key.
 *
 * Returns: true on success
 */
bool mktme_key_encrypt(MktmeKey *key, void *addr, size_t size, Error **errp);

/**
 * mktme_key_get: say that there is memory under a key, or will be
 * @key: the key, which is neither deleted nor invalidated before
 *       mktme_key_put()
 */
void mktme_key_get(MktmeKey *key);

/**
 * mktme_key_put: undo mktme_key_get()
 * @key: the key
 *
 * After qemu_ram_free(), which has the memory unmapped by an RCU callback: the
 * key is kept until that has run.
 */
void mktme_key_put(MktmeKey *key);

/**
 * mktme_key_query: what the monitor shows of a key
 * @key: the key
 *
 * Returns: a new structure, without key material
 */
MemdevMktmeKey *mktme_key_query(MktmeKey *key);

#endif /* CONFIG_LINUX */
#endif
