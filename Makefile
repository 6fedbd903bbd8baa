# make            ./cca, with the CUDA backend where nvcc is found
# make help       the other targets

VERSION := 0.2.0

BUILD  ?= build/release
BIN    ?= cca
ifeq ($(origin CC),default)
CC     := gcc
endif
ifeq ($(origin CXX),default)
CXX    := g++
endif
OPT    ?= -O3 -g
EXTRA  ?=
PKGS   := sentencepiece jansson zlib libpcre2-8 libutf8proc
CLI_PKGS := libedit
ARCH   := $(shell uname -m)

DEFINES  := -D_GNU_SOURCE -DCCA_VERSION='"$(VERSION)"'
WARN     := -Wall -Wextra -Werror -Wshadow -Wvla
CPPFLAGS += -I. $(DEFINES) $(shell pkg-config --cflags $(PKGS) $(CLI_PKGS) 2>/dev/null)
CFLAGS   += -std=c17 $(OPT) -pthread -ffp-contract=fast $(WARN) -Wstrict-prototypes $(EXTRA)
CXXFLAGS += -std=c++17 $(OPT) $(WARN) $(EXTRA)
LDLIBS   += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm
CLI_LIBS := $(shell pkg-config --libs $(CLI_PKGS) 2>/dev/null)

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DESTDIR    ?=

# OpenMP: where the compiler has it, unless OPENMP= says otherwise; ThreadSanitizer does not know it.
ifneq ($(findstring thread,$(EXTRA)),)
OPENMP :=
else ifeq ($(origin OPENMP),undefined)
OPENMP := $(shell echo 'int main(void) { return omp_pause_resource(omp_pause_soft, 0); }' | \
            $(CC) -fopenmp -include omp.h -xc -o /dev/null - 2>/dev/null && echo -fopenmp)
endif
LINK := -pthread $(OPENMP)

