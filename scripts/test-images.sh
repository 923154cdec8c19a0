#!/bin/sh
# Builds the images that tests/it/docker.rs runs, where a Docker engine answers. Before the tests, and not in them: it keeps the machine
# busy, which tests of time-outs would notice. Needs target/debug/pgherd.
set -eu
cd "$(dirname "$0")/.."

if ! docker info >/dev/null 2>&1; then
    exit 0
fi
scripts/packages.sh docker
for suite in bookworm trixie; do
    scripts/debian-image.sh "$suite"
done

# image TAG TARGET [ARGUMENT...]
image() {
    tag=$1 target=$2
    shift 2
    log=$(mktemp)
    # shellcheck disable=SC2046 # one --build-arg a word
    docker build --tag "$tag" --target "$target" --file deploy/Dockerfile $(printf -- '--build-arg %s ' "$@") . >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        echo "test-images.sh: the image $tag cannot be built; the whole log: $log" >&2
        exit 1
    }
    rm -f "$log"
}
binary=BINARY=target/debug/pgherd
image pgherd-zookeeper zookeeper DEBIAN=bookworm
image pgherd-test-lab lab "$binary"
image pgherd-test-node-17 node "$binary" DEBIAN=trixie PG_MAJOR=17
