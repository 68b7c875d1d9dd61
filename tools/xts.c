// SPDX-License-Identifier: GPL-2.0
/*
 * xts -e|-d aes-xts-128|aes-xts-256 KEY TWEAK ADDR <in >out
 *
 * Does with OpenSSL what the memory controller does: each 64-byte line is an
 * AES-XTS data unit of its own, whose number is the line's physical address
 * (without KeyID) as a 128-bit little-endian integer.  KEY and TWEAK are in
 * hexadecimal; ADDR is the physical address of the input's first byte.
 *
 * xts -u NUMBER ... : the whole input is one data unit of that number (hex, 32
 * digits, first byte first), as published test vectors have it.
 */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE 64

static void die(const char *what)
{
	fprintf(stderr, "xts: %s\n", what);
	exit(1);
}

static void hex(const char *s, unsigned char *out, size_t n, const char *what)
{
	if (strlen(s) != 2 * n || strspn(s, "0123456789abcdefABCDEF") != 2 * n)
		die(what);
	for (size_t i = 0; i < n; i++)
		sscanf(s + 2 * i, "%2hhx", &out[i]);
}

int main(int argc, char **argv)
{
	static unsigned char in[1 << 20], out[1 << 20];
	unsigned char key[64], number[16] = { 0 };
	const EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int enc, unit = 0, len;
	uint64_t addr = 0;
	size_t n, size;
	char *end;

	if (argc == 8 && !strcmp(argv[1], "-u")) {
		hex(argv[2], number, 16, "data unit number: 32 hex digits");
		unit = 1;
		argv += 2;
		argc -= 2;
	}
	if (argc != 6)
		die("usage: xts [-u NUMBER] -e|-d aes-xts-128|aes-xts-256 KEY TWEAK ADDR");
	if (strcmp(argv[1], "-e") && strcmp(argv[1], "-d"))
		die("neither -e nor -d");
	enc = argv[1][1] == 'e';
	if (!strcmp(argv[2], "aes-xts-128")) {
		cipher = EVP_aes_128_xts();
		size = 16;
	} else if (!strcmp(argv[2], "aes-xts-256")) {
		cipher = EVP_aes_256_xts();
		size = 32;
	} else {
		die("algorithm: aes-xts-128 or aes-xts-256");
	}
	hex(argv[3], key, size, "key: not as many hex digits as the algorithm's key has");
	hex(argv[4], key + size, size, "tweak: not as many hex digits as the algorithm's key has");
	addr = strtoull(argv[5], &end, 0);
	if (*end || (!unit && addr % LINE))
		die("address: not a multiple of 64");

	while ((n = fread(in, 1, sizeof(in), stdin)) > 0) {
		size_t step = unit ? n : LINE;

		if (unit && n == sizeof(in))
			die("input: too long for one data unit");
		if (!unit && n % LINE)
			die("input: not a multiple of 64 bytes");
		for (size_t i = 0; i < n; i += step, addr += LINE) {
			for (int b = 0; !unit && b < 8; b++)
				number[b] = addr >> (8 * b);
			if (!EVP_CipherInit_ex(ctx, cipher, NULL, key, number, enc) ||
			    !EVP_CipherUpdate(ctx, out + i, &len, in + i, step) || len != (int)step)
				die(ERR_error_string(ERR_get_error(), NULL));
		}
		if (fwrite(out, 1, n, stdout) != n)
			die("write failed");
	}
	if (ferror(stdin) || fflush(stdout))
		die("read or write failed");
	return 0;
}
