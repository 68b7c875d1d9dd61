/*
 * Firmware for mktme-test: does what the test tells it to
 *
 * Every CPU has a mailbox in low memory. The test stores registers and the
 * address of a piece of code there; the CPU calls the code with these
 * registers, in 64-bit mode at CPL 0, and stores what they are afterwards, and
 * the exception if there was one. All of the first 4 GiB is mapped one to one,
 * and accessible from CPL 3; a page table for other mappings is at PT.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define PML4    0x1000
#define PDPT    0x2000
#define PD      0x3000          /* four of them */
#define PD2     0x7000
#define HERE    0x8000          /* this code, copied to RAM */
#define PT      0x9000          /* for linear addresses from 1 << 39 on */
#define IDT     0xa000
#define MBOX    0xb000          /* 256 bytes for each CPU */
#define STACKS  0xc000          /* 1 KiB for each CPU */
#define TSS     0xe000          /* 128 bytes for each CPU */
#define PDPT2   0x10000

/* Mailbox */
#define M_RUN     0x00
#define M_RAX     0x08
#define M_RBX     0x10
#define M_RCX     0x18
#define M_RDX     0x20
#define M_RSI     0x28
#define M_RDI     0x30
#define M_RFLAGS  0x38
#define M_CODE    0x40
#define M_VECTOR  0x48
#define M_ERROR   0x50
#define M_CR2     0x58
#define M_RIP     0x60
#define M_RSP     0x68
#define M_READY   0x70

#define CODE64  0x08
#define DATA    0x10
#define CODE32  0x18
#define UDATA   (0x20 | 3)
#define UCODE   (0x28 | 3)
#define TSSSEL  0x30

    .code16
    .globl _start
_start:
    /* Offset 0: where a startup IPI with vector 0xf0 leads to */
    mov     $0x1234, %bp        /* anything but what a boot processor gets */
    jmp     common
boot:
    xor     %bp, %bp
common:
    cli
    cs lgdtl gdt_ptr_rom - _start
    mov     %cr0, %eax
    or      $1, %eax
    mov     %eax, %cr0
    ljmpl   $CODE32, $(0xf0000 + start32 - _start)

    .code32
start32:
    mov     $DATA, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    test    %bp, %bp
    jnz     have_tables

    /* Copy to RAM, clear the rest of low memory that is used */
    cld
    mov     $0xf0000, %esi
    mov     $HERE, %edi
    mov     $1024, %ecx
    rep movsl
    mov     $PML4, %edi
    xor     %eax, %eax
    mov     $0x1c00, %ecx       /* up to HERE */
    rep stosl
    mov     $PT, %edi
    mov     $0x2000, %ecx       /* up to PDPT2 and beyond */
    rep stosl

    movl    $PDPT | 7, PML4
    movl    $PDPT2 | 7, PML4 + 8
    movl    $PD2 | 7, PDPT2
    movl    $PT | 7, PD2
    movl    $PD | 7, PDPT
    movl    $(PD + 0x1000) | 7, PDPT + 8
    movl    $(PD + 0x2000) | 7, PDPT + 16
    movl    $(PD + 0x3000) | 7, PDPT + 24
    mov     $0x87, %eax
    mov     $PD, %edi
1:  mov     %eax, (%edi)
    add     $8, %edi
    add     $0x200000, %eax
    jnc     1b

have_tables:
    lgdt    gdt_ptr_ram - _start + HERE
    mov     $PML4, %eax
    mov     %eax, %cr3
    mov     %cr4, %eax
    or      $0x620, %eax        /* PAE, OSFXSR, OSXMMEXCPT */
    mov     %eax, %cr4
    mov     $0xc0000080, %ecx   /* EFER */
    rdmsr
    or      $0x100, %eax        /* LME */
    wrmsr
    mov     %cr0, %eax
    or      $0x80010002, %eax   /* PG, WP, MP */
    and     $~4, %eax           /* EM */
    mov     %eax, %cr0
    ljmp    $CODE64, $(HERE + start64 - _start)

    .code64
