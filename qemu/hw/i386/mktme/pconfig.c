/*
 * Multi-Key Total Memory Encryption: PCONFIG
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/guest-random.h"
#include "trace.h"
#include "internal.h"

bool mktme_key_program(X86MktmeState *s, unsigned package,
                       const MktmeKeyProgram *prog, uint64_t rip,
                       MktmeStatus *status)
{
    MktmePackage *pkg = &s->packages[package];
    uint16_t keyid = le16_to_cpu(prog->keyid);
    uint32_t ctrl = le32_to_cpu(prog->keyid_ctrl);
    unsigned command = MKTME_CTRL_COMMAND(ctrl);
    unsigned alg = MKTME_CTRL_ENC_ALG(ctrl);
    QCryptoCipher *cipher = NULL;
    MktmeKeyState state;
    MktmeSlot *slot;
    uint8_t key[2][64];

    /* ENC_ALG is checked for the commands that have no use for it, too */
    if ((ctrl & MKTME_CTRL_RESERVED) || command > MKTME_NO_ENCRYPT ||
        keyid == 0 || keyid > mktme_nr_keys(s, pkg) ||
        ctpop16(alg) != 1 || !(alg & (pkg->activate >> TME_ACT_ALGS_SHIFT))) {
        return false;
    }
    /* Only random keys take entropy */
    if (pkg->inject_count && (pkg->inject_status != MKTME_ENTROPY_ERROR ||
                              command == MKTME_SET_KEY_RANDOM)) {
        pkg->inject_count--;
        trace_mktme_inject(package, keyid, pkg->inject_status);
        *status = pkg->inject_status;
        return true;
    }

    switch (command) {
    case MKTME_SET_KEY_DIRECT:
        memcpy(key[0], prog->key_field_1, sizeof(key[0]));
        memcpy(key[1], prog->key_field_2, sizeof(key[1]));
        cipher = mktme_new_cipher(alg, key[0], key[1]);
        break;
    case MKTME_SET_KEY_RANDOM:
        qemu_guest_getrandom_nofail(key, sizeof(key));
        for (int i = 0; i < sizeof(key[0]); i++) {
            key[0][i] ^= prog->key_field_1[i];
            key[1][i] ^= prog->key_field_2[i];
        }
        cipher = mktme_new_cipher(alg, key[0], key[1]);
        break;
    }
    mktme_wipe(key, sizeof(key));

    if (command == MKTME_CLEAR_KEY) {
        state = MKTME_KEY_STATE_TME;
    } else if (command == MKTME_NO_ENCRYPT) {
        state = MKTME_KEY_STATE_NO_ENCRYPT;
    } else if (alg == MKTME_ALG_AES_XTS_128) {
        state = MKTME_KEY_STATE_AES_XTS_128;
    } else {
        state = MKTME_KEY_STATE_AES_XTS_256;
    }

    slot = &pkg->slots[keyid];
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        mktme_adopt_device_writes(s);
        mktme_write_back(s, package, keyid, rip);
        mktme_free_cipher(&slot->cipher);
        slot->cipher = cipher;
        slot->state = state;
        s->nr_pconfig++;
    }
    trace_mktme_program(package, keyid, MktmeKeyState_str(state), rip);
    *status = MKTME_PROG_SUCCESS;
    return true;
}

bool mktme_inject(X86MktmeState *s, unsigned package, MktmeStatus status,
                  uint32_t count, Error **errp)
{
    if (package >= s->nr_packages) {
        error_setg(errp, "There is no package %u", package);
        return false;
    }
    s->packages[package].inject_status = status;
    s->packages[package].inject_count = count;
    return true;
}
