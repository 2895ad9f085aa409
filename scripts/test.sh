#!/bin/sh
# Types (with Effect's diagnostics), lint, format, then every test. Arguments go to vitest.
set -eu
cd "$(dirname "$0")/.."
npm run --silent check
npm run --silent lint
exec npx vitest run "$@"
