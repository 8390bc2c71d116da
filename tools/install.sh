#!/bin/sh
# Makes .venv and installs what requirements/dev.txt locks, then Symbi itself from this tree.
# With lock files as arguments it installs what those lock beside it.
# Through uv if it is on the PATH, else through pip. The Makefile calls it when a lock file or pyproject.toml is newer than .venv/.installed.
#   PYTHON   the interpreter to use (3.11 or newer); found by name if not given
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "install: $1" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of 3.11 or newer"
        return
    fi
    for PYTHON in python3.13 python3.12 python3.11 python3 python; do
        if is_new_enough "$PYTHON"; then
            return
        fi
    done
    found=$(python3 --version 2>&1 || echo 'no python3')
    fail "Python 3.11 or newer is needed (found: $found); install it, or name it: make PYTHON=/path/to/python3.11"
}

make_venv() {
    find_python
    echo "install: making .venv with $("$PYTHON" --version 2>&1)"
    if [ "$with_uv" = yes ]; then
        rm -rf .venv
        uv venv --quiet --python "$(command -v "$PYTHON")" .venv
        return
    fi
    "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$PYTHON has no venv with pip; on Debian and Ubuntu: apt-get install python3-venv; or install uv"
    rm -rf .venv
    "$PYTHON" -m venv .venv
}

if [ $# = 0 ]; then
    set -- requirements/dev.txt
fi
for lock; do # each becomes an option
    set -- "$@" -r "$lock"
    shift
done

with_uv=no
if command -v uv >/dev/null 2>&1; then
    with_uv=yes
fi

# What is there and works is kept: installing again is quick.
if ! is_new_enough .venv/bin/python; then
    if [ -e .venv ] && [ ! -e .venv/pyvenv.cfg ] && [ -n "$(ls -A .venv)" ]; then
        fail '.venv is there and is not a virtual environment; move it away'
    fi
    make_venv
elif [ "$with_uv" = no ] && ! .venv/bin/python -c 'import pip' >/dev/null 2>&1; then
    make_venv
fi

# Wheels only: no code of a dependency runs while it is installed.
if [ "$with_uv" = yes ]; then
    VIRTUAL_ENV=$PWD/.venv
    export VIRTUAL_ENV
    uv pip install --quiet --require-hashes --only-binary :all: "$@"
    uv pip install --quiet --no-deps --no-build-isolation -e .
else
    pip='.venv/bin/python -m pip --disable-pip-version-check'
    $pip install --quiet --require-hashes --only-binary :all: "$@"
    $pip install --quiet --no-deps --no-build-isolation -e .
fi
touch .venv/.installed
echo 'install: done'
