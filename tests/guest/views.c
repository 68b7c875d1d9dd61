// SPDX-License-Identifier: GPL-2.0
/*
 * views: pages under keys, used by two processes, on two CPUs if there are, and one
 * whose lines are not written back before KeyID 0 is used, on purpose.  It can be
 * the first process; then it ends the guest.
 */
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <keyutils.h>
#include <linux/mktme.h>

#define RW	(PROT_READ | PROT_WRITE)
#define PAGES	64

static key_serial_t new_key(const char *name, const char *payload)
{
	key_serial_t key = add_key("mktme", name, payload, strlen(payload), KEY_SPEC_PROCESS_KEYRING);

	if (key < 0)
		err(1, "add_key %s", name);
	return key;
}

static void use(volatile unsigned char *p, int start)
{
	for (int round = 0; round < 4; round++)
		for (int i = 0; i < PAGES * 4096; i += 64)
			p[i] += start + round;
}

/* Reads by KeyID 0, through the direct map, what is dirty under another one */
static void break_the_rule(volatile unsigned char *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY), mem = open("/proc/kcore", O_RDONLY);
	Elf64_Ehdr head;
	Elf64_Phdr part;
	uint64_t addr;
	struct timespec ms = { .tv_nsec = 5000000 };
	unsigned char c;
	uint64_t e;

	if (pread(fd, &e, 8, (uintptr_t)p / 4096 * 8) != 8 || !(e >> 63))
		err(1, "pagemap");
	p[100]++;
	addr = 0xffff888000000000 + (e & ((1ULL << 55) - 1)) * 4096 + 100;
	if (pread(mem, &head, sizeof(head), 0) != sizeof(head))
		err(1, "/proc/kcore");
	for (int i = 0; i < head.e_phnum; i++) {
		if (pread(mem, &part, sizeof(part), head.e_phoff + i * sizeof(part)) != sizeof(part))
			err(1, "/proc/kcore");
		if (part.p_type == PT_LOAD && addr - part.p_vaddr < part.p_memsz)
			break;
	}
	if (pread(mem, &c, 1, addr - part.p_vaddr + part.p_offset) != 1)
		err(1, "/proc/kcore");
	nanosleep(&ms, NULL);
}

int main(void)
{
	key_serial_t key[2];
	unsigned char *p;
	cpu_set_t set;
	int status;
	pid_t pid;

	if (getpid() == 1) {
		if (mount("dev", "/dev", "devtmpfs", 0, NULL) || mount("proc", "/proc", "proc", 0, NULL))
			err(1, "mount");
		close(0);
		open("/dev/console", O_RDWR);
		dup2(0, 1);
		dup2(0, 2);
	}
	key[0] = new_key("a", "type=cpu algorithm=aes-xts-128");
	key[1] = new_key("b", "type=cpu algorithm=aes-xts-256");
	p = mmap(NULL, PAGES * 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		err(1, "mmap");
	for (int k = 0; k < 2; k++) {
		if (syscall(__NR_encrypt_mprotect, p, PAGES * 4096, RW, key[k]))
			err(1, "encrypt_mprotect");
		pid = fork();
		if (!pid) {
			CPU_ZERO(&set);
			CPU_SET(1, &set);
			sched_setaffinity(0, sizeof(set), &set);
			use(p, 1);
			_exit(0);
		}
		use(p, 2);
		if (waitpid(pid, &status, 0) != pid || status)
			errx(1, "the child failed");
	}
	break_the_rule(p);
	puts("views: done");
	fflush(stdout);
	tcdrain(1);
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	return 0;
}
