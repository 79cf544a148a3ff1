#!/bin/sh
# Writes requirements.lock beside it: exact versions with the hash of every file and no address to fetch them from, as
# scripts/lock.sh does for the program. Usage: benchmarks/peers/lock.sh UV
set -eu
uv=$1
here=$(dirname "$0")
{
    echo "# What the peers need. Written by benchmarks/peers/lock.sh, read by pip --require-hashes."
    "$uv" pip compile --quiet --no-config --universal --python-version 3.11 --upgrade --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$here/requirements.in"
} >"$here/requirements.lock.new"
mv "$here/requirements.lock.new" "$here/requirements.lock"
