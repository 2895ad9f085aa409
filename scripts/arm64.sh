#!/bin/sh
# Installs the compiler of the programs that `npm run matrix` runs in arm64 guests.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'arm64: %s\n' "$*" >&2; }
. scripts/debian.sh

debian_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross
