# Every command by which this repository is checked, built and measured. `just` alone lists them.
#
# The Python programs are those of the environment that is active; CONTRIBUTING.md says how to make one.

set shell := ["bash", "-euo", "pipefail", "-c"]

quick_under_miri := "instruction_sets names_choose index:: header::data header::entries header::header_lengths \
    header::layouts header::metadata header::zero_size float::keys float::overflow float::philox \
    float::stochastic_rounding_ends kernel::negative_zero kernel::a_request"
oldest_rust := `sed -nE 's/^rust-version = "(.*)"$/\1/p' Cargo.toml`

[private]
default:
    @just --list --unsorted

# What needs no torch and no build of the package: two minutes at most
[group('every change')]
check: fmt clippy ruff typos layers types-if-possible

# The tests of the core and of the package: some 15 minutes, and the extra `test`
[group('every change')]
test *ARGS: cargo-test (pytest ARGS)

# Every check on a bare machine, in an environment of its own: what has to pass
[group('every change')]
full:
    .ci/run

# Builds the package in release and installs it into the environment
[group('parts')]
install:
    python -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .

# rustfmt, for the workspace and for the files that are in no crate of it
[group('parts')]
fmt: fmt-workspace fmt-others

[private]
fmt-workspace:
    cargo fmt --all --check

# A program in no crate, and a crate that needs nightly Rust to be built.
[private]
fmt-others:
    rustfmt --check --edition 2024 benches/floor.rs fuzz/src/lib.rs fuzz/targets/*.rs

# clippy, for the workspace and the fuzz targets; a warning is an error. libFuzzer itself, which is C++, is left out
[group('parts')]
clippy:
    cargo clippy --workspace --all-targets -- -D warnings
    CUSTOM_LIBFUZZER_PATH=none/libnone.a CARGO_TARGET_DIR=target/fuzz \
        cargo clippy --manifest-path fuzz/Cargo.toml --bins -- -D warnings

# ruff, as a linter and as a formatter
[group('parts')]
ruff: ruff-check ruff-format

[private]
ruff-check:
    ruff check

[private]
ruff-format:
    ruff format --check

# Spelling
[group('parts')]
typos:
    typos

# The order of the wings, in Rust and in Python
[group('parts')]
layers:
    python -m pytest --quiet tests/test_layers.py

# pyright; it needs the packages of the extra `test`
[group('parts')]
types:
    pyright --pythonpath "$(python -c 'import sys; print(sys.executable)')"

# The same, or a word where those packages are not installed: torch is found, and not imported.
[private]
types-if-possible:
    @if python -c 'import sys; from importlib.util import find_spec; sys.exit(not find_spec("torch"))'; then \
        just types; \
    else \
        echo "pyright: left out, for it needs the packages of the extra 'test'; .ci/run has it"; \
    fi

# The tests of the core alone: neither Python nor torch
[group('parts')]
core *ARGS:
    cargo test -p taskvec-core --locked {{ ARGS }}

# All tests in Rust; those of a crate that links libpython find it where this Python keeps it
[group('parts')]
cargo-test:
    libdir=$(python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR") or "")'); \
    export LD_LIBRARY_PATH="$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; \
    export DYLD_LIBRARY_PATH="$libdir${DYLD_LIBRARY_PATH:+:$DYLD_LIBRARY_PATH}"; \
    cargo test --workspace

# The tests of the package that is installed, two at a time, each with a core to itself
[group('parts')]
pytest *ARGS:
    OMP_NUM_THREADS=1 python -m pytest --numprocesses=2 --dist=worksteal {{ ARGS }}

# Whether the oldest Rust that Cargo.toml allows compiles everything; rustup has to have it
[group('parts')]
oldest-rust:
    cargo +{{ oldest_rust }} check --workspace --all-targets --locked

# Licences and sources of the crates that are built in; `just deny advisories` asks for known faults
[group('parts')]
deny *CHECKS='bans licenses sources':
    cargo deny check {{ CHECKS }}

# A wheel for manylinux_2_17 and the source archive to DIR, tried where nothing else is installed
[group('release')]
wheel DIR='dist' *SID:
    .ci/wheel "{{ DIR }}" {{ SID }}

# Whether TAG, as v1.2.3, is of the version in Cargo.toml
[group('release')]
tagged TAG:
    version=$(sed -nE 's/^version = "(.*)"$/\1/p' Cargo.toml); \
    if [[ "{{ TAG }}" != "v$version" ]]; then echo "{{ TAG }} is not v$version" >&2; exit 1; fi

# The source archive alone
[group('release')]
sdist DIR:
    maturin sdist -o "{{ DIR }}"

# Every fuzz target in turn: just fuzz [SECONDS] [TARGET...]
[group('release')]
fuzz *ARGS:
    .ci/fuzz {{ ARGS }}

# The core under a sanitizer: just sanitize address, just sanitize thread SID
[group('release')]
sanitize *ARGS:
    .ci/sanitize {{ ARGS }}

# Parsers, conversions and the kernel under Miri, a component of nightly Rust: those tests that it ends within minutes
[group('release')]
miri *TESTS=quick_under_miri:
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-deterministic-floats" \
        cargo +nightly miri test -p taskvec-core --locked --lib --test it -- {{ TESTS }}

# Debian sid in a folder, for `aarch64`, `windows` and `sanitize thread`
[group('release')]
sid *ARGS:
    .ci/sid {{ ARGS }}

# 64-bit ARM, cross-built and under qemu: just aarch64 SID DIR wheel|transfer|tests
[group('release')]
aarch64 *ARGS:
    .ci/aarch64 {{ ARGS }}

# The core's tests for Windows, cross-built and under wine: just windows SID DIR [NAME...]
[group('release')]
windows *ARGS:
    .ci/windows {{ ARGS }}

# How fast a transfer is, against the same bytes without arithmetic
[group('release')]
bench *ARGS='--size 0.5b':
    python benches/bench_transfer.py {{ ARGS }}

# How fast the kernels are
[group('release')]
bench-kernel *ARGS='--quick':
    cargo bench -p taskvec-core --bench kernel -- {{ ARGS }}
