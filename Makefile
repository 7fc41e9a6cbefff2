# Stoa.  "make help" says what there is.
#
# This file is the list of commands; what compiles stands in conf/dev/build.mk,
# what installs, runs and tests in the scripts called here.  Each of them works
# on a Debian 12 or 13 that has nothing but git and make, as root or with sudo.

SHELL := /bin/bash
.DEFAULT_GOAL := build
.SUFFIXES:

PORT ?= 8080
PREFIX ?= /usr
DESTDIR ?=
STATE ?= /var/tmp/stoa-$(shell id -un)
PROFILE ?= development
TIME ?= 10s
ROWS ?=
SUITE ?= bookworm
JOBS ?= $(shell nproc)

INSTALL := conf/dev/install.sh

# one build at a time: two makes in one checkout wait for each other
BUILD = mkdir -p build && flock -o build/.lock $(MAKE) -s -r -j$(JOBS) \
	--no-print-directory -f conf/dev/build.mk

.PHONY: help build install build-test build-asan build-fuzz run test lint \
	asan fuzz bench soak fresh valgrind clean units node

help:
	@echo 'make [build]            build/stoa and build/ngx_http_stoa_module.so'
	@echo 'make run [PORT=8080] [STATE=dir] [PROFILE=production]'
	@echo '                        PostgreSQL, Redis, edge and workers with demo'
	@echo '                        data in the foreground; Ctrl-C stops them'
	@echo 'make install [DESTDIR=] [PREFIX=/usr]'
	@echo '                        what was built and its files; see README'
	@echo 'make test               everything, in under 25 minutes on 2 cores'
	@echo 'make lint               style, layers, static analysis'
	@echo 'make asan               the whole suite under ASan and UBSan'
	@echo 'make valgrind           memory after 1,000 and 10,000 requests'
	@echo 'make fuzz [TIME=1h]     every fuzzer for that long'
	@echo 'make bench [ROWS=name,...]  Stoa against its peers on this machine'
	@echo 'make soak               200 rounds of every race, 60 s fuzz, chaos'
	@echo 'make fresh SUITE=bookworm|trixie'
	@echo "                        the README's two commands on an empty Debian"
	@echo 'make clean              removes build/ and t/node_modules'

build:
	@$(INSTALL) build
	@$(BUILD) VARIANT=release all

# by the environment, as below
install: export PLACE_DESTDIR := $(DESTDIR)
install: export PLACE_PREFIX := $(PREFIX)
install:
	@exec conf/dev/place.sh

build-test:
	@$(INSTALL) build test
	@$(BUILD) VARIANT=test all

units:
	@$(INSTALL) build test
	@$(BUILD) VARIANT=test units

build-asan:
	@$(INSTALL) build test asan
	@$(BUILD) VARIANT=asan stoa units
	@flock -o build/.lock conf/dev/nginx-asan.sh

build-fuzz:
	@$(INSTALL) build test
	@$(BUILD) VARIANT=fuzz fuzzers

node:
	@$(INSTALL) test
	@conf/dev/node.sh --install

# by the environment: the shell would read quotes in a name as its own
run: export RUN_PORT := $(PORT)
run: export RUN_STATE := $(STATE)
run: export RUN_PROFILE := $(PROFILE)
run:
	@$(INSTALL) build run
	@$(BUILD) VARIANT=release all
	@exec conf/dev/run.sh "$$RUN_PORT" "$$RUN_STATE" "$$RUN_PROFILE"

test:
	@exec t/run.sh test

asan:
	@exec t/run.sh asan

fuzz:
	@exec t/run.sh fuzz '$(TIME)'

soak:
	@exec t/run.sh soak

valgrind:
	@exec t/run.sh valgrind

lint:
	@$(INSTALL) build test
	@$(BUILD) VARIANT=release lib
	@exec t/lint/run.sh

bench: build
	@$(INSTALL) build test run bench
	@conf/dev/node.sh --install
	@exec t/bench/run.sh '$(ROWS)'

fresh:
	@exec conf/dev/fresh.sh '$(SUITE)'

clean:
	@rm -rf build t/node_modules
