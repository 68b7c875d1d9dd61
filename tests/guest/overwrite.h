/* SPDX-License-Identifier: GPL-2.0 */
#ifndef OVERWRITE_H
#define OVERWRITE_H

#include <emmintrin.h>
#include <stddef.h>

/*
 * The least that gets new contents into DRAM: for each line four stores, the
 * widest that all of x86-64 has, and a write-back.  Not memset(): of a string
 * instruction, each byte would count.
 */
static inline void overwrite(char *p, size_t len)
{
	const __m128i zero = _mm_setzero_si128();
	char *end = p + len;

	for (; p < end; p += 64) {
		_mm_store_si128((__m128i *)p, zero);
		_mm_store_si128((__m128i *)p + 1, zero);
		_mm_store_si128((__m128i *)p + 2, zero);
		_mm_store_si128((__m128i *)p + 3, zero);
		_mm_clflush(p);
	}
	_mm_mfence();
}

#endif