start64:
    /* Which CPU is this? */
    mov     $1, %eax
    cpuid
    shr     $24, %ebx
    mov     %ebx, %r12d
    shl     $8, %ebx
    lea     MBOX(%rbx), %eax
    xor     %edx, %edx
    mov     $0xc0000101, %ecx   /* GS base */
    mov     %eax, %ebp
    xor     %eax, %eax
    mov     %eax, %gs
    mov     %ebp, %eax
    wrmsr
    mov     %r12d, %eax
    inc     %eax
    shl     $10, %eax
    lea     STACKS(%rax), %rsp

    /* A task state segment for exceptions at CPL 3 */
    mov     %r12d, %eax
    shl     $7, %eax
    add     $TSS, %eax
    lea     -256(%rsp), %rbx
    mov     %rbx, 4(%rax)
    mov     %r12d, %ecx
    shl     $4, %ecx
    lea     HERE + tss_desc - _start(%rcx), %rdi
    movw    $103, (%rdi)
    mov     %ax, 2(%rdi)
    movb    $0x89, 5(%rdi)
    add     $TSSSEL, %ecx
    ltr     %cx

    test    %r12d, %r12d
    jnz     1f
    /* Exceptions */
    mov     $IDT, %edi
    mov     $HERE + stubs - _start, %eax
    mov     $32, %ecx
2:  mov     %ax, (%rdi)
    movw    $CODE64, 2(%rdi)
    movw    $0xee00, 4(%rdi)
    add     $16, %edi
    add     $8, %eax
    dec     %ecx
    jnz     2b
1:  lidt    idt_ptr - _start + HERE
    movq    $1, %gs:M_READY

main_loop:
    pause
    cmpq    $0, %gs:M_RUN
    je      main_loop
    movq    $-1, %gs:M_VECTOR
    mov     %rsp, %gs:M_RSP
    mov     %gs:M_RAX, %rax
    mov     %gs:M_RBX, %rbx
    mov     %gs:M_RCX, %rcx
    mov     %gs:M_RDX, %rdx
    mov     %gs:M_RSI, %rsi
    mov     %gs:M_RDI, %rdi
    call    *%gs:M_CODE
    pushfq
    mov     %rax, %gs:M_RAX
    mov     %rbx, %gs:M_RBX
    mov     %rcx, %gs:M_RCX
    mov     %rdx, %gs:M_RDX
    mov     %rsi, %gs:M_RSI
    mov     %rdi, %gs:M_RDI
    popq    %rax
    mov     %rax, %gs:M_RFLAGS
done:
    movq    $0, %gs:M_RUN
    jmp     main_loop

exception:
    /* vector, error code or not, RIP */
    popq    %rax
    mov     %rax, %gs:M_VECTOR
    movq    $0, %gs:M_ERROR
    cmp     $8, %al
    je      1f
    cmp     $10, %al
    jb      2f
    cmp     $14, %al
    jbe     1f
    cmp     $17, %al
    jne     2f
1:  popq    %gs:M_ERROR
2:  popq    %gs:M_RIP
    mov     %cr2, %rax
    mov     %rax, %gs:M_CR2
    mov     %gs:M_RSP, %rsp
    jmp     done

    .balign 8
stubs:
    .set    vector, 0
    .rept   32
    .balign 8
    push    $vector
    jmp     exception
    .set    vector, vector + 1
    .endr

    .balign 8
gdt:
    .quad   0
    .quad   0x00af9b000000ffff  /* CODE64 */
    .quad   0x00cf93000000ffff  /* DATA */
    .quad   0x00cf9b000000ffff  /* CODE32 */
    .quad   0x00cff3000000ffff  /* UDATA */
    .quad   0x00affb000000ffff  /* UCODE */
tss_desc:
    .fill   16 * 2, 8, 0        /* for 16 CPUs */
gdt_end:

gdt_ptr_rom:
    .word   gdt_end - gdt - 1
    .long   0xf0000 + gdt - _start
gdt_ptr_ram:
    .word   gdt_end - gdt - 1
    .long   HERE + gdt - _start
idt_ptr:
    .word   32 * 16 - 1
    .quad   IDT

    /* The last 16 bytes of the image: the boot processor begins here */
    .org    0xff0
    .code16
    .byte   0xea                /* ljmp $0xf000, $boot */
    .word   boot - _start
    .word   0xf000
    .org    0x1000
