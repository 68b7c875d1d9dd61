/*
 * Test for Intel Multi-Key Total Memory Encryption: what its parts share
 *
 * The guest is a small firmware (mktme-guest/mktme-guest.S) whose CPUs run
 * the pieces of machine code that they get from here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_MKTME_HELPER_H
#define TESTS_MKTME_HELPER_H

#include "libqtest.h"
#include "libqos/pci-pc.h"
#include "qemu/bswap.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"

/* See mktme-guest.S */
#define PT              0x9000
#define MBOX            0xb000
#define WINDOW          (1ULL << 39)

#define CODE            0x20000     /* a page for each CPU */
#define KEY_PROGRAM     0x30000
#define USER_STACK      0x38000

/* The memory that the tests play with, some lines in it */
#define PAGE            0x1400000
#define LINE            (PAGE + 0x40)

#define PHYS_BITS       46
#define KEYID_BITS      6
#define KEYID(k)        ((uint64_t)(k) << (PHYS_BITS - KEYID_BITS))

#define AES_128         (1 << 8)    /* in KEYID_CTRL */
#define AES_256         (4 << 8)
#define SET_KEY_DIRECT  0
#define SET_KEY_RANDOM  1
#define CLEAR_KEY       2
#define NO_ENCRYPT      3

#define MSR_PARTITIONING 0x87
#define MSR_CAPABILITY  0x981
#define MSR_ACTIVATE    0x982
#define MSR_EXCLUDE_MASK 0x983
#define MSR_EXCLUDE_BASE 0x984

#define NO_EXCEPTION    UINT64_MAX
#define UD              6
#define GP              13
#define PF              14

typedef struct Regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rflags;
    uint64_t code, vector, error, cr2, rip;
} Regs;

/* Temporary files: the firmware, one for any use, a disk */
extern char *rom_path;
extern char *tmp_path;
extern char *disk_path;

/* Pieces of code */
static const uint8_t op_cpuid[] = { 0x0f, 0xa2, 0xc3 };
static const uint8_t op_rdmsr[] = { 0x0f, 0x32, 0xc3 };
static const uint8_t op_wrmsr[] = { 0x0f, 0x30, 0xc3 };
static const uint8_t op_pconfig[] = { 0x0f, 0x01, 0xc5, 0xc3 };
static const uint8_t op_load[] = { 0x48, 0x8b, 0x07, 0xc3 };
static const uint8_t op_store[] = { 0x48, 0x89, 0x07, 0xc3 };
static const uint8_t op_store_often[] = {
    0x48, 0x89, 0x07, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xc3 /* RCX times */
};
static const uint8_t op_invlpg[] = { 0x0f, 0x01, 0x3f, 0xc3 };
static const uint8_t op_clflush[] = { 0x0f, 0xae, 0x3f, 0xc3 };
static const uint8_t op_clflushopt[] = { 0x66, 0x0f, 0xae, 0x3f, 0xc3 };
static const uint8_t op_clwb[] = { 0x66, 0x0f, 0xae, 0x37, 0xc3 };
static const uint8_t op_wbinvd[] = { 0x0f, 0x09, 0xc3 };
static const uint8_t op_wbnoinvd[] = { 0xf3, 0x0f, 0x09, 0xc3 };
static const uint8_t op_rep_movsb[] = { 0xf3, 0xa4, 0xc3 };
static const uint8_t op_call_rdi[] = { 0xff, 0xd7, 0xc3 };

static const uint8_t op_vmrun[] = {
    0x0f, 0x01, 0xd8,                   /* vmrun */
    0x0f, 0x01, 0xdc,                   /* stgi */
    0xc3,
};

/* Keys with which the constants below were made, by which 64 bytes */
extern uint8_t data_key[32], tweak_key[32], plain[64];

/*
 * The line at LINE, with byte i being 7 * i + 3, encrypted by OpenSSL's
 * EVP_aes_128_xts() and EVP_aes_256_xts(): keys as in init_keys(), the tweak
 * is LINE, little endian.
 */
extern const uint8_t cipher_128[64];
extern const uint8_t cipher_256[64];

