#!/bin/sh
# Remakes requirements/*.txt from pyproject.toml: every version and every hash, no addresses.
# Versions that are locked already stay; `tools/lock.sh --upgrade` takes the newest that pyproject.toml allows.
set -eu
cd "$(dirname "$0")/.."

if command -v uv >/dev/null 2>&1; then
    uv=uv
elif [ -x .venv/bin/uv ]; then
    uv=.venv/bin/uv
else
    echo 'lock: uv is not on the PATH; install it, or run `.venv/bin/pip install uv`' >&2
    exit 1
fi

compile() { # compile OUTPUT [OPTION ...]
    output=$1
    shift
    "$uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$output" "$@"
    echo "lock: $output: $(grep -c '==' "$output") packages"
}

compile requirements/runtime.txt "$@"
# The constraint keeps what runs and what is tested the same.
compile requirements/dev.txt --group dev --constraint requirements/runtime.txt "$@"
compile requirements/mutation.txt --group dev --group mutation --constraint requirements/dev.txt "$@"
compile requirements/bench.txt --group bench --constraint requirements/dev.txt "$@"
