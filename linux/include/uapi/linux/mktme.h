/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _UAPI_LINUX_MKTME_H
#define _UAPI_LINUX_MKTME_H

/* The key type, as in add_key(2). */
#define MKTME_KEY_TYPE			"mktme"

/*
 * The payload: words of the form option=value, separated by white space, each
 * option at most once.
 *
 *	type=cpu	 a random key that the CPU makes and nobody knows
 *	type=user	 the key is given; needs key= and tweak=
 *	type=no-encrypt	 memory under it is not encrypted at all
 *	algorithm=	 one of those below; not with type=no-encrypt
 *	key=		 data key in hexadecimal, 32 digits for AES-XTS-128, 64
 *			 for AES-XTS-256; with type=cpu, optional: entropy
 *	tweak=		 tweak key, likewise
 *
 * Or, in KEYCTL_UPDATE, the one word
 *
 *	erase		 all data under the key is lost, at once and for good
 */
#define MKTME_OPT_TYPE			"type"
#define MKTME_OPT_ALGORITHM		"algorithm"
#define MKTME_OPT_KEY			"key"
#define MKTME_OPT_TWEAK			"tweak"

#define MKTME_OPT_ERASE			"erase"

#define MKTME_TYPE_NAME_CPU		"cpu"
#define MKTME_TYPE_NAME_USER		"user"
#define MKTME_TYPE_NAME_NO_ENCRYPT	"no-encrypt"

#define MKTME_ALGORITHM_AES_XTS_128	"aes-xts-128"
#define MKTME_ALGORITHM_AES_XTS_256	"aes-xts-256"

#endif /* _UAPI_LINUX_MKTME_H */