# CUDA: where nvcc is found, unless NVCC= or a sanitizer says otherwise.
NVCC ?= $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))
ifneq ($(EXTRA),)
override NVCC :=
endif
# NCCL: where its header is; the library is looked for when it is wanted.
NCCL    ?= $(if $(NVCC),$(firstword $(wildcard $(dir $(NVCC))../include/nccl.h /usr/include/nccl.h)))
LIB_CU  := $(if $(NVCC),$(filter-out $(if $(NCCL),,%/comm_nccl.cu),$(wildcard *.cu backend/cuda/*.cu)))
GENCODE := arch=compute_80,code=sm_80 arch=compute_90,code=[sm_90,compute_90]
NVFLAGS := -std=c++17 -O3 -I. -Werror all-warnings -Xcompiler -Wall,-Wextra,-Wshadow,-fPIC
ifneq ($(NVCC),)
CUDA_LIB  := $(abspath $(dir $(NVCC))../lib64)
CUDA_LIBS := -L$(CUDA_LIB) -lcudart_static -ldl -lrt
LDLIBS    += $(CUDA_LIBS) -Wl,-rpath,$(CUDA_LIB)
else
override NCCL :=
endif

# MPI: a library of its own, which the program loads where ranks are asked for; where pkg-config
# knows MPI, unless MPI= says otherwise.
MPI ?= $(firstword $(foreach p,mpi-c ompi-c mpich mpi,$(shell pkg-config --exists $(p) && echo $(p))))
MPI_CFLAGS := $(if $(MPI),$(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(MPI))))
MPI_SO     := $(if $(MPI),$(dir $(BIN))comm_mpi.so)

LIB_DIRS := base gguf jinja text backend backend/cpu check export
CLI_DIRS := cli cli/ask cli/bench cli/chat cli/ppl cli/tune
LIB_C   := $(filter-out run.c,$(wildcard *.c)) $(wildcard $(LIB_DIRS:%=%/*.c)) \
           $(if $(NVCC),,backend/cuda/none.c) $(if $(NCCL),,backend/cuda/comm_nccl_none.c)
LIB_C   := $(filter-out backend/comm_mpi.c,$(LIB_C))
CLI_C   := run.c $(wildcard $(CLI_DIRS:%=%/*.c))
LIB_CC  := $(wildcard text/*.cc)
TESTS   := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))

ifneq ($(ARCH),x86_64)
LIB_C := $(filter-out backend/cpu/avx%.c backend/cpu/amx.c,$(LIB_C))
endif

LIB_O  := $(LIB_C:%.c=$(BUILD)/%.o) $(LIB_CC:%.cc=$(BUILD)/%.o) $(LIB_CU:%.cu=$(BUILD)/%.o)
CLI_O  := $(CLI_C:%.c=$(BUILD)/%.o)
TEST_X := $(TESTS:%=$(BUILD)/tests/%)

.PHONY: all cpu cuda-check demo smollm2 quality quality-full quality-smollm2 test asan valgrind valgrind-tests lib install uninstall
.PHONY: test-mpi templates test-programs fuzz fuzz-programs fuzz-fast fuzz-coverage fuzz-memory sweep sweep-io crash format lint deps help clean
all: $(BIN) $(MPI_SO)

cpu:
	$(MAKE) BUILD=build/cpu NVCC=

# Which of the builds the program is of: make after make cpu links again.
FROM := build/from-$(subst /,-,$(BIN))
ifneq ($(shell cat $(FROM) 2>/dev/null),$(BUILD))
$(shell mkdir -p build && echo $(BUILD) >$(FROM))
endif

$(BIN): $(BUILD)/run.o $(BUILD)/libcli.a $(BUILD)/libcca.a $(FROM)
	$(CXX) $(CFLAGS_LINK) $(LINK) $(EXTRA) -o $@ $(filter %.o %.a,$^) $(LDFLAGS) $(CLI_LIBS) $(LDLIBS)

# Its texts of errors are its own, and its names nobody else's.
MPI_O := $(addprefix $(BUILD)/,backend/comm_mpi.o base/base.o base/utf8.o)
$(BUILD)/backend/comm_mpi.o: CPPFLAGS += $(MPI_CFLAGS)
$(BUILD)/backend/comm_mpi.o: CFLAGS += -fPIC

$(MPI_SO): $(MPI_O) backend/comm_mpi.map
	$(CC) -shared $(EXTRA) -Wl,-Bsymbolic -Wl,--version-script,backend/comm_mpi.map -o $@ $(MPI_O) \
	    $(LDFLAGS) $(shell pkg-config --libs $(MPI))

$(BUILD)/libcca.a: $(LIB_O)
	rm -f $@ && $(AR) rcs $@ $^

# The same objects make both libraries; -fPIC does not change the kernels.
$(LIB_O): CFLAGS += -fPIC -fno-semantic-interposition
$(LIB_O): CXXFLAGS += -fPIC -fno-semantic-interposition
SO := libcca.so.$(firstword $(subst ., ,$(VERSION)))

$(BUILD)/$(SO): $(LIB_O) libcca.map
	$(CXX) -shared $(LINK) $(EXTRA) -Wl,-soname,$(SO) -Wl,--version-script,libcca.map \
	    -o $@ $(LIB_O) $(LDFLAGS) $(LDLIBS)

$(BUILD)/libcli.a: $(filter-out $(BUILD)/run.o,$(CLI_O))
	rm -f $@ && $(AR) rcs $@ $^

# A seed draws the same tokens everywhere.
$(BUILD)/sampler.o: CFLAGS += -ffp-contract=off

$(BUILD)/base/team.o: CFLAGS += $(OPENMP)

AVX512 := $(addprefix -mavx512,f bw dq vl vnni bf16) -mprefer-vector-width=512
$(BUILD)/backend/cpu/avx2.o: CFLAGS += -mavx2 -mfma
$(BUILD)/backend/cpu/avx512.o: CFLAGS += -mavx2 -mfma -mf16c $(AVX512)
$(BUILD)/backend/cpu/amx.o: CFLAGS += -mavx2 -mfma -mf16c $(AVX512) -mamx-tile -mamx-bf16

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.cc Makefile
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c -o $@ $<

# wgmma exists in sm_90a code only.
$(BUILD)/%_sm90.o: GENCODE := arch=compute_90a,code=sm_90a
$(BUILD)/backend/cuda/token.o: GENCODE := arch=compute_90,code=[sm_90,compute_90]

$(BUILD)/%.o: %.cu Makefile
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) $(GENCODE:%=-gencode %) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

# Compiles the kernels, shows what they take of the GPU, fails where attention spills registers.
cuda-check:
	@NVCC='$(NVCC)' NCCL='$(NCCL)' FLAGS='$(NVFLAGS)' GENCODE='$(GENCODE)' tests/cuda_check.sh

$(BUILD)/tests/%: tests/unit/%.c $(BUILD)/libcli.a $(BUILD)/libcca.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@.o $<
	$(CXX) $(LINK) $(EXTRA) -o $@ $@.o $(BUILD)/libcli.a $(BUILD)/libcca.a $(LDFLAGS) -lcmocka $(CLI_LIBS) $(LDLIBS)

# Builds with all processors unless make was told how many, then tests one after the other.
PARALLEL = --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
test:
	@$(MAKE) $(PARALLEL) test-programs
	CCA=./$(BIN) tests/run.sh $(TEST_X)

test-programs: $(BIN) $(TEST_X)
	@:

# Ranks, from 1 to 4 on this machine, where there is MPI; see tests/mpi/run.sh.
MPI_X := $(patsubst tests/mpi/%.c,$(BUILD)/mpi/%,$(wildcard tests/mpi/test_*.c))
test-mpi:
	-@tests/deps.sh mpi
	@$(MAKE) $(PARALLEL) $(BIN) $(MPI_SO) $(MPI_X)
	CCA=./$(BIN) tests/mpi/run.sh $(MPI_X)

$(BUILD)/mpi/%: tests/mpi/%.c $(BUILD)/libcca.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@.o $<
	$(CXX) $(LINK) $(EXTRA) -o $@ $@.o $(BUILD)/libcca.a $(LDFLAGS) -lcmocka $(LDLIBS)

# Chat templates of public models, in the folder TEMPLATES, against transformers' renderings.
PYTHON ?= python3
$(BUILD)/render_template: tests/jinja/render.c $(BUILD)/libcli.a $(BUILD)/libcca.a
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@.o $<
	$(CXX) $(LINK) $(EXTRA) -o $@ $@.o $(BUILD)/libcli.a $(BUILD)/libcca.a $(LDFLAGS) $(CLI_LIBS) $(LDLIBS)

templates: $(BUILD)/render_template $(BIN)
	@$(PYTHON) tests/jinja/compare.py $< ./$(BIN) $(TEMPLATES)

# What engine.h needs; installed side by side, so their includes lose the folder.
HEADERS := backend/comm.h base/base.h chat.h engine.h gguf/gguf.h likelihood.h lookup.h sampler.h store.h text/tokens.h tokenizer.h
D_BIN := $(DESTDIR)$(PREFIX)/bin
D_LIB := $(DESTDIR)$(LIBDIR)
D_INC := $(DESTDIR)$(INCLUDEDIR)/cca
D_MAN := $(DESTDIR)$(PREFIX)/share/man/man1
D_GGUF := $(DESTDIR)$(PREFIX)/share/cca
GGUF := $(wildcard models/cca-*.gguf)

lib: $(BUILD)/libcca.a $(BUILD)/$(SO)

install: $(BIN) $(MPI_SO) lib
	install -d $(D_BIN) $(D_LIB)/pkgconfig $(D_INC) $(D_MAN)
	install $(BIN) $(D_BIN)/cca
	install -m 644 $(BUILD)/libcca.a $(D_LIB)
	install $(BUILD)/$(SO) $(D_LIB)/libcca.so.$(VERSION)
	ln -sf libcca.so.$(VERSION) $(D_LIB)/$(SO)
	ln -sf $(SO) $(D_LIB)/libcca.so
	for h in $(HEADERS); do \
	    sed 's|^#include "[a-z/]*/|#include "|' $$h >$(D_INC)/$${h##*/} && chmod 644 $(D_INC)/$${h##*/} || exit 1; \
	done
	$(if $(MPI_SO),install -d $(D_LIB)/cca && install $(MPI_SO) $(D_LIB)/cca)
	install -m 644 man/cca.1 $(D_MAN)
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@VERSION@|$(VERSION)|; s|@PKGS@|$(PKGS)|; s|@LIBS@|$(strip $(OPENMP) $(CUDA_LIBS))|' \
	    cca.pc.in >$(D_LIB)/pkgconfig/cca.pc
	$(if $(GGUF),install -d $(D_GGUF) && install -m 644 $(GGUF) $(D_GGUF))

uninstall:
	rm -f $(D_BIN)/cca $(D_MAN)/cca.1 $(D_LIB)/pkgconfig/cca.pc $(D_LIB)/libcca.a \
	    $(D_LIB)/libcca.so $(D_LIB)/$(SO) $(D_LIB)/libcca.so.$(VERSION) \
	    $(D_LIB)/cca/comm_mpi.so $(addprefix $(D_INC)/,$(notdir $(HEADERS))) $(GGUF:models/%=$(D_GGUF)/%)
	-rmdir --ignore-fail-on-non-empty $(wildcard $(D_INC) $(D_GGUF) $(D_LIB)/cca)

asan:
	$(MAKE) BUILD=build/asan BIN=build/asan/cca OPT='-O1 -g' \
	    EXTRA='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer' test

# The unit tests under valgrind; -O1, since it has no AVX-512 and is slow enough.
VALGRIND := valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,possible
valgrind:
	$(MAKE) BUILD=build/valgrind OPT='-O1 -g' valgrind-tests

valgrind-tests: $(TEST_X)
	@for x in $(TEST_X); do echo $$x; $(VALGRIND) $$x >$(BUILD)/log 2>&1 || { cat $(BUILD)/log; exit 1; }; done

# One program a parser, tests/fuzz/fuzz_X.c, for FUZZ_SECONDS each; see tests/fuzz/run.sh. fuzz-fast: without sanitizers.
FUZZ_X := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
CLANG  := CC=clang CXX=clang++ OPENMP=
FUZZ   := BUILD=build/fuzz OPT='-O1 -g' EXTRA='-fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow -fno-sanitize-recover=all'
FAST   := BUILD=build/fuzz-fast OPT='-O2 -g' EXTRA=-fsanitize-coverage=inline-8bit-counters,pc-table
COVER  := BUILD=build/fuzz-coverage OPT='-O1 -g' EXTRA='-fprofile-instr-generate -fcoverage-mapping'
fuzz: fuzz-programs
	tests/fuzz/run.sh $(FUZZ_X)

fuzz-programs:
	$(MAKE) $(CLANG) $(FUZZ) $(FUZZ_X)

fuzz-fast:
	$(MAKE) $(CLANG) $(FAST) $(FUZZ_X:build/fuzz/%=build/fuzz-fast/%)

# Lines of each parser that the corpora reach; see tests/fuzz/coverage.sh.
fuzz-coverage:
	$(MAKE) $(CLANG) $(COVER) $(FUZZ_X:build/fuzz/%=build/fuzz-coverage/%)
	tests/fuzz/coverage.sh $(FUZZ_X:build/fuzz/%=build/fuzz-coverage/%)

# The targets whose inputs have a structure that a mutator knows.
FUZZ_O    := $(BUILD)/tests/fuzz
FUZZ_BASE := $(FUZZ_O)/fuzz.o $(FUZZ_O)/libfuzzer.o
MUTATED   := gguf source safetensors hf vocab session template
$(MUTATED:%=$(BUILD)/fuzz_%): $(FUZZ_O)/mutate.o
$(FUZZ_O)/mutate%.o: CFLAGS += -O2 -fno-sanitize=fuzzer-no-link -fno-sanitize-coverage=inline-8bit-counters,pc-table
$(BUILD)/fuzz_gguf $(BUILD)/fuzz_source: $(FUZZ_O)/mutate_gguf.o
$(BUILD)/fuzz_safetensors $(BUILD)/fuzz_hf $(BUILD)/fuzz_vocab: $(FUZZ_O)/mutate_safetensors.o $(FUZZ_O)/mutate_json.o
$(BUILD)/fuzz_session: $(FUZZ_O)/mutate_session.o
$(BUILD)/fuzz_template: $(FUZZ_O)/mutate_template.o $(FUZZ_O)/mutate_json.o

.SECONDARY: $(FUZZ_X:build/fuzz/%=$(FUZZ_O)/%.o) $(FUZZ_BASE) $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/fuzz/mutate*.c))
$(BUILD)/fuzz_%: $(FUZZ_O)/fuzz_%.o $(FUZZ_BASE) $(BUILD)/libcli.a $(BUILD)/libcca.a
	$(CXX) $(LINK) $(EXTRA) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDFLAGS) $(CLI_LIBS) $(LDLIBS)

