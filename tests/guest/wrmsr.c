// SPDX-License-Identifier: GPL-2.0
/* wrmsr CPU MSR VALUE: as firmware would */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	uint64_t val;
	char path[64];
	int fd;

	if (argc != 4)
		errx(2, "usage: wrmsr CPU MSR VALUE");
	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", atoi(argv[1]));
	val = strtoull(argv[3], NULL, 0);
	fd = open(path, O_WRONLY);
	if (fd < 0 || pwrite(fd, &val, sizeof(val), strtoul(argv[2], NULL, 0)) != sizeof(val))
		err(1, "%s: MSR %s", path, argv[2]);
	return 0;
}
