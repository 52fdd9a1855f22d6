# One Makefile for everything; `make help` lists what it can do.
#
# FLAVOUR names how the programs are built: release (the default), asan
# (AddressSanitizer and UBSan), tsan (ThreadSanitizer), fuzz, plain (without tracing), or bare
# (without the libraries that one can do without).
# Each has its own folder below build/; build/bin and build/libexec point to the release flavour.

FLAVOUR ?= release
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr
DESTDIR ?=

B := build/$(FLAVOUR)
BIN := $(B)/bin
LIBEXEC := $(B)/libexec

VERSION := 0.1.0
PACKAGES := libevent libevent_pthreads libevent_openssl hiredis libsodium zlib libcrypto libssl libprotobuf-c libconfig jansson libcurl libmicrohttpd libnghttp2 grpc

CPPFLAGS += -I. -I$(B) -D_GNU_SOURCE -DJANUS_VERSION='"$(VERSION)"'
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror
CFLAGS_release := -O2 -g -fstack-protector-strong -D_FORTIFY_SOURCE=2
# For the bench alone: what tracing costs where it is not used.
CFLAGS_plain := $(CFLAGS_release) -DJANUS_WITHOUT_TRACING
CFLAGS_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
CFLAGS_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined
CFLAGS_bare := $(CFLAGS_asan)
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_bare := $(LDFLAGS_asan)
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=address,undefined,fuzzer
ifeq ($(FLAVOUR),fuzz)
CC := clang
endif
ifeq ($(FLAVOUR),bare)
ISAL := no
LIBDEFLATE := no
endif

ALL_CFLAGS = -std=c17 $(WARNINGS) $(CFLAGS_$(FLAVOUR)) $(PACKAGE_CFLAGS) -pthread -MMD -MP $(CFLAGS)
ALL_LDFLAGS = $(LDFLAGS_$(FLAVOUR)) -pthread $(LDFLAGS)

# Asked only when something is to be built, so that `make deps` works without them.
# wslay comes without a file for pkg-config.
PACKAGE_CFLAGS = $(eval PACKAGE_CFLAGS := $$(shell pkg-config --cflags $(PACKAGES)) $(ISAL_CFLAGS) $(LIBDEFLATE_CFLAGS))$(PACKAGE_CFLAGS)
PACKAGE_LIBS = $(eval PACKAGE_LIBS := $$(shell pkg-config --libs $(PACKAGES)) -lwslay $(ISAL_LIBS) $(LIBDEFLATE_LIBS))$(PACKAGE_LIBS)

# ISA-L makes KCP's parity faster; without it our own arithmetic does. ISAL=no leaves it out,
# in a tree where nothing was built with it.
ISAL ?= $(shell pkg-config --exists libisal && echo yes)
ISAL_CFLAGS = $(if $(filter yes,$(ISAL)),-DHAVE_ISAL $$(shell pkg-config --cflags libisal))
ISAL_LIBS = $(if $(filter yes,$(ISAL)),$$(shell pkg-config --libs libisal))

# libdeflate takes half of zlib's time. LIBDEFLATE=no leaves it out, likewise.
LIBDEFLATE ?= $(shell pkg-config --exists libdeflate && echo yes)
LIBDEFLATE_CFLAGS = $(if $(filter yes,$(LIBDEFLATE)),-DHAVE_LIBDEFLATE $$(shell pkg-config --cflags libdeflate))
LIBDEFLATE_LIBS = $(if $(filter yes,$(LIBDEFLATE)),$$(shell pkg-config --libs libdeflate))

# --- What there is ----------------------------------------------------------

