// SPDX-License-Identifier: GPL-2.0
/*
 * vfio: a device in the hands of a user program reads and writes memory under keys.
 *
 * The device is QEMU's "edu", behind an IOMMU: it copies up to 4096 bytes between
 * memory and a buffer of its own.  The pages are neighbours in memory, and under
 * different keys, so that one mapping of them has several KeyIDs.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <keyutils.h>
#include <linux/mktme.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#define RW		(PROT_READ | PROT_WRITE)
#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define PAGES		6
#define IOVA		0x100000UL

#define EDU_SRC		0x80
#define EDU_DST		0x88
#define EDU_COUNT	0x90
#define EDU_CMD		0x98
#define EDU_START	1
#define EDU_TO_RAM	2
#define EDU_BUFFER	0x40000

static volatile char *edu;

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(1, "%s", path);
	close(fd);
}

/* Gives the device to vfio-pci.  Returns its address, and its IOMMU group's file. */
static const char *take_device(char *group, size_t size)
{
	static char addr[32];
	char path[300], id[32], link[300];
	struct dirent *e;
	ssize_t n;
	DIR *dir = opendir("/sys/bus/pci/devices");
	int fd;

	while (dir && (e = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.20s/device", e->d_name);
		fd = open(path, O_RDONLY);
		n = fd < 0 ? 0 : read(fd, id, sizeof(id));
		close(fd);
		if (n >= 6 && !strncmp(id, "0x11e8", 6))
			snprintf(addr, sizeof(addr), "%.20s", e->d_name);
	}
	if (!*addr)
		errx(1, "no edu device");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override", addr);
	write_file(path, "vfio-pci");
	write_file("/sys/bus/pci/drivers_probe", addr);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", addr);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		err(1, "%s: is there an IOMMU?", path);
	link[n] = 0;
	snprintf(group, size, "/dev/vfio/%.40s", strrchr(link, '/') + 1);
	return addr;
}

static int open_device(void)
{
	struct vfio_region_info region = { .argsz = sizeof(region) };
	char group_path[64];
	const char *addr = take_device(group_path, sizeof(group_path));
	int container = open("/dev/vfio/vfio", O_RDWR);
	int group = open(group_path, O_RDWR), device;
	uint16_t command;

	if (container < 0 || group < 0)
		err(1, "%s", group_path);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		err(1, "container");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, addr);
	if (device < 0)
		err(1, "device");

	region.index = VFIO_PCI_CONFIG_REGION_INDEX;
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) ||
	    pread(device, &command, 2, region.offset + PCI_COMMAND) != 2)
		err(1, "configuration space");
	command |= PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY;
	if (pwrite(device, &command, 2, region.offset + PCI_COMMAND) != 2)
		err(1, "configuration space");
	region.index = VFIO_PCI_BAR0_REGION_INDEX;
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region))
		err(1, "BAR 0");
	edu = mmap(NULL, region.size, RW, MAP_SHARED, device, region.offset);
	if (edu == MAP_FAILED)
		err(1, "BAR 0");
	return container;
}

/* The device copies a page: from memory, or to it. */
static void dma(int page, bool to_ram)
{
	uint64_t iova = IOVA + page * PAGE;

	*(volatile uint64_t *)(edu + EDU_SRC) = to_ram ? EDU_BUFFER : iova;
	*(volatile uint64_t *)(edu + EDU_DST) = to_ram ? iova : EDU_BUFFER;
	*(volatile uint64_t *)(edu + EDU_COUNT) = PAGE;
	*(volatile uint64_t *)(edu + EDU_CMD) = EDU_START | (to_ram ? EDU_TO_RAM : 0);
	while (*(volatile uint64_t *)(edu + EDU_CMD) & EDU_START)
		usleep(1000);
}

static void put_under(void *p, size_t len, int key)
{
	if (syscall(__NR_encrypt_mprotect, p, len, RW, key))
		err(1, "encrypt_mprotect with key %d", key);
}

static int new_key(const char *name)
{
	const char *cpu = "type=cpu algorithm=aes-xts-128";
	int key = add_key(MKTME_KEY_TYPE, name, cpu, strlen(cpu), KEY_SPEC_PROCESS_KEYRING);

	if (key < 0)
		err(1, "add_key");
	return key;
}

static uint64_t phys(const char *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t e = 0;

	if (pread(fd, &e, 8, (uintptr_t)p / PAGE * 8) != 8)
		err(1, "pagemap");
	close(fd);
	return (e & ((1ULL << 55) - 1)) * PAGE;
}

int main(void)
{
	int container = open_device(), keys[PAGES] = { }, a = new_key("a"), b = new_key("b"), i;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.iova = IOVA,
		.size = PAGES * PAGE,
	};
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = IOVA,
		.size = PAGES * PAGE,
	};
	char *mem = mmap(NULL, 2 * HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char want[PAGE];

	/* Neighbours: none, a, a, b, none, none.  The last one is a scratch pad. */
	mem = (char *)(((uintptr_t)mem + HUGE - 1) & -HUGE);
	if (madvise(mem, HUGE, MADV_HUGEPAGE))
		err(1, "madvise");
	memset(mem, 1, HUGE);
	keys[1] = keys[2] = a;
	keys[3] = b;
	for (i = 0; i < PAGES; i++)
		if (keys[i])
			put_under(mem + i * PAGE, PAGE, keys[i]);
	for (i = 1; i < PAGES; i++)
		if (phys(mem + i * PAGE) != phys(mem) + i * PAGE)
			errx(1, "the pages are no neighbours");

	map.vaddr = (uintptr_t)mem;
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		err(1, "VFIO_IOMMU_MAP_DMA");
	for (i = 0; i < PAGES - 1; i++) {
		char *page = mem + i * PAGE, *pad = mem + (PAGES - 1) * PAGE;

		memset(page, 'A' + i, PAGE);
		memset(pad, 0, PAGE);
		dma(i, false);
		dma(PAGES - 1, true);
		memset(want, 'A' + i, PAGE);
		if (memcmp(pad, want, PAGE))
			errx(1, "page %d: the device did not read what is there", i);

		memset(pad, 'a' + i, PAGE);
		dma(PAGES - 1, false);
		dma(i, true);
		memset(want, 'a' + i, PAGE);
		if (memcmp(page, want, PAGE))
			errx(1, "page %d: what the device wrote is not there", i);
	}

	/* As long as the device has them, they keep their keys. */
	if (!syscall(__NR_encrypt_mprotect, mem, PAGE * PAGES, RW, a) || errno != EBUSY)
		err(1, "mapped pages should be busy");
	if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) || unmap.size != PAGES * PAGE)
		err(1, "VFIO_IOMMU_UNMAP_DMA");
	put_under(mem, PAGES * PAGE, a);
	for (i = 0; i < PAGES - 1; i++)
		if (mem[i * PAGE] != 'a' + i)
			errx(1, "page %d is not as it was", i);
	puts("all pages read and written");
	return 0;
}