# What each input of the corpora takes of memory, without sanitizers; see tests/fuzz/memory.sh.
MEMORY_X    := $(FUZZ_X:build/fuzz/fuzz_%=$(BUILD)/memory_%)
MEMORY_BASE := $(BUILD)/tests/fuzz/fuzz.o $(BUILD)/tests/fuzz/memory.o
fuzz-memory: $(MEMORY_X)
	tests/fuzz/memory.sh $(MEMORY_X)

.SECONDARY: $(MEMORY_X:$(BUILD)/memory_%=$(BUILD)/tests/fuzz/fuzz_%.o) $(MEMORY_BASE)
$(BUILD)/memory_%: $(BUILD)/tests/fuzz/fuzz_%.o $(MEMORY_BASE) $(BUILD)/libcli.a $(BUILD)/libcca.a
	$(CXX) $(LINK) $(EXTRA) -o $@ $^ $(LDFLAGS) $(CLI_LIBS) $(LDLIBS)

# Each command with each of its allocations, or calls on files, failing in turn; see tests/alloc/sweep.c.
SWEEP := build/sweep/tests/alloc/sweep
WRAP  := malloc calloc realloc strdup strndup realpath asprintf vasprintf open_memstream mmap \
    open read pread write pwrite fsync fdatasync ftruncate fallocate posix_fallocate rename close