PROTOS := $(wildcard proto/*.proto)
PROTO_C := $(PROTOS:%.proto=$(B)/%.pb-c.c)
PROTO_OBJECTS := $(PROTO_C:.c=.o)

COMMON_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard common/*.c common/kcp/*.c)) $(PROTO_OBJECTS)
MASTER_OBJECTS := $(patsubst %.c,$(B)/%.o,$(filter-out master/main.c,$(wildcard master/*.c)))
WORKER_OBJECTS := $(patsubst %.c,$(B)/%.o,$(filter-out worker/main.c,$(wildcard worker/*.c)))
CLIENT_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tools/client/*.c))
CTL_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tools/ctl/*.c))
BENCH_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tools/bench/*.c))
KEYS_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tools/keys/*.c))
ROMA_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tools/roma/*.c))
ROUTESIM_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tools/routesim/*.c))

PROGRAMS := janusd janusctl janus-keys janus-client janus-roma janus-bench janus-routesim
UNIT_TESTS := $(patsubst %.c,$(B)/%,$(wildcard test/unit/*/test_*.c))
# Threads are in what stands on gRPC, in the log and in the shared tables.
ifeq ($(FLAVOUR),tsan)
UNIT_TESTS := $(patsubst %.c,$(B)/%,$(shell grep -lE 'pthread|grpc|roma\.h|log_' test/unit/*/test_*.c))
endif
# What stands in for those libraries is all in common/.
ifeq ($(FLAVOUR),bare)
UNIT_TESTS := $(addprefix $(B)/test/unit/common/test_,deflate packet reed_solomon fec link kcp_captures)
endif
FUZZERS := $(patsubst %.c,$(B)/%,$(wildcard test/fuzz/fuzz_*.c))

# Simulations and the like are built with the rest, and not installed.
ALL_PROGRAMS := $(PROGRAMS:%=$(BIN)/%) $(LIBEXEC)/janus-worker

.PHONY: all web man completion demo run test check unit system system-release asan tsan bare fuzz bench interop lint format deps install deb rpm package-test clean help
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

all: $(ALL_PROGRAMS) ## Build the programs
ifeq ($(FLAVOUR),release)
	@ln -sfn release/bin build/bin && ln -sfn release/libexec build/libexec
endif

# --- How it is built --------------------------------------------------------

$(B)/proto/%.pb-c.c $(B)/proto/%.pb-c.h &: proto/%.proto
	@mkdir -p $(B)/proto
	protoc-c --c_out=$(B) $<

# Generated code is not held to our warnings.
$(B)/proto/%.pb-c.o: $(B)/proto/%.pb-c.c | $(PROTO_C)
	$(CC) $(CPPFLAGS) $(filter-out $(WARNINGS),$(ALL_CFLAGS)) -c $< -o $@

$(B)/%.o: %.c | $(PROTO_C)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -c $< -o $@

define link
@mkdir -p $(@D)
$(CC) $(ALL_LDFLAGS) $(filter %.o,$^) $(PACKAGE_LIBS) -lm $(LINK_EXTRA) -o $@
endef

$(BIN)/janusd: $(B)/master/main.o $(MASTER_OBJECTS) $(COMMON_OBJECTS)
	$(link)
$(LIBEXEC)/janus-worker: $(B)/worker/main.o $(WORKER_OBJECTS) $(COMMON_OBJECTS)
	$(link)
$(BIN)/janusctl: $(B)/tools/janusctl.o $(CTL_OBJECTS) $(COMMON_OBJECTS) \
  $(B)/tools/client/names.o $(B)/tools/client/script.o
	$(link)
$(BIN)/janus-keys: $(B)/tools/janus_keys.o $(KEYS_OBJECTS) $(COMMON_OBJECTS)
	$(link)
$(BIN)/janus-client: $(B)/tools/janus_client.o $(CLIENT_OBJECTS) $(COMMON_OBJECTS)
	$(link)
$(BIN)/janus-roma: $(B)/tools/janus_roma.o $(ROMA_OBJECTS) $(COMMON_OBJECTS)
	$(link)
$(BIN)/janus-bench: $(B)/tools/janus_bench.o $(BENCH_OBJECTS) $(CLIENT_OBJECTS) $(COMMON_OBJECTS)
	$(link)

# A simulation of what a worker does takes the worker's own code.
$(BIN)/janus-routesim: $(B)/tools/janus_routesim.o $(ROUTESIM_OBJECTS) $(COMMON_OBJECTS) \
  $(B)/worker/node_picker.o $(B)/tools/client/names.o $(B)/tools/client/script.o
	$(link)

# A test is linked with all there is beside it.
$(B)/test/unit/%: LINK_EXTRA = -lcmocka -lm
TEST_OBJECTS := $(COMMON_OBJECTS) $(WORKER_OBJECTS) $(MASTER_OBJECTS) $(CLIENT_OBJECTS) $(CTL_OBJECTS)
ifeq ($(FLAVOUR),bare)
TEST_OBJECTS := $(COMMON_OBJECTS)
endif
$(B)/test/unit/%: $(B)/test/unit/%.o $(TEST_OBJECTS)
	$(link)
# Their backends are their own.
WRAP_STREAMS := $(foreach name,open takes reserve send unsure read end finish engine_arrived_us,-Wl,--wrap=stream_$(name))
$(B)/test/unit/worker/test_player: LINK_EXTRA = -lcmocka -lm $(WRAP_STREAMS)
# And this one counts what is allocated.
$(B)/test/unit/worker/test_hot_path: LINK_EXTRA = -lcmocka -lm $(WRAP_STREAMS) \
  $(foreach name,malloc calloc realloc aligned_alloc free,-Wl,--wrap=$(name))
# Its time is its own, and goes on with what is sent.
$(B)/test/unit/worker/test_pushes: LINK_EXTRA = -lcmocka -lm -Wl,--wrap=clock_gettime -Wl,--wrap=send
# And this one has other gateways of its own.
$(B)/test/unit/master/test_admission: LINK_EXTRA = -lcmocka -lm -Wl,--wrap=other_gateways_ask
# And this one how often zlib is asked.
$(B)/test/unit/common/test_deflate: LINK_EXTRA = -lcmocka -lm -Wl,--wrap=inflate
# And this one how often something is written, and has hosts of its own.
$(B)/test/unit/common/test_stream_http2: LINK_EXTRA = -lcmocka -lm -Wl,--wrap=tcp_client_write \
  -Wl,--wrap=evutil_getaddrinfo
# And this one what comes of memory that runs out.
$(B)/test/unit/master/test_etcd: LINK_EXTRA = -lcmocka -lm -Wl,--wrap=stream_open
# And this one's minutes are short, and its memory.
$(B)/test/unit/common/test_stream_grpc: LINK_EXTRA = -lcmocka -lm -Wl,--wrap=clock_gettime \
  -Wl,--wrap=calloc -Wl,--wrap=free
$(B)/test/fuzz/%: $(B)/test/fuzz/%.o $(COMMON_OBJECTS) $(WORKER_OBJECTS) $(MASTER_OBJECTS)
	$(link)

# Without npm, or its registry, the page is there all the same, for browsers that have all
# it needs.
web: ## Put the browser client together in build/web
	@tools/web/build

# What the programs and the configuration files say of themselves, as pages and as completion.
MAN_PAGES := $(patsubst packaging/man/%.in,build/man/%,$(wildcard packaging/man/*.in))
COMPLETIONS := build/completion/janusctl.bash build/completion/_janusctl

man: $(MAN_PAGES) ## Make the manual pages in build/man
completion: $(COMPLETIONS) ## Make janusctl's completion for bash and zsh in build/completion

build/man/janus.conf.5: packaging/man/janus.conf.5.in packaging/man/generate etc/janus.conf \
  etc/secret.conf
	@mkdir -p $(@D)
	$(PYTHON) packaging/man/generate $< etc/janus.conf etc/secret.conf > $@
build/man/%.1: packaging/man/%.1.in packaging/man/generate $(BIN)/%
	@mkdir -p $(@D)
	$(PYTHON) packaging/man/generate $< $(BIN)/$* > $@
build/man/%.8: packaging/man/%.8.in packaging/man/generate $(BIN)/%
	@mkdir -p $(@D)
	$(PYTHON) packaging/man/generate $< $(BIN)/$* > $@
build/completion/%: packaging/completion/%.in packaging/completion/generate $(BIN)/janusctl
	@mkdir -p $(@D)
	$(PYTHON) packaging/completion/generate $(BIN)/janusctl $< > $@

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# --- Trying and testing -----------------------------------------------------

# What a target needs is installed before anything is built for it, hence the
# second make.
demo: ## Install what is missing, build, and play a player's session through a gateway
	@tools/setup build
	@$(MAKE) --no-print-directory -s all
	@tools/demo

run: ## Keep a gateway with a stand-in backend in the foreground, to play with
	@tools/setup build
	@$(MAKE) --no-print-directory -s all
	@tools/play

test: ## Install what is missing, build, and run all unit and system tests
	@tools/setup test
	@$(MAKE) --no-print-directory -s suite

check: unit ## The unit tests alone

unit: $(UNIT_TESTS) $(BIN)/janus-roma ## Run the unit tests
	@$(TEST_ENVIRONMENT) $(PYTHON) test/run --unit $(UNIT_TESTS)

system: all test_packages ## Run the system tests
	@$(TEST_ENVIRONMENT) $(PYTHON) test/run --system

# What `make asan` leaves out, wholly or in part, of the default engine's (conftest.py says why).
system-release: all test_packages ## Of the system tests, those that need a release build
	@$(TEST_ENVIRONMENT) $(PYTHON) test/run --system -m "needs_release or measures_memory"

.PHONY: suite test_packages
suite: all $(UNIT_TESTS) test_packages
	@$(TEST_ENVIRONMENT) $(PYTHON) test/run --unit $(UNIT_TESTS) --system

# What the system tests drive with node and a browser. Without it those tests fail, and the
# others are run all the same.
test_packages: web
	@tools/npm_packages test/system/js || true

# Sanitizers slow programs down; time limits are stretched to match.
PATIENCE_release := 1
PATIENCE_asan := 3
PATIENCE_tsan := 5
PATIENCE_bare := 3
# ENGINE=grpc or http2 is what carries the gateways' tunnels in the system and interop tests, other
# than by default.
ENGINE ?=
TEST_ENVIRONMENT = JANUS_BUILD=$(B) JANUS_ENGINE=$(ENGINE) JANUS_TEST_PATIENCE=$(PATIENCE_$(FLAVOUR)) \
  TSAN_OPTIONS=suppressions=test/tsan.supp

asan: ## The whole suite under AddressSanitizer and UBSan
	@tools/setup test
	@$(MAKE) --no-print-directory -s FLAVOUR=asan suite

tsan: ## The unit tests with threads under ThreadSanitizer
	@tools/setup test
	@$(MAKE) --no-print-directory -s FLAVOUR=tsan unit

bare: ## The unit tests of what ISA-L and libdeflate do, without either
	@tools/setup test
	@$(MAKE) --no-print-directory -s FLAVOUR=bare unit

SECONDS ?= 60
fuzz: ## Run each fuzz target for SECONDS (default 60)
	@tools/setup lint
	@$(MAKE) --no-print-directory -s FLAVOUR=fuzz fuzzers
	@test/fuzz/run $(SECONDS)

.PHONY: fuzzers
fuzzers: $(FUZZERS)

bench: ## Measure; ONLY=group[,group] for some (roundtrip, transport, kcp, login, idle, route, failover, broadcast, push, bystander, trace, scrape, scale)
	@tools/setup bench
	@$(MAKE) --no-print-directory -s all
	@$(MAKE) --no-print-directory -s FLAVOUR=plain all
	@JANUS_BUILD=$(B) $(PYTHON) test/bench/run.py "$(ONLY)"

interop: all ## Drive the gateway with the ecosystem's Go packages
	@JANUS_BUILD=$(abspath $(B)) JANUS_ENGINE=$(ENGINE) test/interop/run

# --- Form --------------------------------------------------------------------

OUR_C = $(shell git ls-files '*.c' '*.h')
LINTED_C = $(filter-out test/%,$(filter %.c,$(OUR_C)))

lint: ## clang-format, clang-tidy, cppcheck, and the README's map of the sources
	@tools/setup lint
	@$(MAKE) --no-print-directory -s $(PROTO_C)
	@$(MAKE) --no-print-directory linted

.PHONY: linted
linted: export FLAGS = $(subst ',,$(CPPFLAGS)) -std=c17 $(PACKAGE_CFLAGS)
linted:
	$(PYTHON) test/source_map
	clang-format --dry-run -Werror $(OUR_C)
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
	  --suppressions-list=.cppcheck --error-exitcode=1 -I. -I$(B) -j2 $(LINTED_C)
	printf '%s\n' $(LINTED_C) | xargs -P2 -n4 \
	  sh -c 'clang-tidy --quiet "$$@" -- $$FLAGS 2>&1' clang-tidy

format: ## Settle the form of all C files
	clang-format -i $(OUR_C)

deps: ## Install everything that any target needs
	@tools/setup all

# --- Installing ----------------------------------------------------------------

ZSH_FUNCTIONS ?= $(PREFIX)/share/zsh/site-functions
UNIT_DIR := $(DESTDIR)$(PREFIX)/lib/systemd/system
SHARE := $(DESTDIR)$(PREFIX)/share/janus-gate
DOC := $(DESTDIR)$(PREFIX)/share/doc/janus-gate

install: all web man completion ## Install below PREFIX (default /usr) and /etc/janus-gate; DESTDIR for packaging
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/janus-gate $(SHARE)/web \
	  $(SHARE)/prometheus $(SHARE)/grafana $(DOC) $(UNIT_DIR) $(DESTDIR)$(PREFIX)/lib/sysusers.d \
	  $(DESTDIR)/etc/logrotate.d $(DESTDIR)/etc/janus-gate
	install $(PROGRAMS:%=$(BIN)/%) $(DESTDIR)$(PREFIX)/bin
	install $(LIBEXEC)/janus-worker $(DESTDIR)$(PREFIX)/libexec/janus-gate
	install -m 644 build/web/* $(SHARE)/web
	install -m 644 packaging/prometheus/* $(SHARE)/prometheus
	install -m 644 packaging/grafana/* $(SHARE)/grafana
	install -m 644 README.md packaging/doc/*.md $(DOC)
	sed 's|/usr/bin/|$(PREFIX)/bin/|' packaging/systemd/janus-gate.service \
	  > $(UNIT_DIR)/janus-gate.service
	chmod 644 $(UNIT_DIR)/janus-gate.service
	install -m 644 packaging/systemd/janus-gate.sysusers \
	  $(DESTDIR)$(PREFIX)/lib/sysusers.d/janus-gate.conf
	install -m 644 packaging/logrotate/janus-gate $(DESTDIR)/etc/logrotate.d
	for page in $(MAN_PAGES); do \
	  install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit; \
	done
	install -D -m 644 build/completion/janusctl.bash \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions/janusctl
	install -D -m 644 build/completion/_janusctl $(DESTDIR)$(ZSH_FUNCTIONS)/_janusctl
	[ -e $(DESTDIR)/etc/janus-gate/janus.conf ] || \
	  install -m 644 etc/janus.conf $(DESTDIR)/etc/janus-gate
	[ -e $(DESTDIR)/etc/janus-gate/secret.conf ] || \
	  install -m 640 etc/secret.conf $(DESTDIR)/etc/janus-gate

# --- Packages ------------------------------------------------------------------

# The same sources give the same packages, byte for byte, wherever and whenever they are built.
DEB_TREE := build/deb/janus-gate-$(VERSION)

deb: web ## Build the packages for Debian in build/deb
	@tools/setup deb
	rm -rf $(DEB_TREE)
	mkdir -p $(DEB_TREE)/build
	git ls-files -z | xargs -0 cp --parents -t $(DEB_TREE)
	cp -r packaging/debian $(DEB_TREE)
	cp -r build/web $(DEB_TREE)/build
	sed -i '1s/([^)]*)/($(VERSION)-1)/' $(DEB_TREE)/debian/changelog
	cd $(DEB_TREE) && env -u MAKEFLAGS -u MAKELEVEL CC="$(CC)" dpkg-buildpackage -us -uc -b
	@ls build/deb/*_$(VERSION)-*.deb

rpm: web ## Build the packages for Fedora and its kin in build/rpm
	@tools/setup rpm
	@packaging/rpm/build --version $(VERSION)

package-test: ## Install, upgrade, remove and purge the packages in a fresh Debian (as root)
	@tools/setup deb
	@test/package/run

clean: ## Remove everything built
	rm -rf build

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24
