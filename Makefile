# SPDX-License-Identifier: GPL-2.0
# What one does here: make help

MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
# The user's own trees, unpatched; copied, never changed
export LINUX_SRC QEMU_SRC LINUX_ARCHIVE QEMU_ARCHIVE JOBS
# make test T=tests/NAME.t runs one; J guests at a time
T ?= tests
J ?= 2
# make deb: the kernel of Debian's whose configuration is taken; amd64 is the one for any machine
FLAVOUR ?= cloud-amd64
export FLAVOUR

.PHONY: help run test keyutils-check selftests-compare cost-check huge-check kunit-check docs-check sparse-check bench \
	deb deb-check shell build kernel qemu guest debug-kernel off-kernel lockstat-kernel stock-kernel \
	stock-lockstat-kernel stock-source stock-qemu \
	linux-source qemu-source deps test-deps refresh check bases bisect-check series lint clean distclean

help:
	@echo 'make run            shows it working: builds what is missing, out/demo.png'
	@echo 'make test           builds what is missing, runs all tests (T=tests/NAME.t: that one)'
	@echo 'make keyutils-check the test suite of keyutils, on this kernel and on the stock one'
	@echo 'make selftests-compare  the selftests of Linux, on this kernel and on the stock one'
	@echo 'make cost-check     what it costs who does not use it: instructions, against the stock kernel'
	@echo 'make deb            Debian packages of kernel and QEMU, into out/deb (FLAVOUR=amd64: with all drivers)'
	@echo 'make deb-check      installs these in a Debian, and boots that'
	@echo 'make huge-check     huge pages of 1G under a key'
	@echo "make kunit-check    the KUnit tests by the kernel's own tool, kunit.py"
	@echo "make docs-check     the kernel's documentation of it is made without a warning"
	@echo 'make sparse-check   sparse and W=1 have nothing to say of the files that the series touches'
	@echo 'make bench          what it costs, counted: tables and plots in out/bench/'
	@echo 'make shell          a guest with a root shell; vm/boot --help for more'
	@echo
	@echo 'make build          kernel (make kernel), QEMU (make qemu) and the guest programs'
	@echo 'make debug-kernel   the kernel with KASAN, lockdep and such, for vm/boot --debug-kernel'
	@echo 'make off-kernel     the patched kernel with the feature configured off'
	@echo 'make stock-kernel   the kernel without the series, to compare with'
	@echo 'make lockstat-kernel stock-lockstat-kernel  kernels that count locks, for the bench'
	@echo 'make stock-qemu     QEMU without the series, for a test that compares'
	@echo
	@echo 'make refresh        writes the commits in build/linux/src and build/qemu/src'
	@echo '                    back to linux/ and qemu/, which are the series'
	@echo 'make check          does the series apply, and is it what was built?'
	@echo 'make bases          what have Debian suites of Linux and QEMU, and do the series apply to it?'
	@echo 'make bisect-check   builds each patch of both series by itself'
	@echo 'make series         the series as mail, into out/series/'
	@echo 'make lint           shellcheck, and Python compiles'
	@echo 'make clean          removes what was built; sources stay. distclean: build/ and out/'
	@echo
	@echo 'LINUX_SRC=DIR QEMU_SRC=DIR  use your own trees (unpatched; they are copied)'
	@echo 'LINUX_ARCHIVE=URL QEMU_ARCHIVE=URL  directories of releases, in place of upstream archives'

run: build build/tools/xts
	@demo/run
	@echo
	@demo/guests

test: test-deps build off-kernel stock-qemu build/tools/xts build/tools/insns.so
	@prove -j $(J) $(T)

# Minutes, and a kernel more to build: not part of the above
keyutils-check: build stock-kernel
	@tools/keyutils
	@prove -v tests/long/keyutils.t

selftests-compare: build stock-kernel
	@tools/deps compare
	@tools/compare

cost-check: build stock-kernel build/tools/insns.so
	@prove -v tests/long/cost.t

deb: linux-source qemu-source
	@tools/deps deb
	@tools/deb linux $(FLAVOUR)
	@tools/deb qemu
	@ls -sh out/deb/*.deb

deb-check: deb build
	@tools/debroot
	@prove -v tests/long/deb.t

huge-check: build
	@prove -v tests/long/huge-1g.t

docs-check: linux-source
	@tools/deps docs
	@prove -v tests/long/docs.t

kunit-check: linux-source qemu
	@prove -v tests/long/kunit.t

sparse-check: stock-source
	@tools/deps sparse
	@prove -v tests/long/sparse.t

bench: build stock-kernel lockstat-kernel stock-lockstat-kernel build/tools/insns.so
	@tools/deps bench
	@bench/run $(BENCH)

shell: build
	@vm/boot

# Both sources first: what is wrong with one is not said after a long build of the other
build: linux-source qemu-source kernel qemu guest

deps:
	@tools/deps

test-deps:
	@tools/deps test

linux-source qemu-source: %-source: deps
	@tools/source $*
	@tools/series apply $*

kernel: linux-source
	@tools/build linux

stock-source: linux-source
	@tools/build stock

debug-kernel off-kernel lockstat-kernel stock-kernel stock-lockstat-kernel: %-kernel: linux-source
	@tools/build linux $*

qemu: qemu-source
	@tools/build qemu

stock-qemu: qemu-source
	@tools/build stock_qemu

guest: linux-source
	@tools/build headers
	@tools/build guest

build/tools/xts: tools/xts.c | deps
	@mkdir -p $(@D)
	@gcc -O2 -Wall -Wextra -Werror -o $@ $< -lcrypto

# The plugin interface is of the QEMU that was built
build/tools/insns.so: tools/insns.c | qemu
	@mkdir -p $(@D)
	@gcc -shared -fPIC -O2 -Wall -Werror -o $@ $< -Ibuild/qemu/src/include/qemu $$(pkg-config --cflags glib-2.0)

refresh:
	@for t in linux qemu; do ! [ -d build/$$t/src ] || tools/series refresh $$t || exit; done

check:
	@tools/series check linux
	@tools/series check qemu

bases: deps
	@tools/bases

bisect-check: linux-source qemu-source
	@tools/bisect linux
	@tools/bisect qemu

series:
	@tools/series export linux out/series/linux
	@tools/series export qemu out/series/qemu

lint:
	shellcheck -x -P tools -P tests tools/lib.sh $$(grep -rlE '^#!/bin/(ba)?sh' --exclude-dir=build --exclude-dir=.git \
		--exclude-dir=linux --exclude-dir=qemu --exclude-dir=out --exclude-dir=pending .)
	grep -rlE '^#!/usr/bin/python3' vm tools bench | \
		xargs python3 -c 'import ast, sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]'

# Downloads and sources stay, and so do commits that are only there
clean:
	rm -rf build/linux/out* build/linux/headers build/qemu/out* build/debroot build/guest build/vm build/tools out

distclean:
	@for t in linux qemu; do ! [ -d build/$$t/src ] || tools/series check $$t || \
		{ echo "make: not removed: work in build/$$t/src would be lost (rm -rf build, if that is right)"; exit 1; }; done
	rm -rf build out