sweep sweep-io: $(BIN)
	$(MAKE) BUILD=build/sweep OPT='-O1 -g' EXTRA='-fsanitize=address,undefined -fno-sanitize-recover=all' \
	    $(SWEEP)
	CCA=./$(BIN) tests/alloc/run.sh $(SWEEP) $(if $(filter %-io,$@),eio enospc eintr short,memory)

$(BUILD)/tests/alloc/run.o: run.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Dmain=cca_main $(CFLAGS) -c -o $@ $<

$(SWEEP): $(SWEEP).o $(dir $(SWEEP))faults.o $(dir $(SWEEP))run.o build/sweep/libcli.a build/sweep/libcca.a
	$(CXX) $(LINK) $(EXTRA) $(WRAP:%=-Wl,--wrap=%) -o $@ $^ $(LDFLAGS) $(CLI_LIBS) $(LDLIBS)

# Commands on a device of tests that fails, returns what is no number, or does not come back; see tests/reliability/devices.c.
DEVICES := $(BUILD)/tests/reliability/devices
$(DEVICES): $(DEVICES).o $(BUILD)/tests/alloc/run.o $(BUILD)/libcli.a $(BUILD)/libcca.a
	$(CXX) $(LINK) $(EXTRA) -o $@ $^ $(LDFLAGS) $(CLI_LIBS) $(LDLIBS)

