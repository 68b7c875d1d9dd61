// SPDX-License-Identifier: GPL-2.0
/*
 * kvmrun: a guest of KVM that counts in its memory and says so on a port, until the
 * host has seen it a number of times.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/kvm.h>

static const unsigned char code[] = {
	0xff, 0x06, 0x00, 0x02,		/* incw 0x200 */
	0xa1, 0x00, 0x02,		/* mov 0x200, %ax */
	0xe7, 0x10,			/* out %ax, $0x10 */
	0x83, 0xf8, 0x64,		/* cmp $100, %ax */
	0x75, 0xf2,			/* jne */
	0xf4,				/* hlt */
};

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR), vm, vcpu, size, seen = 0;
	struct kvm_userspace_memory_region mem = { .memory_size = 65536 };
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_run *run;
	unsigned char *ram;
	uint16_t val;

	if (kvm < 0)
		err(1, "/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	ram = mmap(NULL, mem.memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm < 0 || size < 0 || ram == MAP_FAILED)
		err(1, "KVM");
	memcpy(ram, code, sizeof(code));
	mem.userspace_addr = (uintptr_t)ram;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &mem))
		err(1, "KVM_SET_USER_MEMORY_REGION");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (vcpu < 0 || run == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &sregs))
		err(1, "KVM_CREATE_VCPU");
	sregs.cs.base = sregs.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		err(1, "registers");
	for (;;) {
		if (ioctl(vcpu, KVM_RUN, 0))
			err(1, "KVM_RUN");
		if (run->exit_reason == KVM_EXIT_HLT)
			break;
		if (run->exit_reason != KVM_EXIT_IO)
			errx(1, "exit reason %d", run->exit_reason);
		memcpy(&val, (char *)run + run->io.data_offset, 2);
		if (val != ++seen || memcmp(ram + 0x200, &val, 2))
			errx(1, "%d instead of %d", val, seen);
	}
	printf("kvmrun: %d\n", seen);
	return seen != 100;
}
