/*
 * Intel Multi-Key Total Memory Encryption: what it takes from the CPU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "accel/tcg/cpu-ldst.h"
#include "exec/cpu-common.h"
#include "exec/cputlb.h"
#include "exec/helper-proto.h"
#include "exec/target_page.h"
#include "exec/translation-block.h"
#include "tcg/tcg.h"
#include "tcg/helper-tcg.h"
#include "tcg/insn-start-words.h"
#include "mktme.h"

/* Where the guest is, also in the middle of a translation block */
static uint64_t mktme_guest_rip(CPUX86State *env, uintptr_t ra)
{
    CPUState *cs = env_cpu(env);
    uint64_t data[INSN_START_WORDS];

    if (!ra || !cpu_unwind_state_data(cs, ra, data)) {
        return env->eip;
    }
    if (tcg_cflags_has(cs, CF_PCREL)) {
        uint64_t pc = env->eip + env->segs[R_CS].base;

        return ((pc & TARGET_PAGE_MASK) | data[0]) - env->segs[R_CS].base;
    }
    return data[0] - env->segs[R_CS].base;
}

/* Does no other vCPU run now? Their TLBs may be changed then, and memory. */
static bool mktme_alone(CPUState *cs)
{
    return !tcg_cflags_has(cs, CF_PARALLEL) || cpu_in_exclusive_context(cs);
}

/* Begin the instruction again with all other vCPUs stopped, if they are not */
static void mktme_be_alone(CPUState *cs, uintptr_t ra)
{
    if (!mktme_alone(cs)) {
        cpu_loop_exit_atomic(cs, ra);
    }
}

typedef struct MktmeWork {
    hwaddr addr;
    unsigned keyid;
    uint64_t rip;
} MktmeWork;

static void mktme_set_view_work(CPUState *cs, run_on_cpu_data data)
{
    MktmeWork *work = data.host_ptr;
    X86CPU *cpu = X86_CPU(cs);

    cpu->mktme_ops->set_view(cpu->mktme, work->addr, work->keyid, work->rip);
    g_free(work);
}

/*
 * An interrupt or an exception is delivered, which can't begin again: it has
 * left the APIC. The big lock is held; another vCPU can be waiting for it, and
 * would never come to a stop.
 */
static void mktme_enter_and_deliver(CPUState *cs, hwaddr addr, unsigned keyid,
                                    uint64_t rip)
{
    X86CPU *cpu = X86_CPU(cs);

    bql_unlock();
    g_assert(cs->running);
    do {
        /* After the restart of the others this vCPU is just one of them */
        cpu_exec_end(cs);
        start_exclusive();
        cpu->mktme_ops->set_view(cpu->mktme, addr, keyid, rip);
        end_exclusive();
        cpu_exec_start(cs);
    } while (!cpu->mktme_ops->in_view(cpu->mktme, addr, keyid));
    bql_lock();
}

/*
 * Begin again once the page is in view: code is fetched, or page tables are
 * walked for that, maybe in the middle of translating what crosses pages. The
 * first one is locked then, and other vCPUs may be waiting for it.
 */
static G_NORETURN void mktme_enter_and_fetch(CPUState *cs, hwaddr addr,
                                             unsigned keyid, uint64_t rip)
{
    MktmeWork *work = g_new(MktmeWork, 1);

    work->addr = addr;
    work->keyid = keyid;
    work->rip = rip;
    async_safe_run_on_cpu(cs, mktme_set_view_work,
                          RUN_ON_CPU_HOST_PTR(work));
    cpu_loop_exit(cs);
}

/*
 * A vCPU is about to use the page at @addr through @keyid, in the instruction
 * to which @ra belongs; or, with 0, to fetch code or deliver an interrupt.
 *
 * Generated code never waits for the others to stop, as another vCPU may flush
 * it (tb_flush()) when all have stopped. It is left, as for a fault, and the
 * instruction begun again with the others stopped.
 */
void x86_mktme_enter(CPUX86State *env, hwaddr addr, unsigned keyid,
                     uintptr_t ra)
{
    CPUState *cs = env_cpu(env);
    X86CPU *cpu = env_archcpu(env);

    if (likely(cpu->mktme_ops->in_view(cpu->mktme, addr, keyid))) {
        return;
    }
    if (ra) {
        mktme_be_alone(cs, ra);
    }
    if (mktme_alone(cs) && !tcg_ctx->gen_tb) {
        cpu->mktme_ops->set_view(cpu->mktme, addr, keyid,
                                 mktme_guest_rip(env, ra));
    } else if (bql_locked()) {
        mktme_enter_and_deliver(cs, addr, keyid, env->eip);
    } else {
        mktme_enter_and_fetch(cs, addr, keyid, env->eip);
    }
}

