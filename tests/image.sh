#!/usr/bin/env bash
# Builds the image of ark-job with docker, podman or buildah, whichever is there: image.sh PROGRAMS [IMAGE]
set -euo pipefail

programs=$1
image=${2:-ark-job:latest}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$programs/ark-job" "$context/"
for builder in docker podman buildah; do
  if command -v "$builder" >/dev/null && { [ "$builder" != docker ] || docker info >/dev/null 2>&1; }; then
    exec "$builder" build ${BASE:+--build-arg "BASE=$BASE"} --tag "$image" --file "$(dirname "$0")/../Containerfile" "$context"
  fi
done
echo "error: neither a running docker, nor podman, nor buildah is there" >&2
exit 1
