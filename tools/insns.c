// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TCG plugin that counts what a guest executes between two points of a program of
 * its own: insns.so,out=FILE[,profile=FILE][,at=ADDRESS[:ADDRESS...]]...  On all CPUs,
 * what they do beside it included, but there is one count at a time.
 *
 * A point is a NOP that the program executes, 0F 1F 84 00 ee 00 4B 4D: ee is 0 where
 * a count begins and 1 where it ends (tests/guest/count.h).  FILE gets a line for each
 * count, in the order of their ends: instructions, without those next; what string
 * instructions repeat (REP), each time; cache line flushes (CLFLUSH, CLFLUSHOPT); TLB
 * flushes (INVLPG, INVPCID, writes to CR3); PCONFIGs; WBINVDs; and for each at=, how
 * often the instructions at these virtual addresses were executed, such as the
 * beginnings of functions.
 *
 * profile= gets lines "COUNT ADDRESS N": in that count, of a block of instructions that
 * begins at this virtual address N were executed, without those next to REP.  One CPU.
 *
 * With -icount, QEMU executes each repetition as an instruction; without, some at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <glib.h>
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { INSNS, REPS, FLUSHES, TLB, PCONFIG, WBINVD, AT, COUNTS = AT + 8 };

/* With several CPUs counts[] has them: they take turns under -icount */
static struct qemu_plugin_scoreboard *scores;
static uint64_t counts[COUNTS];
static bool several;
static uint64_t began[COUNTS];
static char **at[COUNTS - AT];
static unsigned int n_at;
static FILE *out, *profile;
static GPtrArray *blocks;
static unsigned int n_counts;

struct block {
	uint64_t vaddr, insns, times;
};

static qemu_plugin_u64 counter(unsigned int i)
{
	return (qemu_plugin_u64) { scores, i * sizeof(uint64_t) };
}

static uint64_t value(unsigned int i)
{
	return several ? counts[i] : qemu_plugin_u64_get(counter(i), 0);
}

static void begin(unsigned int cpu, void *unused)
{
	for (unsigned int i = 0; i < AT + n_at; i++)
		began[i] = value(i);
	for (unsigned int i = 0; i < blocks->len; i++)
		((struct block *)blocks->pdata[i])->times = 0;
}

static void end(unsigned int cpu, void *unused)
{
	for (unsigned int i = 0; i < AT + n_at; i++)
		fprintf(out, "%" PRIu64 "%c", value(i) - began[i],
			i == AT + n_at - 1 ? '\n' : ' ');
	for (unsigned int i = 0; i < blocks->len; i++) {
		struct block *b = blocks->pdata[i];

		if (b->times)
			fprintf(profile, "%u %" PRIx64 " %" PRIu64 "\n", n_counts, b->vaddr,
				b->insns * b->times);
	}
	n_counts++;
}

/* What comes before the opcode: 66, 3E, F2, F3, REX */
static size_t prefixes(const uint8_t *b, size_t size)
{
	size_t i = 0;

	while (i < size && (b[i] == 0x66 || b[i] == 0x3e || b[i] == 0xf2 ||
			    b[i] == 0xf3 || (b[i] & 0xf0) == 0x40))
		i++;
	return i;
}

static bool is_rep(const uint8_t *b, size_t size)
{
	size_t i = prefixes(b, size);

	return i && (b[0] == 0xf2 || b[0] == 0xf3) && i + 1 == size &&
	       ((b[i] >= 0xa4 && b[i] <= 0xa7) || (b[i] >= 0xaa && b[i] <= 0xaf));
}

/* CLFLUSH is 0F AE /7 with memory, CLFLUSHOPT the same after 66, or 3E and CLFLUSH */
static bool is_flush(const uint8_t *b, size_t size)
{
	return size >= 3 && b[0] == 0x0f && b[1] == 0xae &&
	       (b[2] & 0x38) == 0x38 && b[2] < 0xc0;
}

