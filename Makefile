# make demo   the main job on simulated data, with pictures, in fasthash-demo/
# make test   lint, types and every test
# make bench  the benchmarks, beside their peers; the figures in the documentation follow.  make bench-quick   the short ones
# make docs   the reference, and the tables of figures.  make evaluations DATA=folder   how well the encoders retrieve, again
# make sanitize, make old-cpus   the tests of the kernels with every access checked, and on processors of long ago
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := fasthash/_machine_code.py fasthash/_grid.py fasthash/solar/_cells.py fasthash/solar/_drawing.py
NATIVE := setup.py pyproject.toml $(wildcard csrc/* fasthash/*.pyx) $(KERNELS)

.PHONY: demo test bench bench-quick evaluations docs sanitize old-cpus install solar solar-paper radio radio-8 ablation clean
.DELETE_ON_ERROR:

install: $(VENV)/installed

# torch is pinned, and first: a range would let pip take a newer build with gigabytes of GPU libraries. The editable
# install is of the kind that a folder named fasthash in the working directory does not hide.
$(VENV)/installed: $(NATIVE)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[all]'
	touch $@

demo: install
	$(BIN)/fasthash demo --out fasthash-demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: install
	$(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' -m 'not large' --store
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.plots

bench-quick: install
	$(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' -m 'not large and not slow'

# How well the encoders retrieve, and whatever else the documentation shows that a command printed, once more: all, or
# those whose names fit NAMES. DATA: a folder with data.zip, data-balanced.zip, griese.zip, mdi-continuum, the tables of
# sunspot groups g2011.txt, ..., and the real magnetograms that the commands in benchmarks/results name.
NAMES ?= *
evaluations: install
	$(BIN)/python -m benchmarks.store $(foreach name,$(NAMES),'$(name)') --data $(DATA)
	$(BIN)/python -m benchmarks.tables

# The reference, from the docstrings, and the tables, from the stored runs.
docs: install
	$(BIN)/python docs/build_api.py
	$(BIN)/python -m benchmarks.tables

# A build of its own, in which an access out of bounds or an undefined operation ends the process. Leaks are not looked
# for: the kernels allocate nothing, and Python leaves much at exit. libstdc++ is there for the exceptions of nmslib, which
# the sanitizer has to find when the process starts. The build loads the modules, too, to compile the Numba kernels: late,
# for compilers bear no sanitizer loaded before them.
SANITIZED := build/sanitized
sanitize: install
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)/source
	cp -r setup.py pyproject.toml MANIFEST.in README.md LICENSE fasthash csrc $(SANITIZED)/source
	rm -f $(SANITIZED)/source/fasthash/*.so $(SANITIZED)/source/fasthash/_*.c
	CFLAGS='-fsanitize=address,undefined -fno-sanitize-recover=all' ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 \
	    $(BIN)/python -m pip install --quiet --no-deps --target $(SANITIZED) $(SANITIZED)/source
	cd $(SANITIZED) && LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0 $(abspath $(BIN))/python -m pytest -q $(addprefix $(CURDIR)/tests/test_,dense.py hamming.py hamming_index.py index.py tiles.py)

# Codes, Hamming search and float search as a processor of 2008 and one of 2013 run them.
QEMU ?= qemu-x86_64
old-cpus: install
	@command -v $(QEMU) >/dev/null || { echo 'old-cpus: skipped, $(QEMU) is not installed'; exit 0; }; set -ex; \
	tests='tests/test_codes.py tests/test_dense.py tests/test_hamming.py tests/test_hamming_index.py tests/test_index.py'; \
	OPENBLAS_CORETYPE=Nehalem FASTHASH_CPU_FLAGS='sse4_2 popcnt' $(QEMU) -cpu Nehalem $(BIN)/python -m pytest -q $$tests; \
	FASTHASH_CPU_FLAGS='sse4_2 popcnt avx2' $(QEMU) -cpu Haswell $(BIN)/python -m pytest -q $$tests

# How the shipped encoder solar-paper was made: two years of simulated Sun, the paper's network, 40 epochs.
solar-paper: install
	$(BIN)/fasthash simulate build/solar-paper --start 2011-06-01 --days 730 --cadence 240 --size 256 --seed 1
	$(BIN)/fasthash train solar build/solar-paper -o fasthash/encoders/solar-paper.onnx --preset paper --epochs 40 \
	    --seed 1 --data '730 days from 2011-06-01, every 4 h, 256 x 256, simulated by fasthash, seed 1'

# How the shipped encoder solar was made: 160 simulated Suns, each of its own field model, 120 days every 3 h. On one
# thread, since another number of them gives another network.
solar: build/solar-worlds
	$(BIN)/fasthash train solar build/solar-worlds -o fasthash/encoders/solar.onnx --preset best --epochs 12 \
	    --seed 1 --threads 1 --data '160 worlds of 120 days, every 3 h, simulated by fasthash.solar.worlds, seed 1'

# How the shipped encoders radio and radio-8 were made, from data.zip (fasthash fetch radio $(RADIO)) and the second set
# of labels, griese.zip (docs/radio.md says what it is). On one thread, as solar. Both are the same training.
RADIO ?= build/radio
RADIO_SETS = $(RADIO)/data.zip $(RADIO)/griese.zip
RADIO_DATA = train of Samudre et al. 2022, and the set of Griese et al. 2023 without the sources of valid

radio: install
	$(BIN)/fasthash train radio $(RADIO_SETS) -o fasthash/encoders/radio.onnx --preset best --bits 64 --epochs 400 \
	    --seed 3 --threads 1 --data '$(RADIO_DATA)'

radio-8: install
	$(BIN)/fasthash train radio $(RADIO_SETS) -o fasthash/encoders/radio-8.onnx --preset best --bits 8 --epochs 400 \
	    --seed 3 --threads 1 --data '$(RADIO_DATA)'

# What each part of solar gives: ten short trainings.
ablation: build/solar-worlds
	$(BIN)/python -m benchmarks.ablation_solar build/solar-worlds

.PHONY: build/solar-worlds
build/solar-worlds: install
	$(BIN)/python -m fasthash.solar.worlds $@ 160 1

clean:
	rm -rf $(VENV) build dist *.egg-info fasthash/_compiled fasthash/_dense.c fasthash/_hamming.c fasthash/_multi_index.c fasthash/_tiles.c fasthash/_vectors.c fasthash/*.so fasthash-demo
