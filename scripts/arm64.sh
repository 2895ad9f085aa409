#!/bin/sh
# Installs the QEMU that runs arm64 guests; kernels and programs for them ktstr gets by itself.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'arm64: %s\n' "$*" >&2; }
. scripts/debian.sh

debian_packages qemu-system-arm