/* INVLPG 0F 01 /7 with memory, MOV to CR3 0F 22 /3, INVPCID 66 0F 38 82 */
static bool is_tlb(const uint8_t *b, size_t size)
{
	return (size >= 3 && b[0] == 0x0f && b[1] == 0x01 && (b[2] & 0x38) == 0x38 && b[2] < 0xc0) ||
	       (size >= 3 && b[0] == 0x0f && b[1] == 0x22 && (b[2] & 0x38) == 0x18) ||
	       (size >= 4 && b[0] == 0x0f && b[1] == 0x38 && b[2] == 0x82);
}

static bool is_pconfig(const uint8_t *b, size_t size)
{
	return size == 3 && b[0] == 0x0f && b[1] == 0x01 && b[2] == 0xc5;
}

static bool is_wbinvd(const uint8_t *b, size_t size)
{
	return size == 2 && b[0] == 0x0f && b[1] == 0x09;
}

static void bump(unsigned int cpu, void *count)
{
	++*(uint64_t *)count;
}

static void executed(unsigned int cpu, void *block)
{
	((struct block *)block)->times++;
}

static void add(struct qemu_plugin_insn *insn, unsigned int i)
{
	/*
	 * Where CPUs take turns, QEMU 10.2 makes wrong code for an inline addition: the
	 * CPU's index is a constant there, of the CPU that translated, and gen_plugin_u64_ptr()
	 * multiplies it in place.
	 */
	if (several) {
		qemu_plugin_register_vcpu_insn_exec_cb(insn, bump, QEMU_PLUGIN_CB_NO_REGS,
						       &counts[i]);
		return;
	}
	qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
							    counter(i), 1);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	static const uint8_t point[] = { 0x0f, 0x1f, 0x84, 0x00 };
	struct block *block = NULL;

	if (profile) {
		block = g_new0(struct block, 1);
		block->vaddr = qemu_plugin_tb_vaddr(tb);
		g_ptr_array_add(blocks, block);
		qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, block);
	}
	for (size_t n = 0; n < qemu_plugin_tb_n_insns(tb); n++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, n);
		size_t size = qemu_plugin_insn_size(insn), skip;
		uint8_t b[16];

		qemu_plugin_insn_data(insn, b, sizeof(b));
		for (unsigned int i = 0; i < n_at; i++)
			for (char **a = at[i]; *a; a++)
				if (strtoull(*a, NULL, 16) == qemu_plugin_insn_vaddr(insn))
					add(insn, AT + i);
		add(insn, is_rep(b, size) ? REPS : INSNS);
		if (block && !is_rep(b, size))
			block->insns++;
		skip = prefixes(b, size);
		if (is_flush(b + skip, size - skip))
			add(insn, FLUSHES);
		if (is_tlb(b + skip, size - skip))
			add(insn, TLB);
		if (is_pconfig(b, size))
			add(insn, PCONFIG);
		if (is_wbinvd(b, size))
			add(insn, WBINVD);
		if (size == 8 && !memcmp(b, point, 4) && !b[5] && b[6] == 0x4b && b[7] == 0x4d)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, b[4] ? end : begin,
				QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

static void at_exit(qemu_plugin_id_t id, void *data)
{
	fclose(out);
	if (profile)
		fclose(profile);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
					   int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		FILE **f = !strncmp(argv[i], "out=", 4) ? &out :
			   !strncmp(argv[i], "profile=", 8) ? &profile : NULL;

		if (f && !*f) {
			const char *name = strchr(argv[i], '=') + 1;

			*f = fopen(name, "w");
			if (!*f) {
				fprintf(stderr, "insns.so: %s: %s\n", name, strerror(errno));
				return -1;
			}
		} else if (!strncmp(argv[i], "at=", 3) && n_at < COUNTS - AT) {
			at[n_at++] = g_strsplit(argv[i] + 3, ":", -1);
		} else {
			fprintf(stderr, "insns.so: %s: wants out=FILE once, profile=FILE, and at=ADDRESS:... in hexadecimal\n",
				argv[i]);
			return -1;
		}
	}
	if (!out) {
		fprintf(stderr, "insns.so: out=FILE is missing\n");
		return -1;
	}
	several = info->system.smp_vcpus > 1;
	if (profile && several) {
		fprintf(stderr, "insns.so: profile= is for a guest with one CPU\n");
		return -1;
	}
	blocks = g_ptr_array_new();
	scores = qemu_plugin_scoreboard_new(COUNTS * sizeof(uint64_t));
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