#define RUN(qts, cpu, op, regs) run(qts, cpu, op, sizeof(op), regs)
#define FLUSH(qts, cpu, op, addr) flush(qts, cpu, op, sizeof(op), addr)

/* Buffer of the "edu" device */
#define EDU_BUFFER 0x40000

/* A q35 with an x86-mktme object of these properties, and more arguments */
QTestState *start(const char *object, const char *args);

/* Quit */
void stop(QTestState *qts);

/* Wait until a word of a CPU's mailbox has a value */
void wait_cpu(QTestState *qts, unsigned cpu, unsigned offset, uint64_t value);

/* Have a CPU run a piece of code with these registers, and get them back */
void run(QTestState *qts, unsigned cpu, const uint8_t *op, size_t len,
         Regs *regs);

/* Read an MSR */
uint64_t rdmsr(QTestState *qts, unsigned cpu, uint32_t msr);

/* Write an MSR; returns the vector of the exception, or NO_EXCEPTION */
uint64_t wrmsr(QTestState *qts, unsigned cpu, uint32_t msr, uint64_t val);

/* Load 8 bytes */
uint64_t load(QTestState *qts, unsigned cpu, uint64_t addr);

/* Store 8 bytes */
void store(QTestState *qts, unsigned cpu, uint64_t addr, uint64_t val);

/* Run a piece of code with an address in RDI */
void flush(QTestState *qts, unsigned cpu, const uint8_t *op, size_t len,
           uint64_t addr);

/* Have a page of physical memory at number @n of the window */
uint64_t map(QTestState *qts, unsigned cpu, unsigned n, uint64_t phys);

/* A MKTME_KEY_PROGRAM_STRUCT of 192 bytes */
void key_program(uint8_t *buf, uint16_t keyid, uint32_t ctrl,
                 const uint8_t *key1, const uint8_t *key2);

/* PCONFIG; returns the vector of the exception, or NO_EXCEPTION */
uint64_t pconfig_vector(QTestState *qts, unsigned cpu, uint16_t keyid,
                        uint32_t ctrl);

/* PCONFIG that does not fault; returns RAX */
uint64_t pconfig(QTestState *qts, unsigned cpu, uint16_t keyid, uint32_t ctrl,
                 const uint8_t *key1, const uint8_t *key2);

/* Program a KeyID with data_key and tweak_key, AES-XTS-128 */
void set_key(QTestState *qts, unsigned cpu, uint16_t keyid);

/* Memory as the DIMM holds it */
void dump(QTestState *qts, uint64_t addr, void *buf, size_t len);

/* Write what the DIMM holds */
void restore(QTestState *qts, uint64_t addr, const void *buf, size_t len);

/* query-mktme */
QDict *query(QTestState *qts);

/* A counter of query-mktme */
int64_t counter(QTestState *qts, const char *name);

/* Wait until there have been @n late write-backs */
void wait_late_writes(QTestState *qts, int64_t n);

/* Store what `plain` has */
void store_plain(QTestState *qts, uint64_t addr);

/* Load 64 bytes */
void load_line(QTestState *qts, uint64_t addr, uint8_t *buf);

/* Execute CPUID */
void cpuid(QTestState *qts, uint32_t leaf, uint32_t subleaf, Regs *r);

/* Start another CPU at the beginning of the firmware image */
void start_ap(QTestState *qts, unsigned cpu);

/* Let CPU 0 have guests, with its state to be saved at @hsave */
void svm_enable(QTestState *qts, uint64_t hsave);

/*
 * A VMCB for a guest that runs as its host does, but without memory of its own;
 * exceptions, VMMCALL and shutdown are intercepted
 */
void vmcb_init(QTestState *qts, uint64_t vmcb, uint64_t rip, uint64_t rsp);

/* Have the "edu" device copy between its buffer and memory */
void edu_dma(QTestState *qts, QPCIDevice *dev, QPCIBar bar, uint64_t src,
             uint64_t dst, unsigned len, bool to_memory);

/* main() of a test: @add adds the test cases */
int mktme_test_main(int argc, char **argv, void (*add)(void));

#endif
