#!/bin/sh
# All checks (scripts/check.mjs), lint, format, then every test. Arguments go to vitest.
set -eu
cd "$(dirname "$0")/.."
npm run --silent check
npm run --silent lint
sh scripts/nodes.sh
exec npx vitest run "$@"
