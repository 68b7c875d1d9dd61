// SPDX-License-Identifier: GPL-2.0
/*
 * keysecret: adds a key of the type "mktme" whose material is made up here, byte
 * i of the data key being 37 * i + 11, and wipes its own copies.  With an
 * argument, keeps them until it is killed.
 */
#include <err.h>
#include <keyutils.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char payload[300];

int main(int argc, char **argv)
{
	key_serial_t key;
	int i, n;

	(void)argv;
	n = sprintf(payload, "type=user algorithm=aes-xts-256 key=");
	for (i = 0; i < 32; i++)
		n += sprintf(payload + n, "%02x", (37 * i + 11) & 255);
	n += sprintf(payload + n, " tweak=");
	for (i = 0; i < 32; i++)
		n += sprintf(payload + n, "%02x", (91 * i + 5) & 255);
	key = add_key("mktme", "secret", payload, n, KEY_SPEC_USER_KEYRING);
	if (key < 0)
		err(1, "add_key");
	if (argc > 1)
		pause();
	explicit_bzero(payload, sizeof(payload));
	printf("%d\n", key);
	return 0;
}
