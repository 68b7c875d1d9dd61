// SPDX-License-Identifier: GPL-2.0
/* Memory under a key, reached by the kernel, or by others through it. */
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <linux/futex.h>
#include <linux/if_alg.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "mm.h"
#include "uring.h"

#define LEN	(8 * PAGE)

static void others(void)
{
	char *mem = map_under(LEN, A), *buf = map(LEN), path[64];
	struct iovec local = { buf, LEN }, remote = { mem, LEN };
	int status, fd;
	pid_t pid;
	long word;

	fill(mem, LEN, 100);
	pid = fork();
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		/* What it was written by the other ways is what it sees. */
		if (!filled(mem, LEN, 400))
			_exit(1);
		_exit(vma_keyid(mem) == keyid[A] ? 0 : 2);
	}
	waitpid(pid, &status, 0);

	result(process_vm_readv(pid, &local, 1, &remote, 1, 0) == LEN &&
	       filled(buf, LEN, 100), "process_vm_readv");
	fill(buf, LEN, 200);
	result(process_vm_writev(pid, &local, 1, &remote, 1, 0) == LEN,
	       "process_vm_writev");

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR);
	memset(buf, 0, LEN);
	result(pread(fd, buf, LEN, (off_t)mem) == LEN && filled(buf, LEN, 200),
	       "/proc/pid/mem, read");
	fill(buf, LEN, 300);
	result(pwrite(fd, buf, LEN, (off_t)mem) == LEN, "/proc/pid/mem, written");
	close(fd);

	for (size_t i = 0; i < LEN; i += PAGE) {
		errno = 0;
		word = ptrace(PTRACE_PEEKDATA, pid, mem + i, 0);
		if (errno || word != 300 + i / PAGE)
			break;
		if (ptrace(PTRACE_POKEDATA, pid, mem + i, 400 + i / PAGE))
			break;
		word = i + PAGE;
	}
	result(word == LEN, "ptrace, peek and poke");

	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &status, 0);
	result(!status, "the other one sees what was written");
	check("after all that, its parent", mem, LEN, 100, A);
	munmap(mem, LEN);
	munmap(buf, LEN);
}

/* A debugger's breakpoint, in code that runs from memory under a key */
static void breakpoint(void)
{
	/* mov $42, %eax; ret */
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	struct user_regs_struct regs;
	char *text = map_under(PAGE, A);
	int status;
	pid_t pid;
	long word;

	memcpy(text, code, sizeof(code));
	works("code under a key", encrypt_mprotect(text, PAGE, PROT_READ | PROT_EXEC,
						   serial[A]));
	result(((int (*)(void))text)() == 42, "it runs");

	pid = fork();
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(((int (*)(void))text)());
	}
	waitpid(pid, &status, 0);
	word = ptrace(PTRACE_PEEKTEXT, pid, text, 0);
	ptrace(PTRACE_POKETEXT, pid, text, (word & ~0xffL) | 0xcc);
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &status, 0);
	ptrace(PTRACE_GETREGS, pid, 0, &regs);
	result(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP &&
	       regs.rip == (uintptr_t)text + 1, "the breakpoint is hit");
	ptrace(PTRACE_POKETEXT, pid, text, word);
	regs.rip--;
	ptrace(PTRACE_SETREGS, pid, 0, &regs);
	ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
	waitpid(pid, &status, 0);
	ptrace(PTRACE_GETREGS, pid, 0, &regs);
	result(regs.rip == (uintptr_t)text + 5, "a step");
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &status, 0);
	result(WIFEXITED(status) && WEXITSTATUS(status) == 42, "and it goes on");
	result(((int (*)(void))text)() == 42 && !memcmp(text, code, sizeof(code)),
	       "the parent's code is as it was");
	munmap(text, PAGE);
}

/* What is probed; the argument is memory that the probe reads */
static __attribute__((noinline)) int probed(const void *p)
{
	asm volatile("" :: "r" (p) : "memory");
	return 42;
}

static bool into_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_APPEND);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return good;
}

/* Does what the file holds have that text?  Of so much of it */
static bool in_file(const char *name, const char *text)
{
	static char buf[1 << 16];
	ssize_t n, len = 0;
	int fd = open(name, O_RDONLY);

	while ((n = read(fd, buf + len, sizeof(buf) - 1 - len)) > 0)
		len += n;
	buf[len] = 0;
	close(fd);
	return strstr(buf, text);
}

/*
 * A uprobe stands in a file's mapping, which can't be under a key; what it fetches can,
 * by way of the task's own page tables.
 */
static void uprobe(void)
{
#define TRACING	"/sys/kernel/tracing/"
	unsigned long start, end, offset = 0, at = (unsigned long)probed;
	uint64_t *p = (uint64_t *)map_under(PAGE, A);
	char line[256];
	FILE *maps = fopen("/proc/self/maps", "r");
	bool found = false;

	while (!found && fgets(line, sizeof(line), maps))
		found = sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 &&
			at >= start && at < end;
	fclose(maps);
	result(found, "the code's mapping");
	fails("code that a probe can be in has no key", EINVAL,
	      encrypt_mprotect((void *)(at & -PAGE), PAGE, PROT_READ | PROT_EXEC, serial[A]));

	*p = 0x6d6b746d65;
	snprintf(line, sizeof(line), "p:mktme_test/hit /tests/mm_access:0x%lx word=+0(%%di):x64\n",
		 at - start + offset);
	result(into_file(TRACING "uprobe_events", line), "a uprobe");
	result(into_file(TRACING "events/mktme_test/hit/enable", "1"), "it is enabled");
	result(probed(p) == 42, "the probed code runs");
	result(in_file(TRACING "trace", "word=0x6d6b746d65"), "the probe sees what is under the key");
	result(into_file(TRACING "events/mktme_test/hit/enable", "0") &&
	       into_file(TRACING "uprobe_events", "-:mktme_test/hit\n"), "it is away again");
	munmap(p, PAGE);
}

/* Has the buffer a sample with that address?  It has not gone round yet. */
static bool sampled(struct perf_event_mmap_page *buf, void *addr)
{
	char *data = (char *)buf + PAGE;

	for (uint64_t at = 0; at < buf->data_head; ) {
		struct perf_event_header *header = (void *)(data + at);

		if (header->type == PERF_RECORD_SAMPLE &&
		    *(uint64_t *)(header + 1) == (uintptr_t)addr)
			return true;
		at += header->size;
	}
	return false;
}

/* perf's buffer is the kernel's own memory, mapped: that of no key */
static void perf_buffer(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR,
	};
	int fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, 0);
	struct perf_event_mmap_page *buf = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
	char *p = map_under(PAGE, A);

	result(buf != MAP_FAILED, "perf's buffer");
	fails("which can have no key", EINVAL, encrypt_mprotect(buf, 2 * PAGE, RW, serial[A]));
	*(volatile char *)p = 1;
	result(sampled(buf, p), "a sample of a fault on memory under a key");
	munmap(p, PAGE);
	munmap(buf, 2 * PAGE);
	close(fd);
}

