# The rules that compile; called by the Makefile with VARIANT set, one
# variant at a time, so that variables need no suffix:
#
#   release   build/stoa       build/ngx_http_stoa_module.so
#   test      build/test/...   with -DSTOA_TEST: clock, pauses, crash points
#   asan      build/asan/...   the same with ASan and UBSan, and an nginx built
#                              from source whose pools are plain mallocs
#   fuzz      build/fuzz/...   clang's libFuzzer; only t/fuzz and what it needs
#
# The module's sources and libraries stand in one place, ./config: nginx's own
# configure reads it, and the Makefile that it writes is used.  -MMD tells the
# headers that each object really needs; that Makefile knows only "all".

VARIANT ?= release
MAKEFLAGS += --no-builtin-rules

OUT_release := build
OUT_test := build/test
OUT_asan := build/asan
OUT_fuzz := build/fuzz
OUT := $(OUT_$(VARIANT))
OBJ := $(OUT)/obj

CC_release := gcc
CC_test := gcc
CC_asan := gcc
CC_fuzz := clang
CC := $(CC_$(VARIANT))

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer

OPT_release := -O2 -D_FORTIFY_SOURCE=2 -fstack-clash-protection \
	-fcf-protection=full -ftrivial-auto-var-init=zero
OPT_test := -O1 -DSTOA_TEST=1 -Wno-maybe-uninitialized
OPT_asan := -O1 -DSTOA_TEST=1 -Wno-maybe-uninitialized $(SANITIZE)
OPT_fuzz := -O1 -DSTOA_TEST=1 -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=undefined -Wno-unknown-warning-option
# libasan has a crypt_r of its own that only forwards: --as-needed would drop
# the library that it forwards to
LDOPT_release := -Wl,--as-needed
LDOPT_asan := $(SANITIZE)
LDOPT_fuzz := -fsanitize=address,undefined

WARN := -Wall -Wextra -Wno-unused-parameter -Wshadow -Wstrict-prototypes \
	-Wmissing-prototypes -Wwrite-strings -Wformat=2 -Wvla \
	-Wimplicit-fallthrough -Werror
WARN_OWN := $(WARN) -Wconversion -Wsign-conversion
# gcc is the judge of warnings; clang does not read "fall through" comments
ifeq ($(VARIANT),fuzz)
WARN := -Wall
WARN_OWN := -Wall
endif

HARDEN := -fstack-protector-strong -fno-strict-aliasing \
	-fno-delete-null-pointer-checks -fno-strict-overflow

PKGS := libpq hiredis jansson libjwt openssl libsodium libcrypt libuv libcurl \
	libqrencode libpng cairo pangocairo
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) | sed 's/-I/-isystem /g')
PKG_LIBS := $(shell pkg-config --libs $(PKGS))

CFLAGS := -std=gnu11 -g $(OPT_$(VARIANT)) $(HARDEN) -fPIC \
	-D_GNU_SOURCE -Ishared $(PKG_CFLAGS)
LDFLAGS := -Wl,-z,relro,-z,now,-z,noexecstack $(LDOPT_$(VARIANT))

