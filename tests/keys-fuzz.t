#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Whatever bytes come as a payload: the parser (security/keys/mktme_keys.c itself,
# built for user space) takes what is one, refuses the rest, and touches no memory
# that isn't its own.  A bounded number of cases by libFuzzer, the same each time.
. "$(dirname "$0")/lib.sh"
src=$TOP/build/linux/src
need build/linux/src/security/keys/mktme_keys.c
fuzz=$TOP/tests/fuzz

ok "the parser builds for user space" clang -g -O1 -w -fsanitize=fuzzer,address,undefined \
	-fno-sanitize-recover=undefined -I"$fuzz/include" -I"$src" -idirafter "$src/include" \
	"$fuzz/payload.c" "$src/lib/parser.c" "$src/lib/hexdump.c" -o "$T/payload"

# A payload of each kind to start from
k16=000102030405060708090a0b0c0d0e0f
mkdir "$T/seeds"
n=0
for p in "type=cpu algorithm=aes-xts-128" "type=no-encrypt" erase \
	"type=user algorithm=aes-xts-128 key=$k16 tweak=$k16" \
	"type=user algorithm=aes-xts-256 key=$k16$k16 tweak=$k16$k16" \
	"type=cpu algorithm=aes-xts-256 key=$k16$k16"; do
	n=$((n + 1))
	printf '%s' "$p" >"$T/seeds/$n"
done
cd "$T" || exit
ok "a million payloads" ./payload -runs=1000000 -seed=20261124 -max_len=600 -dict="$fuzz/payload.dict" \
	-print_final_stats=1 seeds
like "were tried" "$(cat "$T/.out")" '^stat::number_of_executed_units: 1000[0-9]{3}$'
done_testing
