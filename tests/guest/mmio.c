// SPDX-License-Identifier: GPL-2.0
/*
 * mmio DEVICE: one CPU has the memory of a PCI device (/sys/bus/pci/devices/DEVICE)
 * come and go, another reads a register of the HPET that never changes.  Prints what it
 * has, how often it came back with something else, and how often the device's memory
 * came or went.
 */
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define HPET		0xfed00000	/* HPET specification 1.0a: where PCs have it */
#define ROUNDS		400000
#define PCI_COMMAND	4
#define PCI_COMMAND_MEMORY 2

static int config;
static atomic_bool done;

static void on_cpu(int n)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(n, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(2, "CPU %d", n);
}

static void *toggle(void *arg)
{
	unsigned long *n = arg;
	uint16_t command;

	on_cpu(1);
	if (pread(config, &command, 2, PCI_COMMAND) != 2)
		err(2, "command register");
	while (!done) {
		command ^= PCI_COMMAND_MEMORY;
		if (pwrite(config, &command, 2, PCI_COMMAND) != 2)
			err(2, "command register");
		++*n;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long n, wrong = 0, toggled = 0;
	uint32_t period, differs;
	volatile uint32_t *hpet;
	pthread_t thread;
	char path[128];
	int mem;

	if (argc < 2)
		errx(2, "usage: mmio DEVICE");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", argv[1]);
	config = open(path, O_RDWR);
	mem = open("/dev/mem", O_RDWR | O_SYNC);
	if (config < 0 || mem < 0)
		err(2, "%s", config < 0 ? path : "/dev/mem");
	hpet = mmap(NULL, 4096, PROT_READ, MAP_SHARED, mem, HPET);
	if (hpet == MAP_FAILED)
		err(2, "the HPET's registers");
	period = hpet[1];

	on_cpu(0);
	if (pthread_create(&thread, NULL, toggle, &toggled))
		errx(2, "no thread");
	for (n = 0; n < ROUNDS; n++) {
		/* Without a jump: what a CPU looks up anew at each jump stays as it is */
		differs = hpet[1] ^ period;
		differs |= hpet[1] ^ period;
		differs |= hpet[1] ^ period;
		differs |= hpet[1] ^ period;
		differs |= hpet[1] ^ period;
		differs |= hpet[1] ^ period;
		differs |= hpet[1] ^ period;
		differs |= hpet[1] ^ period;
		wrong += !!differs;
	}
	done = true;
	pthread_join(thread, NULL);
	printf("period %u wrong %lu toggled %lu\n", period, wrong, toggled);
	return 0;
}
