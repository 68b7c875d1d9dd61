// SPDX-License-Identifier: GPL-2.0
/* syscall: what encrypt_mprotect() says of a page that is fit for it, key 0. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/mktme.h>

int main(void)
{
	void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (syscall(__NR_encrypt_mprotect, p, 4096, PROT_READ, 0))
		puts(strerrorname_np(errno));
	else
		puts("0");
	return 0;
}
