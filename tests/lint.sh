#!/usr/bin/env bash
# Formatting, lints, licences and bans: everything that reads the sources and runs nothing of ours.
set -euo pipefail

cache=${ARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-ark}
deny_version=0.20.2
deny=$cache/cargo-deny-$deny_version/bin/cargo-deny

cargo fmt --all --check
cargo clippy --release --workspace --all-targets -- --deny warnings
if [ ! -x "$deny" ]; then
  echo "building cargo-deny $deny_version (once) …" >&2
  # Not into our target directory: another workspace's artifacts would only crowd it.
  CARGO_TARGET_DIR=$cache/cargo-deny-build cargo install --quiet --locked --root "$cache/cargo-deny-$deny_version" "cargo-deny@$deny_version"
  rm -rf "$cache/cargo-deny-build"
fi
"$deny" --all-features --log-level error check --hide-inclusion-graph bans licenses sources
# The plugin must not need the EC2 SDK, whose build alone takes minutes.
if cargo tree --package kubectl-ark --edges normal --invert aws-sdk-ec2 2>/dev/null | grep -q .; then
  echo "kubectl-ark depends on aws-sdk-ec2" >&2
  exit 1
fi
