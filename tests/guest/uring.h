/* SPDX-License-Identifier: GPL-2.0 */
/* As much of io_uring as the tests use: one request at a time. */
#ifndef URING_H
#define URING_H

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct uring {
	int fd;
	struct io_uring_params p;
	struct io_uring_sqe *sqes;
	char *rings;
};

#define RING(u, where, field)						\
	((_Atomic uint32_t *)((u)->rings + (u)->p.where##_off.field))

/* With memory for the rings, one page each, or NULL: of the kernel's. */
static inline int uring_setup(struct uring *u, void *rings, void *sqes)
{
	memset(u, 0, sizeof(*u));
	if (rings) {
		u->p.flags = IORING_SETUP_NO_MMAP;
		u->p.sq_off.user_addr = (uintptr_t)sqes;
		u->p.cq_off.user_addr = (uintptr_t)rings;
	}
	u->fd = syscall(__NR_io_uring_setup, 8, &u->p);
	if (u->fd < 0)
		return -1;
	if (rings) {
		u->rings = rings;
		u->sqes = sqes;
		return 0;
	}
	u->rings = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQ_RING);
	u->sqes = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQES);
	return u->rings == MAP_FAILED || u->sqes == MAP_FAILED ? -1 : 0;
}

static inline int uring_register(struct uring *u, unsigned int op, void *arg,
				 unsigned int nr)
{
	return syscall(__NR_io_uring_register, u->fd, op, arg, nr);
}

/* Its result, in *flags the flags of the completion */
static inline int uring_do(struct uring *u, struct io_uring_sqe sqe, uint32_t *flags)
{
	uint32_t tail = *RING(u, sq, tail), head = *RING(u, cq, head);
	uint32_t mask = *RING(u, sq, ring_mask);
	struct io_uring_cqe *cqe;
	int res;

	u->sqes[tail & mask] = sqe;
	RING(u, sq, array)[tail & mask] = tail & mask;
	atomic_store(RING(u, sq, tail), tail + 1);
	if (syscall(__NR_io_uring_enter, u->fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) != 1)
		return -errno;
	cqe = (struct io_uring_cqe *)(u->rings + u->p.cq_off.cqes) +
		(head & *RING(u, cq, ring_mask));
	res = cqe->res;
	if (flags)
		*flags = cqe->flags;
	atomic_store(RING(u, cq, head), head + 1);
	return res;
}

static inline int uring_fixed(struct uring *u, int op, int fd, void *buf,
			      unsigned int len, uint64_t off)
{
	return uring_do(u, (struct io_uring_sqe) {
		.opcode = op, .fd = fd, .addr = (uintptr_t)buf, .len = len,
		.off = off }, NULL);
}

static inline int uring_buffer(struct uring *u, void *buf, size_t len)
{
	struct iovec iov = { buf, len };

	return uring_register(u, IORING_REGISTER_BUFFERS, &iov, 1);
}

#endif /* URING_H */
