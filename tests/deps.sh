#!/usr/bin/env bash
# Installs the Debian packages that building and testing need and that are not there yet.
#
#     tests/deps.sh [pip|mpi]  # pip: Python's, too, which fetches models/smollm2.sh's package;
#                              # mpi: Open MPI, over which ranks share a prompt
set -u
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

missing=()
need() { # package, then a command that succeeds where it is installed
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

need gcc command -v gcc
need g++ command -v g++
need make command -v make
need pkg-config command -v pkg-config
need libsentencepiece-dev pkg-config --exists sentencepiece
need libjansson-dev pkg-config --exists jansson
need zlib1g-dev pkg-config --exists zlib
need libpcre2-dev pkg-config --exists libpcre2-8
need libutf8proc-dev pkg-config --exists libutf8proc
need libedit-dev pkg-config --exists libedit
need libcmocka-dev pkg-config --exists cmocka
need jq command -v jq
need tmux command -v tmux
[ "${1:-}" != mpi ] || need libopenmpi-dev pkg-config --exists mpi-c
[ "${1:-}" != mpi ] || need openmpi-bin command -v mpirun
[ "${1:-}" != pip ] || need python3-pip python3 -m pip --version

[ ${#missing[@]} -eq 0 ] && exit 0
echo "Missing Debian packages: ${missing[*]}"

as_root=()
if ! command -v apt-get >/dev/null; then
    echo "There is no apt-get here. Please install what these packages hold with your own tools." >&2
    exit 1
elif [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
        echo "Only root may install them. Please run: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo -n)
fi

install=("${as_root[@]}" env "DEBIAN_FRONTEND=$DEBIAN_FRONTEND" apt-get install -y -q
    --no-install-recommends "${missing[@]}")
echo "Running: ${as_root[*]} apt-get update"
"${as_root[@]}" apt-get update -q || echo "The package lists are not fresh; going on with them." >&2
echo "Running: ${install[*]}"
"${install[@]}" || {
    echo "apt-get failed. Please install by hand: ${missing[*]}" >&2
    exit 1
}
