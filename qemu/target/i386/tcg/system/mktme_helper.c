/*
 * Intel Multi-Key Total Memory Encryption: what it takes from the CPU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "exec/cpu-common.h"
#include "exec/cpu_ldst.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "hw/i386/mktme.h"
#include "tcg/tcg.h"
#include "tcg/helper-tcg.h"
#include "tcg/insn-start-words.h"

/* Where the guest is, also in the middle of a translation block */
static uint64_t mktme_guest_rip(CPUX86State *env, uintptr_t ra)
{
    CPUState *cs = env_cpu(env);
    uint64_t data[TARGET_INSN_START_WORDS];

    if (!ra || !cpu_unwind_state_data(cs, ra, data)) {
        return env->eip;
    }
    if (tcg_cflags_has(cs, CF_PCREL)) {
        uint64_t pc = env->eip + env->segs[R_CS].base;

        return ((pc & TARGET_PAGE_MASK) | data[0]) - env->segs[R_CS].base;
    }
    return data[0] - env->segs[R_CS].base;
}

typedef struct MktmeStop {
    bool already;               /* in cpu_exec_step_atomic() */
    bool locked;                /* the big lock was held */
} MktmeStop;

/*
 * Stop all other vCPUs from within an instruction. Their TLBs may be changed
 * then, and so may memory. The big lock is held where interrupts and
 * exceptions are delivered; another vCPU can be waiting for it, and would
 * never come to a stop.
 */
static MktmeStop mktme_stop_others(CPUState *cs)
{
    MktmeStop stop = {
        .already = cpu_in_exclusive_context(cs),
        .locked = bql_locked(),
    };

    if (!stop.already) {
        if (stop.locked) {
            bql_unlock();
        }
        g_assert(cs->running);
        cpu_exec_end(cs);
        start_exclusive();
    }
    return stop;
}

static void mktme_resume_others(CPUState *cs, MktmeStop stop)
{
    if (!stop.already) {
        end_exclusive();
        cpu_exec_start(cs);
        if (stop.locked) {
            bql_lock();
        }
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

    x86_mktme_set_view(X86_CPU(cs)->mktme, work->addr, work->keyid, work->rip);
    g_free(work);
}

/*
 * A vCPU is about to use the page at @addr through @keyid.
 *
 * The instruction may hold a pointer into another page already, where it
 * crosses pages. Should that page go to another view meanwhile, because
 * another vCPU uses it through another KeyID at the same time, this one access
 * goes to the old view: the guest has no order between the two either.
 */
void x86_mktme_enter(CPUX86State *env, hwaddr addr, unsigned keyid,
                     uintptr_t ra)
{
    CPUState *cs = env_cpu(env);
    X86MktmeState *mktme = env_archcpu(env)->mktme;
    MktmeStop stop;

    if (likely(x86_mktme_in_view(mktme, addr, keyid))) {
        return;
    }
    if (tcg_ctx->gen_tb) {
        /*
         * In the middle of translating code that crosses pages. The first
         * page is locked, and other vCPUs may be waiting for it: begin
         * again once the page is in view.
         */
        MktmeWork *work = g_new(MktmeWork, 1);

        work->addr = addr;
        work->keyid = keyid;
        work->rip = env->eip;
        async_safe_run_on_cpu(cs, mktme_set_view_work,
                              RUN_ON_CPU_HOST_PTR(work));
        cpu_loop_exit(cs);
    }
    do {
        /* After the restart of the others this vCPU is just one of them */
        stop = mktme_stop_others(cs);
        x86_mktme_set_view(mktme, addr, keyid, mktme_guest_rip(env, ra));
        mktme_resume_others(cs, stop);
    } while (!x86_mktme_in_view(mktme, addr, keyid));
}

bool x86_cpu_store_notify(CPUState *cs, CPUTLBEntryFull *full, vaddr addr,
                          unsigned size)
{
    /* Not X86_CPU(cs): this is called very often */
    return x86_mktme_store(env_archcpu(cpu_env(cs))->mktme,
                           full->phys_addr | (addr & ~TARGET_PAGE_MASK), size);
}

bool x86_mktme_handle_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val)
{
    CPUState *cs = env_cpu(env);
    X86CPU *cpu = env_archcpu(env);
    MktmeStop stop;
    bool ok;

    stop = mktme_stop_others(cs);
    ok = x86_mktme_wrmsr(cpu->mktme, cpu->socket_id, msr, val);
    mktme_resume_others(cs, stop);
    return ok;
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
    uint64_t rip;
    MktmeStop stop;
    bool bad;
    int i;

    if (!cpu->mktme) {
        raise_exception_ra(env, EXCP06_ILLOP, ra);
    }
    if ((uint32_t)env->regs[R_EAX] != PCONFIG_MKTME_KEY_PROGRAM ||
        !x86_mktme_usable(cpu->mktme, cpu->socket_id) ||
        !QEMU_IS_ALIGNED(addr, MKTME_KEY_PROGRAM_ALIGN)) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }

    for (i = 0; i < ARRAY_SIZE(u.word); i++) {
        u.word[i] = cpu_to_le64(cpu_ldq_data_ra(env, addr + i * 8, ra));
    }
    bad = le32_to_cpu(u.prog.keyid_ctrl) & MKTME_CTRL_RESERVED;
    for (i = 0; i < ARRAY_SIZE(u.prog.reserved); i++) {
        bad |= u.prog.reserved[i];
    }
    if (!bad) {
        rip = mktme_guest_rip(env, ra);
        stop = mktme_stop_others(cs);
        status = x86_mktme_key_program(cpu->mktme, cpu->socket_id, &u.prog,
                                       rip);
        mktme_resume_others(cs, stop);
    }
    /* There are keys in it */
    memset(&u, 0, sizeof(u));
    asm volatile("" : : "r"(&u) : "memory");

    if (bad) {
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
    keyid = x86_mktme_split(cpu->mktme, cpu->socket_id, &paddr);
    x86_mktme_clean_line(cpu->mktme, paddr, keyid);
}

void helper_wbinvd(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    MktmeStop stop;

    stop = mktme_stop_others(cs);
    x86_mktme_clean_all(env_archcpu(env)->mktme);
    mktme_resume_others(cs, stop);
}
