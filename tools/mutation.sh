#!/bin/sh
# Mutation testing of what judges (`[tool.mutmut]` in pyproject.toml says which files, by which tests), in an environment of its own.
# With module patterns as arguments (`symbi.policy.obligations*`) only those. `python tools/mutation.py` reads what it leaves in mutants/.
set -eu
cd "$(dirname "$0")/.."

if [ ! -e .venv-mutation/.installed ]; then
    "${PYTHON:-python3}" -m venv .venv-mutation
    .venv-mutation/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements/mutation.txt
    .venv-mutation/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
    touch .venv-mutation/.installed
fi
exec .venv-mutation/bin/mutmut run --max-children "$(getconf _NPROCESSORS_ONLN)" "$@"