static void fixed_buffers(void)
{
	char *mem = map_huge(HUGE), *other = map_under(LEN, B);
	int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	struct uring u;
	char *rings;

	madvise(mem, HUGE, MADV_HUGEPAGE);
	put_under(mem, HUGE, A);
	fill(mem, HUGE, 1000);
	works("io_uring", uring_setup(&u, NULL, NULL));
	works("a huge page as fixed buffer", uring_buffer(&u, mem, HUGE));
	result(uring_fixed(&u, IORING_OP_WRITE_FIXED, fd, mem, HUGE, 0) == HUGE,
	       "WRITE_FIXED");
	result(pread(fd, other, LEN, HUGE - LEN) == LEN &&
	       filled(other, LEN, 1000 + (HUGE - LEN) / PAGE), "and read elsewhere");
	fill(other, LEN, 2000);
	pwrite(fd, other, LEN, 0);
	result(uring_fixed(&u, IORING_OP_READ_FIXED, fd, mem + LEN, LEN, 0) == LEN &&
	       filled(mem + LEN, LEN, 2000), "READ_FIXED");
	fails("no other key while it is registered", EBUSY,
	      encrypt_mprotect(mem, HUGE, RW, serial[B]));
	check("registered", mem + LEN, LEN, 2000, A);

	/* The memory goes, the buffer stays. */
	munmap(mem, HUGE);
	result(uring_fixed(&u, IORING_OP_WRITE_FIXED, fd, mem + LEN, LEN, LEN) == LEN,
	       "WRITE_FIXED of memory that is unmapped");
	result(pread(fd, other, LEN, LEN) == LEN && filled(other, LEN, 2000),
	       "it has its contents");
	uring_register(&u, IORING_UNREGISTER_BUFFERS, NULL, 0);
	close(u.fd);

	/* The rings themselves, and a ring of buffers */
	rings = map_under(4 * PAGE, A);
	memset(rings, 0, 4 * PAGE);
	if (uring_setup(&u, rings, rings + PAGE)) {
		result(false, "io_uring with rings under a key");
		printf("# %s\n", strerror(errno));
	} else {
		struct io_uring_buf_ring *br = (void *)(rings + 2 * PAGE);
		struct io_uring_buf_reg reg = {
			.ring_addr = (uintptr_t)br, .ring_entries = 4, .bgid = 1 };
		uint32_t flags = 0;
		int r;

		works("a ring of buffers under a key",
		      uring_register(&u, IORING_REGISTER_PBUF_RING, &reg, 1));
		br->bufs[0] = (struct io_uring_buf) {
			.addr = (uintptr_t)other, .len = PAGE, .bid = 7 };
		__atomic_store_n(&br->tail, 1, __ATOMIC_RELEASE);
		memset(other, 0, PAGE);
		r = uring_do(&u, (struct io_uring_sqe) {
			.opcode = IORING_OP_READ, .flags = IOSQE_BUFFER_SELECT,
			.fd = fd, .len = PAGE, .buf_group = 1 }, &flags);
		result(r == PAGE && (flags >> IORING_CQE_BUFFER_SHIFT) == 7 &&
		       page_is(other, 2000), "a read by rings under a key");
		close(u.fd);
	}
	munmap(rings, 4 * PAGE);
	munmap(other, LEN);
	close(fd);
}

static void pipes(void)
{
	char *mem = map_under(LEN, A), *buf = map_under(LEN, B);
	int p[2], q[2], fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	struct iovec iov = { mem, LEN }, to = { buf, LEN };
	size_t got;

	pipe(p);
	pipe(q);
	fill(mem, LEN, 10);
	result(vmsplice(p[1], &iov, 1, 0) == LEN, "vmsplice");
	result(tee(p[0], q[1], LEN, 0) == LEN, "tee");
	result(splice(p[0], NULL, fd, NULL, LEN, 0) == LEN, "splice to a file");
	result(pread(fd, buf, LEN, 0) == LEN && filled(buf, LEN, 10),
	       "what the file has");
	/* In the pipe is the page itself: what is written later shows. */
	fill(mem, LEN, 20);
	for (got = 0; got < LEN; ) {
		to = (struct iovec) { buf + got, LEN - got };
		ssize_t r = vmsplice(q[0], &to, 1, 0);

		if (r <= 0)
			break;
		got += r;
	}
	result(got == LEN && filled(buf, LEN, 20), "vmsplice out of the other pipe");

	/* A gift, and the giver is gone */
	fill(mem, LEN, 30);
	result(vmsplice(p[1], &iov, 1, SPLICE_F_GIFT) == LEN, "vmsplice as a gift");
	fails("in a pipe it is busy", EBUSY, encrypt_mprotect(mem, LEN, RW, serial[B]));
	check("in a pipe", mem, LEN, 30, A);
	munmap(mem, LEN);
	result(read(p[0], buf, LEN) == LEN && filled(buf, LEN, 30),
	       "read after the memory is unmapped");
	check("where it was read to", buf, LEN, 30, B);

	/* From a file by splice, into memory under a key */
	result(splice(fd, &(loff_t) { 0 }, p[1], NULL, LEN, 0) == LEN &&
	       read(p[0], buf, LEN) == LEN && filled(buf, LEN, 10),
	       "splice from a file");
	munmap(buf, LEN);
	close(fd);
	close(p[0]);
	close(p[1]);
	close(q[0]);
	close(q[1]);
}

/* A connection over loopback */
static void connected(int s[2])
{
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(to);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	bind(l, (void *)&to, len);
	listen(l, 1);
	getsockname(l, (void *)&to, &len);
	s[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(s[0], (void *)&to, len))
		err(1, "connect");
	s[1] = accept(l, NULL, NULL);
	close(l);
}

struct receiver {
	int fd;
	char *buf;
	size_t len;
};