.PHONY: reliability-devices
reliability-devices: $(BIN) $(DEVICES)
	CCA=./$(BIN) tests/reliability/devices.sh $(DEVICES)

# All promises of docs/RELIABILITY.md, in two hours, or in some minutes; see tests/reliability/run.sh.
.PHONY: reliability reliability-short
reliability reliability-short:
	@$(MAKE) $(PARALLEL) $(BIN)
	@CCA=./$(BIN) SHORT=$(if $(filter %-short,$@),1,0) tests/reliability/run.sh

# What a power cut can leave at each moment of a command; see tests/crash/crash.c. SHORT=1: a minute.
CRASH      := $(BUILD)/tests/crash/crash
CRASH_O    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/crash/*.c)) $(BUILD)/tests/alloc/run.o
CRASH_WRAP := open write pwrite ftruncate fallocate rename unlink mkdir fsync fdatasync \
    $(addprefix cca_,store_commit store_cut store_drop store_remove whole_commit gguf_set_attention)
crash: $(BIN) $(CRASH)
	CCA=./$(BIN) tests/crash/run.sh $(CRASH)

$(CRASH): $(CRASH_O) $(BUILD)/libcli.a $(BUILD)/libcca.a
	$(CXX) $(LINK) $(EXTRA) $(CRASH_WRAP:%=-Wl,--wrap=%) -o $@ $^ $(LDFLAGS) $(CLI_LIBS) $(LDLIBS)

SOURCES := $(wildcard *.[ch] text/*.cc *.cu backend/cuda/*.[ch] backend/cuda/*.cu backend/cuda/*.cuh $(addsuffix /*.[ch],$(LIB_DIRS) $(CLI_DIRS)) tests/*/*.[ch])

