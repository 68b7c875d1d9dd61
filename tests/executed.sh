# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# For tests that ask what a QEMU executed: a plugin, and a boot that has nothing from
# outside in it, so that nothing but the guest and QEMU says what comes next.

cat >"$T/hash.c" <<'C'
#include <inttypes.h>
#include <stdio.h>
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static uint64_t count, hash = 14695981039346656037u;

/* A block of instructions: their number in the upper byte, where they are below */
static void executed(unsigned int cpu, void *block)
{
	count += (uint64_t)block >> 56;
	hash = (hash ^ cpu ^ (uint64_t)block) * 1099511628211u;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t block = (uint64_t)qemu_plugin_tb_n_insns(tb) << 56 |
			 (qemu_plugin_tb_vaddr(tb) & 0xffffffffffffffu);

	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, (void *)block);
}

static void at_exit(qemu_plugin_id_t id, void *data)
{
	fprintf(stderr, "executed %" PRIu64 " %016" PRIx64 "\n", count, hash);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
					   int argc, char **argv)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
C
ok "the plugin builds" sh -c 'gcc -shared -fPIC -O2 -o "$0/hash.so" "$0/hash.c" \
	-I"$1/build/qemu/src/include/qemu" $(pkg-config --cflags glib-2.0)' "$T" "$TOP"

# executed QEMU OPTION...: how many instructions, and a hash of which
executed() {
	local qemu=$1
	shift
	timeout 300 "$qemu" -L /usr/share/qemu -L /usr/share/seabios \
		-accel tcg -icount shift=1,sleep=off -seed 1 -rtc base=2020-01-01,clock=vm \
		-plugin "$T/hash.so" -nodefaults -net none -display none -no-reboot \
		-kernel "$TOP/build/linux/out/vmlinux" "$@" 2>&1 </dev/null | grep ^executed
}
