// SPDX-License-Identifier: GPL-2.0
/*
 * Detection of total memory encryption (TME).  It goes by CPUID alone, whoever
 * the vendor is: the feature is also met in emulated machines.
 */
#define pr_fmt(fmt) "x86/tme: " fmt

#include <linux/printk.h>

#include <asm/cpufeature.h>
#include <asm/mktme.h>
#include <asm/msr.h>
#include <asm/processor.h>

#include "cpu.h"

/**
 * detect_tme - take the KeyID bits out of a CPU's physical address width
 * @c: the CPU, its address sizes just read from CPUID
 *
 * Context: On the CPU itself, early in boot or when it comes online.
 */
void detect_tme(struct cpuinfo_x86 *c)
{
	u64 activate;
	int keyid_bits;

	if (!cpu_has(c, X86_FEATURE_TME))
		return;

	/* Hypervisors have been seen to show the CPUID bit without the MSR. */
	if (rdmsrq_safe(MSR_IA32_TME_ACTIVATE, &activate) ||
	    !TME_ACTIVATE_LOCKED(activate) || !TME_ACTIVATE_ENABLED(activate)) {
		pr_info_once("not enabled by BIOS\n");
		clear_cpu_cap(c, X86_FEATURE_TME);
		return;
	}
	pr_info_once("enabled by BIOS\n");
	keyid_bits = TME_ACTIVATE_KEYID_BITS(activate);
	if (!keyid_bits)
		return;

	/*
	 * KeyID bits are set by BIOS and can be present regardless
	 * of whether the kernel is using them. They effectively lower
	 * the number of physical address bits.
	 *
	 * Update cpuinfo_x86::x86_phys_bits accordingly.
	 */
	c->x86_phys_bits -= keyid_bits;
	pr_info_once("x86_phys_bits reduced by %d\n", keyid_bits);

	mktme_detect_cpu(c, activate, keyid_bits);
}
