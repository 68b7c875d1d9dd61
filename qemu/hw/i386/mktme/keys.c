/*
 * Multi-Key Total Memory Encryption: keys and ciphers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/guest-random.h"
#include "internal.h"

void mktme_wipe(void *p, size_t len)
{
    memset(p, 0, len);
    asm volatile("" : : "r"(p) : "memory");
}

unsigned mktme_algorithms(X86MktmeState *s)
{
    return (s->aes_xts_128 ? MKTME_ALG_AES_XTS_128 : 0) |
           (s->aes_xts_256 ? MKTME_ALG_AES_XTS_256 : 0);
}

QCryptoCipher *mktme_new_cipher(unsigned alg, uint8_t *data_key,
                                uint8_t *tweak_key)
{
    QCryptoCipher *cipher;
    size_t len = alg == MKTME_ALG_AES_XTS_128 ? 16 : 32;
    uint8_t key[64];

    memcpy(key, data_key, len);
    memcpy(key + len, tweak_key, len);
    cipher = qcrypto_cipher_new(alg == MKTME_ALG_AES_XTS_128 ?
                                QCRYPTO_CIPHER_ALGO_AES_128 :
                                QCRYPTO_CIPHER_ALGO_AES_256,
                                QCRYPTO_CIPHER_MODE_XTS, key, 2 * len,
                                &error_abort);
    mktme_wipe(key, sizeof(key));
    mktme_wipe(data_key, len);
    mktme_wipe(tweak_key, len);
    return cipher;
}

QCryptoCipher *mktme_random_cipher(unsigned alg)
{
    uint8_t data_key[32], tweak_key[32];

    qemu_guest_getrandom_nofail(data_key, sizeof(data_key));
    qemu_guest_getrandom_nofail(tweak_key, sizeof(tweak_key));
    return mktme_new_cipher(alg, data_key, tweak_key);
}

void mktme_free_cipher(QCryptoCipher **cipher)
{
    /* gcrypt wipes the key schedule. Nettle's is freed as it is. */
    qcrypto_cipher_free(*cipher);
    *cipher = NULL;
}

static void mktme_crypt(QCryptoCipher *cipher, hwaddr addr, uint8_t *buf,
                        size_t len, bool encrypt)
{
    uint64_t iv[2] = { 0, 0 };
    size_t i;

    assert(QEMU_IS_ALIGNED(addr | len, MKTME_LINE_SIZE));

    for (i = 0; i < len; i += MKTME_LINE_SIZE) {
        /* Keys and lengths are right by construction: this cannot fail */
        iv[0] = cpu_to_le64(addr + i);
        qcrypto_cipher_setiv(cipher, (uint8_t *)iv, sizeof(iv), &error_abort);
        if (encrypt) {
            qcrypto_cipher_encrypt(cipher, buf + i, buf + i, MKTME_LINE_SIZE,
                                   &error_abort);
        } else {
            qcrypto_cipher_decrypt(cipher, buf + i, buf + i, MKTME_LINE_SIZE,
                                   &error_abort);
        }
    }
}

QCryptoCipher *mktme_cipher(X86MktmeState *s, MktmePackage *pkg, hwaddr addr,
                            uint16_t view)
{
    if (view == MKTME_VIEW_DRAM) {
        return NULL;
    }
    if (view <= s->max_keys) {
        switch (pkg->slots[view].state) {
        case MKTME_KEY_STATE_TME:
            break;
        case MKTME_KEY_STATE_NO_ENCRYPT:
            return NULL;
        default:
            return pkg->slots[view].cipher;
        }
    }
    /* Not programmed: as KeyID 0, to which the exclusion range applies */
    if ((pkg->exclude_mask & TME_EXCLUDE_ENABLE) &&
        !((addr ^ pkg->exclude_base) & pkg->exclude_mask & TARGET_PAGE_MASK)) {
        return NULL;
    }
    return pkg->tme;
}

void mktme_convert(X86MktmeState *s, MktmeRange *r, hwaddr addr, uint8_t *buf,
                   size_t len, uint16_t from, uint16_t to)
{
    MktmePackage *pkg = &s->packages[r->package];
    QCryptoCipher *cf = mktme_cipher(s, pkg, addr, from);
    QCryptoCipher *ct = mktme_cipher(s, pkg, addr, to);

    if (cf == ct) {
        return;
    }
    if (cf) {
        mktme_crypt(cf, addr, buf, len, true);
    }
    if (ct) {
        mktme_crypt(ct, addr, buf, len, false);
    }
}
