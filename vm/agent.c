// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's side of vm/boot --exec: runs the command, sends what it writes
 * and its status through a virtio port, and powers the guest off.
 *
 * Frames, guest to host: type (1 byte), length (4 bytes, little endian), data.
 * Types: o stdout, e stderr, x exit status (1 byte, always the last frame).
 * The host answers x with one byte when it has it.
 *
 * The command's output goes through pipes, not right to ports: a port can be
 * opened only once, so /dev/stdout could not be opened by the command.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *port_path;
static int port;

static void die(const char *what)
{
	fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void open_port(void)
{
	int tries = 1000, fd = -1;

	while (tries-- && (fd = open(port_path, O_RDWR | O_CLOEXEC)) < 0)
		usleep(10000);
	if (fd < 0)
		die(port_path);
	if (port)
		close(port);
	port = fd;
}

static void put(const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(port, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		/* Its driver was bound anew: see reconnect */
		if (n < 0 && errno == ENODEV) {
			open_port();
			continue;
		}
		if (n <= 0)
			die("port");
		p += n;
		len -= n;
	}
}

static void frame(char type, const void *buf, uint32_t len)
{
	static char out[5 + 32768];

	out[0] = type;
	memcpy(out + 1, &len, 4);
	memcpy(out + 5, buf, len);
	put(out, 5 + len);
}

/* Passes on what is there; false at the end of file. */
static int relay(int fd, char type)
{
	static char buf[32768];
	ssize_t n;

	for (;;) {
		n = read(fd, buf, sizeof(buf));
		if (n > 0)
			frame(type, buf, n);
		else if (n < 0 && errno == EINTR)
			continue;
		else
			return n < 0 && errno == EAGAIN;
	}
}

static void on_child(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	/* Without SA_RESTART, so that the death of a child ends ppoll() */
	struct sigaction sa = { .sa_handler = on_child };
	static char cmd[131072];
	int out[2], err[2], fd, st, status = 0;
	sigset_t block, orig;
	pid_t pid, dead;
	uint8_t code;
	char ack;
	ssize_t n;

	if (argc != 3) {
		fprintf(stderr, "usage: agent PORT COMMAND-FILE\n");
		return 1;
	}
	port_path = argv[1];
	open_port();
	fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(argv[2]);
	n = read(fd, cmd, sizeof(cmd) - 1);
	if (n < 0)
		die(argv[2]);
	close(fd);

	sigemptyset(&block);
	sigaddset(&block, SIGCHLD);
	sigprocmask(SIG_BLOCK, &block, &orig);
	sigaction(SIGCHLD, &sa, NULL);

	if (pipe(out) || pipe(err))
		die("pipe");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		setsid();
		/* As a login does: @s is this session's own, with @u linked to it */
		syscall(__NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
		syscall(__NR_keyctl, KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_SESSION_KEYRING);
		sigprocmask(SIG_SETMASK, &orig, NULL);
		signal(SIGCHLD, SIG_DFL);
		dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		close(out[0]);
		close(out[1]);
		close(err[0]);
		close(err[1]);
		execl("/bin/sh", "sh", "-c", cmd, NULL);
		_exit(127);
	}
	close(out[1]);
	close(err[1]);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);

	struct pollfd p[2] = {
		{ .fd = out[0], .events = POLLIN },
		{ .fd = err[0], .events = POLLIN },
	};

	for (pid_t running = pid; running; ) {
		ppoll(p, 2, NULL, &orig);
		/* First reap, then read: nothing that was written is missed */
		while ((dead = waitpid(-1, &st, WNOHANG)) > 0) {
			if (dead == pid) {
				status = st;
				running = 0;
			}
		}
		if (p[0].fd >= 0 && !relay(out[0], 'o'))
			p[0].fd = -1;
		if (p[1].fd >= 0 && !relay(err[0], 'e'))
			p[1].fd = -1;
	}

	code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	frame('x', &code, 1);
	while (read(port, &ack, 1) < 0 && errno == EINTR)
		;
	reboot(RB_POWER_OFF);
	pause();
}