LINTED  := $(if $(MPI),$(SOURCES),$(filter-out backend/comm_mpi.c,$(SOURCES)))

format:
	clang-format -i $(SOURCES) examples/*.c

# A status in a variable is tested as it is, a wide integer printed as a long long.
lint:
	clang-format --dry-run -Werror $(SOURCES) examples/*.c
	! grep -nE '[^)] [!=]= CCA_OK|PRI[diux]64' $(SOURCES) examples/*.c
	printf '%s\n' $(filter %.c,$(LINTED)) | xargs -P2 -I{} clang-tidy --quiet {} -- \
	    $(CPPFLAGS) $(MPI_CFLAGS) -std=c17 -pthread
	cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 -I. $(DEFINES) \
	    --enable=warning,performance,portability --suppress=missingIncludeSystem --suppress=invalidPointerCast \
	    $(filter %.c,$(LINTED))

deps:
	@tests/deps.sh

# The model that ships continues a line, then finds the one line of 37,000 tokens of Milton that is
# not his; examples/README.md tells more.
demo:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) $(PARALLEL) $(BIN)
	./$(BIN) generate -p 'It was a dark night, and the captain' -n 48 -s 1
	@echo
	./$(BIN) ask -f examples/paradise-lost.txt \
	    'What is the secret code of the old lighthouse?'

# A public model answers two questions about README.md; its file runs as its makers publish it. Then the same model, taught
# CCA-Attention up to 32,768 tokens, answers one about 20,000 tokens of Milton; models/README.md tells more.
SMOLLM2 := models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
TAUGHT  := models/smollm2/SmolLM2-135M-Instruct-CCA
smollm2:
	@tests/deps.sh pip
	@$(MAKE) $(PARALLEL) $(BIN)
	@models/smollm2.sh
	./$(BIN) ask -m $(SMOLLM2) -f README.md -n 24 \
	    'Which command runs the tests?' 'In which language is the program written?'
	./$(BIN) export $(SMOLLM2) --patch models/smollm2-135m-cca-32k.gguf -o $(TAUGHT)-32K.gguf
	head -n 1760 examples/paradise-lost.txt | ./$(BIN) ask -m $(TAUGHT)-32K.gguf -f - -n 24 \
	    'What is the secret code of the old lighthouse?'

# That model with several kinds of attention, against full attention, and taught CCA-Attention: perplexity, distance, times,
# tasks; hours on a few processors, and what was measured is kept. DEVICE=cuda measures on a GPU.
SMOLLM2_RUNS := 'full attention=$(SMOLLM2):full' 'CCA as published=$(SMOLLM2):cca:::0' 'CCA=$(SMOLLM2):cca' \
    'window and sinks=$(SMOLLM2):sinks:16' 'recall 1024=$(SMOLLM2):recall:1024' 'recall 2048=$(SMOLLM2):recall:2048' \
    'taught, CCA=$(TAUGHT).gguf:cca' 'taught, recall 512=$(TAUGHT).gguf:recall:512'
quality-smollm2: $(BIN)
	@models/smollm2.sh
	./$(BIN) export $(SMOLLM2) --patch models/smollm2-135m-cca.gguf -o $(TAUGHT).gguf
	quality/distances.sh $(SMOLLM2_RUNS)
	quality/tasks.sh $(SMOLLM2_RUNS)

# The tables of docs/QUALITY.md from held-out books; see quality/run.sh. MODELS names further model
# files, each as LABEL[/AGAINST]=FILE:ATTENTION.
QUALITY_MODEL ?= $(firstword $(GGUF))
MODELS        ?=
quality quality-full: $(BIN)
	quality/run.sh quick $(QUALITY_MODEL) $(MODELS)
	$(if $(filter quality-full,$@),quality/run.sh full $(QUALITY_MODEL) $(MODELS))
	quality/tables.sh $(QUALITY_MODEL) build/quality/facts.svg

clean:
	rm -rf build cca comm_mpi.so

help:
	@echo 'make             build ./cca'
	@echo 'make cpu         the same without looking for CUDA'
	@echo 'make cuda-check  compile the CUDA kernels; registers and spills of each'
	@echo 'make demo        install, build, continue a line, find a fact in a long text'
	@echo 'make smollm2     fetch a public model of 98 MB, ask it about README.md'
	@echo 'make deps        install the Debian packages that are missing'
	@echo 'make test        build and run all tests'
	@echo 'make test-mpi    the tests of ranks over MPI, where there is MPI'
	@echo 'make templates   chat templates in the folder TEMPLATES against transformers'
	@echo 'make quality-smollm2  that model with several kinds of attention: distance from full attention, tasks'
	@echo 'make quality     perplexity and planted facts on held-out books, 8 minutes'
	@echo 'make quality-full  the same up to 131,072 tokens with full attention, an hour or more'
	@echo 'make lib         libcca.a and libcca.so alone'
	@echo 'make install     program, libraries, headers, man page; PREFIX=/usr/local, DESTDIR'
	@echo 'make uninstall   remove those'
	@echo 'make asan        the tests under AddressSanitizer and UBSan'
	@echo 'make valgrind    the unit tests under valgrind'
	@echo 'make fuzz        fuzz each parser for FUZZ_SECONDS (60); needs clang'
	@echo 'make fuzz-coverage  lines of each parser that the fuzz corpora reach; needs clang and LLVM'
	@echo 'make fuzz-memory  what each input of the fuzz corpora takes of memory'
	@echo 'make sweep       each command with each of its allocations failing in turn'
	@echo 'make reliability  all of that and more, a line a promise of docs/RELIABILITY.md, two hours; goes on where it was'
	@echo 'make reliability-short  what takes some minutes of it'
	@echo 'make reliability-devices  commands on a device that fails at each of its calls in turn'
	@echo 'make sweep-io    the same with each call on files: errors, full disks, interrupts, short counts'
	@echo 'make crash       what a power cut can leave of each file that is to survive; SHORT=1: a minute'
	@echo 'make format      clang-format all sources'
	@echo 'make lint        clang-format check, clang-tidy, cppcheck'
	@echo 'make clean       remove what was built'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
