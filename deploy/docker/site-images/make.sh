#!/bin/sh
# Makes the images that a site without a public registry needs: PREFIX/python, PREFIX/builder, PREFIX/kafka and
# PREFIX/store, for PYTHON_IMAGE, BUILDER_IMAGE, KAFKA_IMAGE and MONGO_IMAGE.
#
#   make.sh PREFIX MIRROR      as root, in an installed checkout; MIRROR is the site's Debian archive
#
# Kafka's jars and the store come from the cache of the native stack, which fetches and builds them where need be: by
# Maven and cargo, as the site has configured them.
set -eu
prefix=$1 mirror=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

parts=$(cd "$root" && .venv/bin/python -m deploy.native fetch)
jars=$(printf '%s\n' "$parts" | sed -n 1p)
store=$(printf '%s\n' "$parts" | sed -n 2p)
[ "$(basename "$store")" = secantusd-rs ] || { echo "the store on PATH is $store: make your image of that" >&2; exit 1; }

"$here/base.sh" "$prefix/python" "$mirror"
cp -R "$here/kafka" "$here/store" "$context"
cp -R "$jars" "$context/jars"
cp "$store" "$context"
for name in builder kafka store; do
    docker build --network host --build-arg "BASE_IMAGE=$prefix/python" \
        --tag "$prefix/$name" --file "$here/$name.Dockerfile" "$context"
done