bool x86_mktme_enter_code(CPUX86State *env, hwaddr addr, unsigned keyid)
{
    CPUState *cs = env_cpu(env);
    X86CPU *cpu = env_archcpu(env);

    if (!tcg_ctx->gen_tb) {
        x86_mktme_enter(env, addr, keyid, 0);
        return true;
    }
    if (cpu->mktme_ops->in_view(cpu->mktme, addr, keyid)) {
        return true;
    }
    if (tb_page_addr0(tcg_ctx->gen_tb) != -1) {
        return false;
    }
    /* A single instruction, of which no page is locked */
    mktme_be_alone(cs, 0);
    cpu->mktme_ops->set_view(cpu->mktme, addr, keyid, env->eip);
    return true;
}

void x86_mktme_enter_phys(CPUX86State *env, hwaddr addr, uintptr_t ra)
{
    X86CPU *cpu = env_archcpu(env);

    if (unlikely(cpu->mktme)) {
        unsigned keyid = cpu->mktme_ops->split(cpu->mktme, cpu->socket_id,
                                               &addr);

        x86_mktme_enter(env, addr, keyid, ra);
    }
}

bool x86_cpu_store_notify(CPUState *cs, CPUTLBEntryFull *full, vaddr addr,
                          unsigned size)
{
    /* Not X86_CPU(cs): this is called very often */
    X86CPU *cpu = env_archcpu(cpu_env(cs));

    return cpu->mktme_ops->store(cpu->mktme, full->phys_addr |
                                 (addr & ~TARGET_PAGE_MASK), size);
}

bool x86_mktme_handle_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val,
                            uintptr_t ra)
{
    X86CPU *cpu = env_archcpu(env);

    mktme_be_alone(env_cpu(env), ra);
    return cpu->mktme_ops->wrmsr(cpu->mktme, cpu->socket_id, msr, val);
}

void helper_pconfig(CPUX86State *env, target_ulong addr)
{
    CPUState *cs = env_cpu(env);
    X86CPU *cpu = env_archcpu(env);
    uintptr_t ra = GETPC();
    union {
        MktmeKeyProgram prog;
        uint64_t word[sizeof(MktmeKeyProgram) / 8];
    } u;
    MktmeStatus status;
    bool good;
    int i;

    /* SVM has no intercept for it: without a say of the host there is none */
    if (!cpu->mktme || (env->hflags & HF_GUEST_MASK)) {
        raise_exception_ra(env, EXCP06_ILLOP, ra);
    }
    if ((uint32_t)env->regs[R_EAX] != PCONFIG_MKTME_KEY_PROGRAM ||
        !cpu->mktme_ops->usable(cpu->mktme, cpu->socket_id) ||
        !QEMU_IS_ALIGNED(addr, MKTME_KEY_PROGRAM_ALIGN)) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
    mktme_be_alone(cs, ra);

    for (i = 0; i < ARRAY_SIZE(u.word); i++) {
        u.word[i] = cpu_to_le64(cpu_ldq_data_ra(env, addr + i * 8, ra));
    }
    good = cpu->mktme_ops->key_program(cpu->mktme, cpu->socket_id, &u.prog,
                                       mktme_guest_rip(env, ra), &status);
    /* There are keys in it */
    memset(&u, 0, sizeof(u));
    asm volatile("" : : "r"(&u) : "memory");

    if (!good) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
    env->regs[R_EAX] = status;
    CC_SRC = status == MKTME_PROG_SUCCESS ? 0 : CC_Z;
    CC_OP = CC_OP_EFLAGS;
}

void helper_clflush(CPUX86State *env, target_ulong addr)
{
    X86CPU *cpu = env_archcpu(env);
    hwaddr paddr;
    unsigned keyid;

    paddr = x86_mktme_translate(env, addr, GETPC());
    keyid = cpu->mktme_ops->split(cpu->mktme, cpu->socket_id, &paddr);
    cpu->mktme_ops->clean_line(cpu->mktme, paddr, keyid);
}

void helper_wbinvd(CPUX86State *env)
{
    X86CPU *cpu = env_archcpu(env);

    mktme_be_alone(env_cpu(env), GETPC());
    cpu->mktme_ops->clean_all(cpu->mktme);
}
