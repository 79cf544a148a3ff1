#!/bin/sh
# Writes requirements.lock (what the program needs) and requirements-dev.lock (that and what developers need): exact
# versions with the hash of every file, for every Python and platform we support, and no address to fetch them from,
# so that any index that serves the same files will do. Usage: scripts/lock.sh UV
set -eu
uv=$1

compile() {
    out=$1
    what=$2
    shift 2
    {
        echo "# $what Written by \`make lock\`, read by pip --require-hashes."
        "$uv" pip compile --quiet --no-config --universal --python-version 3.11 --upgrade --generate-hashes \
            --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@" pyproject.toml
    } >"$out.new"
    mv "$out.new" "$out"
}

compile requirements.lock "What the program needs."
compile requirements-dev.lock "What the program and its developers need." --extra dev --constraint requirements.lock
