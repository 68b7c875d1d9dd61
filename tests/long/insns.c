// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TCG plugin that counts the instructions between two points of a guest's
 * program: insns.so,out=FILE
 *
 * A point is a NOP that the program executes, 0F 1F 84 00 nn mm 4B 4D: mm is 0
 * where the count nn begins and 1 where it ends.  At the end FILE has a line for
 * each nn: how often, the median of instructions and of cache line flushes, and
 * the least and the most of instructions.  With the median, what interrupts now
 * and then is not counted; with -icount and one CPU, it is always the same.
 *
 * Repeated string instructions (REP) are not counted: of clearing a page there
 * would be hardly anything but them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define COUNTS	256

struct sample {
	uint64_t insns, flushes;
};

static uint64_t insns, flushes;
static struct sample began[COUNTS];
static struct {
	struct sample *samples;
	size_t n, room;
} counts[COUNTS];
static char *out;

static void begin(unsigned int cpu, void *nn)
{
	began[(uintptr_t)nn] = (struct sample) { insns, flushes };
}

static void end(unsigned int cpu, void *nn)
{
	size_t i = (uintptr_t)nn;

	if (counts[i].n == counts[i].room) {
		counts[i].room = counts[i].room * 2 + 16;
		counts[i].samples = realloc(counts[i].samples,
					    counts[i].room * sizeof(struct sample));
	}
	counts[i].samples[counts[i].n++] = (struct sample) {
		insns - began[i].insns, flushes - began[i].flushes };
}

static void count(unsigned int cpu, void *n)
{
	insns += (uintptr_t)n;
}

static void flush(unsigned int cpu, void *unused)
{
	flushes++;
}

static bool is_rep(const uint8_t *b, size_t size)
{
	size_t i = 0;

	if (b[0] != 0xf2 && b[0] != 0xf3)
		return false;
	i++;
	if (i < size && (b[i] & 0xf0) == 0x40)
		i++;
	return i + 1 == size && ((b[i] >= 0xa4 && b[i] <= 0xa7) ||
				 (b[i] >= 0xaa && b[i] <= 0xaf));
}

/* CLFLUSH is 0F AE /7 with memory, CLFLUSHOPT the same after 66, or 3E and CLFLUSH */
static bool is_flush(const uint8_t *b, size_t size)
{
	size_t i = 0;

	while (i < size && (b[i] == 0x66 || b[i] == 0x3e || (b[i] & 0xf0) == 0x40))
		i++;
	return i + 2 < size && b[i] == 0x0f && b[i + 1] == 0xae &&
	       (b[i + 2] & 0x38) == 0x38 && b[i + 2] < 0xc0;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	static const uint8_t point[] = { 0x0f, 0x1f, 0x84, 0x00 };
	size_t n = qemu_plugin_tb_n_insns(tb);

	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		size_t size = qemu_plugin_insn_size(insn);
		uint8_t b[16];

		qemu_plugin_insn_data(insn, b, sizeof(b));
		if (is_rep(b, size))
			continue;
		qemu_plugin_register_vcpu_insn_exec_cb(insn, count,
			QEMU_PLUGIN_CB_NO_REGS, (void *)1);
		if (is_flush(b, size))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, flush,
				QEMU_PLUGIN_CB_NO_REGS, NULL);
		if (size == 8 && !memcmp(b, point, 4) && b[6] == 0x4b && b[7] == 0x4d)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, b[5] ? end : begin,
				QEMU_PLUGIN_CB_NO_REGS, (void *)(uintptr_t)b[4]);
	}
}

static int by_insns(const void *a, const void *b)
{
	const struct sample *s = a, *t = b;

	return s->insns < t->insns ? -1 : s->insns > t->insns;
}

static void at_exit(qemu_plugin_id_t id, void *data)
{
	FILE *f = fopen(out, "w");

	if (!f) {
		perror(out);
		return;
	}
	for (size_t i = 0; i < COUNTS; i++) {
		struct sample *s = counts[i].samples;
		size_t n = counts[i].n;

		if (!n)
			continue;
		qsort(s, n, sizeof(*s), by_insns);
		fprintf(f, "%zu %zu %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
			i, n, s[n / 2].insns, s[n / 2].flushes, s[0].insns, s[n - 1].insns);
	}
	fclose(f);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
					   int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fprintf(stderr, "insns.so: out=FILE is missing\n");
		return -1;
	}
	out = strdup(argv[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