LIB_SRCS := $(sort $(wildcard shared/*.c shared/api/*.c shared/tasks/*.c))
WORKER_SRCS := $(sort $(wildcard workers/*.c))
UNIT_SRCS := $(sort $(wildcard t/unit/test_*.c))
FUZZ_SRCS := $(sort $(wildcard t/fuzz/fuzz_*.c))

LIB_OBJS := $(LIB_SRCS:%.c=$(OBJ)/%.o)
WORKER_OBJS := $(WORKER_SRCS:%.c=$(OBJ)/%.o)
UNITS := $(UNIT_SRCS:t/unit/%.c=$(OUT)/unit/%)
FUZZERS := $(FUZZ_SRCS:t/fuzz/%.c=$(OUT)/%)

LIB := $(OUT)/libstoa.a
STOA := $(OUT)/stoa
MODULE := $(OUT)/ngx_http_stoa_module.so

.PHONY: all stoa module units fuzzers nginx lib
all: stoa module
stoa: $(STOA)
module: $(MODULE)
units: $(UNITS)
fuzzers: $(FUZZERS)
lib: $(LIB)

# ---- shared/, workers/, units, fuzzers ----

$(OBJ)/%.o: %.c conf/dev/build.mk
	@mkdir -p $(@D)
	@echo "  cc      $<"
	@$(CC) $(CFLAGS) $(WARN_OWN) -MMD -MP -c -o $@ $<

# cmocka and libFuzzer's own idioms do not survive the conversion warnings
$(OBJ)/t/%.o: t/%.c conf/dev/build.mk
	@mkdir -p $(@D)
	@echo "  cc      $<"
	@$(CC) $(CFLAGS) $(WARN) -Wno-missing-prototypes -I. -MMD -MP -c -o $@ $<

# a list that changes when a source comes or goes, so that objects of
# deleted sources leave the archive and ./config, which finds the module's
# sources by name, is read again
ALL_SRCS := $(LIB_SRCS) $(WORKER_SRCS) $(sort $(wildcard ngx_module/*.c))
$(OUT)/sources: FORCE
	@mkdir -p $(@D)
	@echo "$(ALL_SRCS)" | cmp -s - $@ || echo "$(ALL_SRCS)" > $@
.PHONY: FORCE

$(LIB): $(LIB_OBJS) $(OUT)/sources
	@rm -f $@
	@ar rcs $@ $(LIB_OBJS)

$(STOA): $(WORKER_OBJS) $(LIB) $(OUT)/sources
	@echo "  link    $@"
	@$(CC) -pie $(LDFLAGS) -o $@.new $(WORKER_OBJS) $(LIB) $(PKG_LIBS) \
	    -lpthread -lm
	@mv $@.new $@

# what units share (t/unit/*.c that are not tests) is linked into each
UNIT_HELP := $(filter-out $(UNIT_SRCS),$(wildcard t/unit/*.c))
UNIT_HELP_OBJS := $(UNIT_HELP:%.c=$(OBJ)/%.o)

$(OUT)/unit/%: $(OBJ)/t/unit/%.o $(UNIT_HELP_OBJS) $(LIB)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $< $(UNIT_HELP_OBJS) $(LIB) $(PKG_LIBS) \
	    -lcmocka -lpthread -lm

$(OUT)/fuzz_%: $(OBJ)/t/fuzz/fuzz_%.o $(LIB)
	@echo "  link    $@"
	@$(CC) -fsanitize=fuzzer $(LDFLAGS) -o $@ $< $(LIB) $(PKG_LIBS) \
	    -lpthread -lm

# ---- the nginx module ----

NGX_SRC := /usr/share/nginx/src
NGX_BUILD := $(CURDIR)/$(OUT)/ngx
# nginx's own interfaces return literals as char *
NGX_CC_OPT := -g -D_GNU_SOURCE $(OPT_$(VARIANT)) $(HARDEN) -std=gnu11 -fPIC \
	-Wdate-time $(filter-out -Wwrite-strings,$(WARN)) -MMD -MP
NGX_LD_OPT := -Wl,-z,relro -Wl,-z,now -fPIC $(LDOPT_$(VARIANT))

# what configure writes anew with the same text keeps its time, or every
# object would be made again when a source was added
NGX_SAME := ngx_auto_config.h ngx_auto_headers.h \
	ngx_http_stoa_module_modules.c

# once per nginx-dev, ./config and list of sources; conf_flags is a bash array and gives
# the flags of the packaged nginx, without which it refuses the module
$(NGX_BUILD)/Makefile: config conf/dev/build.mk $(NGX_SRC)/conf_flags \
		$(OUT)/sources
	@echo "  config  nginx module ($(VARIANT))"
	@mkdir -p $(NGX_BUILD)
	@for f in $(NGX_SAME); do \
	    if [ -e $(NGX_BUILD)/$$f ]; then \
	        cp -p $(NGX_BUILD)/$$f $(NGX_BUILD)/$$f.old; fi; done
	@cd $(NGX_SRC) && . ./conf_flags \
	    && ./configure --with-cc-opt="$(NGX_CC_OPT)" \
	        --with-ld-opt="$(NGX_LD_OPT)" "$${NGX_CONF_FLAGS[@]}" \
	        --add-dynamic-module=$(CURDIR) --builddir=$(NGX_BUILD) \
	        > $(NGX_BUILD)/configure.log 2>&1 \
	    || { tail -n 15 $(NGX_BUILD)/configure.log >&2; \
	         rm -f $(NGX_BUILD)/Makefile; exit 1; }
	@for f in $(NGX_SAME); do \
	    if cmp -s $(NGX_BUILD)/$$f $(NGX_BUILD)/$$f.old; then \
	        mv $(NGX_BUILD)/$$f.old $(NGX_BUILD)/$$f; fi; done
	@echo '-include $$(wildcard $(NGX_BUILD)/addon/*/*.d)' >> $@

$(MODULE): $(NGX_BUILD)/Makefile FORCE
	@$(MAKE) -s --no-print-directory -f $(NGX_BUILD)/Makefile \
	    -C $(NGX_SRC) ADDON_DEPS= modules
	@cmp -s $(NGX_BUILD)/$(@F) $@ \
	    || { echo "  link    $@"; cp $(NGX_BUILD)/$(@F) $@.new; \
	         mv $@.new $@; }

SHELL := /bin/bash

-include $(wildcard $(OBJ)/*/*.d $(OBJ)/*/*/*.d)