static void *receive(void *arg)
{
	struct receiver *r = arg;
	size_t got = 0;
	ssize_t n;

	while (got < r->len) {
		n = recv(r->fd, r->buf + got, r->len - got, 0);
		if (n <= 0)
			break;
		got += n;
	}
	return (void *)got;
}

static void zerocopy(const char *what, bool huge)
{
	size_t len = huge ? HUGE / 2 : 16 * PAGE, sent;
	char *mem = map_huge(HUGE), control[200];
	int s[2], one = 1, done = 0;
	struct receiver r;
	pthread_t thread;
	void *got;

	if (huge)
		madvise(mem, HUGE, MADV_HUGEPAGE);
	put_under(mem, HUGE, A);
	fill(mem, HUGE, 50);
	connected(s);
	setsockopt(s[0], SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one));
	r = (struct receiver) { s[1], map_under(len, B), len };
	pthread_create(&thread, NULL, receive, &r);
	for (sent = 0; sent < len; ) {
		ssize_t n = send(s[0], mem + PAGE + sent, len - sent, MSG_ZEROCOPY);

		if (n < 0 && errno == ENOBUFS)
			continue;
		if (n < 0) {
			printf("# send: %s\n", strerror(errno));
			break;
		}
		sent += n;
	}
	shutdown(s[0], SHUT_WR);
	pthread_join(thread, &got);
	result((size_t)got == len && filled(r.buf, len, 51), "MSG_ZEROCOPY, %s", what);
	for (int i = 0; i < 100 && !done; i++) {
		struct msghdr msg = { .msg_control = control,
				      .msg_controllen = sizeof(control) };

		if (recvmsg(s[0], &msg, MSG_ERRQUEUE) >= 0)
			done = 1;
		else
			usleep(10000);
	}
	result(done, "MSG_ZEROCOPY, %s: completion", what);
	close(s[0]);
	close(s[1]);
	munmap(r.buf, len);
	munmap(mem, HUGE);
}

/* By splice, the pages are in the socket buffer themselves. */
static void splice_to_socket(void)
{
	char *mem = map_under(LEN, A), *buf = map_under(LEN, B);
	struct iovec iov = { mem, LEN };
	int p[2], s[2];

	fill(mem, LEN, 60);
	connected(s);
	pipe(p);
	vmsplice(p[1], &iov, 1, 0);
	result(splice(p[0], NULL, s[0], NULL, LEN, 0) == LEN, "splice to a socket");
	munmap(mem, LEN);
	result(recv(s[1], buf, LEN, MSG_WAITALL) == LEN && filled(buf, LEN, 60),
	       "what comes out of the socket");
	close(s[0]);
	close(s[1]);
	close(p[0]);
	close(p[1]);
	munmap(buf, LEN);
}

/* An operation's socket, with a key of 16 bytes if it takes one */
static int alg(const char *type, const char *name)
{
	struct sockaddr_alg sa = { .salg_family = AF_ALG };
	int s = socket(AF_ALG, SOCK_SEQPACKET, 0), op;

	strcpy((char *)sa.salg_type, type);
	strcpy((char *)sa.salg_name, name);
	if (s < 0 || bind(s, (void *)&sa, sizeof(sa))) {
		result(false, "AF_ALG has %s", name);
		return -1;
	}
	if (strcmp(type, "hash"))
		setsockopt(s, SOL_ALG, ALG_SET_KEY, "0123456789abcdef", 16);
	op = accept(s, NULL, NULL);
	close(s);
	return op;
}

