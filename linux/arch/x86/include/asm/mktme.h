/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _ASM_X86_MKTME_H
#define _ASM_X86_MKTME_H

/*
 * Registers and instruction formats of total memory encryption, from the Intel
 * Architecture Memory Encryption Technologies specification (336907).
 */

#include <linux/bits.h>
#include <linux/types.h>

#define MSR_IA32_TME_CAPABILITY			0x00000981
#define MSR_IA32_TME_ACTIVATE			0x00000982

#define TME_CAPABILITY_MAX_KEYS(x)	(((x) >> 36) & 0x7fff)	/* Bits 50:36 */

#define TME_ACTIVATE_LOCKED(x)		((x) & BIT(0))
#define TME_ACTIVATE_ENABLED(x)		((x) & BIT(1))
#define TME_ACTIVATE_KEYID_BITS(x)	(((x) >> 32) & 0xf)	/* Bits 35:32 */
#define TME_ACTIVATE_ALGORITHMS(x)	((x) >> 48)		/* Bits 63:48 */

#define PCONFIG_CPUID_LEAF		0x1b
#define PCONFIG_CPUID_MAX_SUBLEAF	64
#define PCONFIG_CPUID_TYPE_MASK		0xfff
#define PCONFIG_CPUID_TYPE_INVALID	0
#define PCONFIG_CPUID_TYPE_TARGETS	1
#define PCONFIG_TARGET_MKTME		1

/* Leaf 0 of PCONFIG, and what it returns in RAX when it sets ZF */
#define MKTME_KEY_PROGRAM		0
#define MKTME_PROG_ENTROPY_ERROR	2
#define MKTME_PROG_DEVICE_BUSY		5

/* KEYID_CTRL: the commands that no key type stands for, and ENC_ALG */
#define MKTME_KEYID_CLEAR_KEY		2
#define MKTME_KEYID_CTRL_ALG(alg)	(BIT(alg) << 8)

/* binutils know the mnemonic from 2.31 on */
#define ASM_PCONFIG			".byte 0x0f, 0x01, 0xc5\n\t"

struct cpuinfo_x86;
struct seq_file;

#ifdef CONFIG_X86_MKTME
void mktme_detect_cpu(struct cpuinfo_x86 *c, u64 activate,
		      unsigned int keyid_bits);
void mktme_report_meminfo(struct seq_file *m);
#else
static inline void mktme_detect_cpu(struct cpuinfo_x86 *c, u64 activate,
				    unsigned int keyid_bits) { }
static inline void mktme_report_meminfo(struct seq_file *m) { }
#endif

#endif /* _ASM_X86_MKTME_H */
