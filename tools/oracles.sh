#!/bin/sh
# Installs what tests compare us with, below .tools, each in an environment of its own: PyPI's `schemapin`, which pins its own
# dependencies. What is there in the locked versions is kept.
set -eu
cd "$(dirname "$0")/.."

lock=tools/oracle/schemapin.txt
there=.tools/schemapin
if ! cmp -s "$lock" "$there/installed.txt"; then
    rm -rf "$there"
    mkdir -p .tools
    "${PYTHON:-python3}" -m venv "$there"
    "$there/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: --require-hashes -r "$lock"
    cp "$lock" "$there/installed.txt"
fi
echo "oracles: schemapin $("$there/bin/python" -c 'from importlib.metadata import version; print(version("schemapin"))')"
