#!/usr/bin/env bash
# Build cytoray:VERSION-FLAVOUR from this checkout with docker, podman or buildah (or the program in BUILDER).
#
#     deploy/containers/build.sh cpu --build-arg TORCH='--index-url ADDRESS-OF-PYTORCH-WHEELS-FOR-CPU'
#     deploy/containers/build.sh cuda
#
# Options after the flavour are passed to the builder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

flavour=${1:-}
case $flavour in
    cpu | cuda) shift ;;
    *) echo "usage: $0 cpu|cuda [option of the builder …]" >&2; exit 2 ;;
esac

if [ -z "${BUILDER:-}" ]; then
    for BUILDER in docker podman buildah none; do
        if command -v "$BUILDER" >/dev/null; then break; fi
    done
    if [ "$BUILDER" = none ]; then
        echo "found none of docker, podman and buildah: install one, or set BUILDER" >&2
        exit 1
    fi
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)

# BUILDER may contain options.
# shellcheck disable=SC2086
exec $BUILDER build \
    --file deploy/containers/Containerfile \
    --tag "cytoray:$version-$flavour" \
    --build-arg FLAVOUR="$flavour" \
    --build-arg VERSION="$version" \
    --build-arg REVISION="$revision" \
    "$@" .