/* Sends it off, by the pages themselves where @spliced; reads the outcome. */
static ssize_t alg_do(int fd, bool cipher, void *in, size_t len, void *out,
		      size_t out_len, int assoc, bool spliced)
{
	char control[CMSG_SPACE(4) + CMSG_SPACE(4 + 16) + CMSG_SPACE(4)] = { };
	struct iovec iov = { in, len };
	struct msghdr msg = { };
	struct cmsghdr *c;
	struct af_alg_iv *iv;
	int p[2];

	if (cipher) {
		msg.msg_control = control;
		msg.msg_controllen = assoc ? sizeof(control) :
				     CMSG_SPACE(4) + CMSG_SPACE(4 + 16);
		c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr) { CMSG_LEN(4), SOL_ALG, ALG_SET_OP };
		*(uint32_t *)CMSG_DATA(c) = ALG_OP_ENCRYPT;
		c = CMSG_NXTHDR(&msg, c);
		*c = (struct cmsghdr) { CMSG_LEN(4 + (assoc ? 12 : 16)), SOL_ALG, ALG_SET_IV };
		iv = (void *)CMSG_DATA(c);
		iv->ivlen = assoc ? 12 : 16;
		if (assoc) {
			c = CMSG_NXTHDR(&msg, c);
			*c = (struct cmsghdr) { CMSG_LEN(4), SOL_ALG,
						ALG_SET_AEAD_ASSOCLEN };
			*(uint32_t *)CMSG_DATA(c) = assoc;
		}
	}
	if (!spliced) {
		msg.msg_iov = &iov;
		msg.msg_iovlen = 1;
	}
	if ((cipher || !spliced) && sendmsg(fd, &msg, spliced ? MSG_MORE : 0) < 0) {
		printf("# sendmsg: %s\n", strerror(errno));
		return -1;
	}
	if (spliced) {
		pipe(p);
		if (vmsplice(p[1], &iov, 1, 0) != (ssize_t)len ||
		    splice(p[0], NULL, fd, NULL, len, 0) != (ssize_t)len) {
			printf("# splice: %s\n", strerror(errno));
			return -1;
		}
		close(p[0]);
		close(p[1]);
	}
	return read(fd, out, out_len);
}

static void crypto(void)
{
	static const struct {
		const char *type, *name;
		size_t out;
		int assoc;
	} algs[] = {
		{ "hash", "sha256", 32, 0 },
		{ "skcipher", "cbc(aes)", LEN, 0 },
		{ "skcipher", "ctr(aes)", LEN, 0 },
		{ "aead", "gcm(aes)", LEN + 16, 6000 },
	};
	char *plain = map(LEN), *mem = map_under(LEN, A);
	char *wanted = map(2 * LEN), *out = map_under(2 * LEN, B);

	fill(plain, LEN, 70);
	fill(mem, LEN, 70);
	for (size_t i = 0; i < sizeof(algs) / sizeof(*algs); i++) {
		int fd;
		ssize_t r;
		bool cipher = strcmp(algs[i].type, "hash");

		for (int spliced = 0; spliced < 2; spliced++) {
			fd = alg(algs[i].type, algs[i].name);
			if (fd < 0)
				break;
			r = alg_do(fd, cipher, plain, LEN, wanted, algs[i].out,
				   algs[i].assoc, false);
			close(fd);
			fd = alg(algs[i].type, algs[i].name);
			memset(out, 0, 2 * LEN);
			result(r == (ssize_t)algs[i].out &&
			       alg_do(fd, cipher, mem, LEN, out, algs[i].out,
				      algs[i].assoc, spliced) == r &&
			       !memcmp(out, wanted, r), "AF_ALG %s%s", algs[i].name,
			       spliced ? ", spliced" : "");
			close(fd);
		}
	}
	check("what AF_ALG read", mem, LEN, 70, A);
	munmap(plain, LEN);
	munmap(mem, LEN);
	munmap(wanted, 2 * LEN);
	munmap(out, 2 * LEN);
}

static void *wait_for_one(void *arg)
{
	while (!__atomic_load_n((uint32_t *)arg, __ATOMIC_ACQUIRE))
		syscall(__NR_futex, arg, FUTEX_WAIT, 0, NULL, NULL, 0);
	return NULL;
}

static void futexes(void)
{
	uint32_t *word = map_under(PAGE, A);
	pthread_t thread;

	*word = 0;
	pthread_create(&thread, NULL, wait_for_one, word);
	usleep(100000);
	/* Sets the word to 1 in the kernel, and wakes. */
	result(syscall(__NR_futex, word + 1, FUTEX_WAKE_OP, 1, 1, word,
		       FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0)) == 1,
	       "FUTEX_WAKE_OP");
	pthread_join(thread, NULL);
	result(*word == 1, "futex: what the kernel wrote");
	munmap(word, PAGE);
}

int main(void)
{
	others();
	breakpoint();
	uprobe();
	perf_buffer();
	fixed_buffers();
	pipes();
	zerocopy("small pages", false);
	zerocopy("huge pages", true);
	splice_to_socket();
	crypto();
	futexes();
	return 0;
}
