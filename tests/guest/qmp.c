// SPDX-License-Identifier: GPL-2.0
/*
 * qmp SOCKET COMMAND [ARGUMENTS]: a QMP command to a QEMU in this guest, its
 * arguments as JSON.  Prints what it returns; an error goes to stderr.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static FILE *qmp;
static char *line;

/* The answer, of what comes in between: events */
static const char *answer(const char *word)
{
	static size_t size;

	while (getline(&line, &size, qmp) > 0) {
		line[strcspn(line, "\r\n")] = 0;
		if (!strncmp(line, "{\"error\"", 8)) {
			fprintf(stderr, "%s\n", line);
			exit(1);
		}
		if (!strncmp(line, word, strlen(word)))
			return line + strlen(word);
	}
	errx(1, "QEMU closed the socket");
}

static void command(const char *name, const char *arguments)
{
	if (arguments)
		fprintf(qmp, "{\"execute\": \"%s\", \"arguments\": %s}\n", name, arguments);
	else
		fprintf(qmp, "{\"execute\": \"%s\"}\n", name);
	fflush(qmp);
}

int main(int argc, char **argv)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *text;
	int fd;

	if (argc < 3 || argc > 4 || strlen(argv[1]) >= sizeof(addr.sun_path))
		errx(2, "usage: qmp SOCKET COMMAND [ARGUMENTS]");
	strcpy(addr.sun_path, argv[1]);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		err(1, "%s", argv[1]);
	qmp = fdopen(fd, "r+");
	if (!qmp)
		err(1, "fdopen");
	answer("{\"QMP\": ");
	command("qmp_capabilities", NULL);
	answer("{\"return\": ");
	command(argv[2], argc > 3 ? argv[3] : NULL);
	text = answer("{\"return\": ");
	/* Without the brace that closes the answer */
	printf("%.*s\n", (int)strlen(text) - 1, text);
	return 0;
}
