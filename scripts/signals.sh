#!/bin/sh
# Interrupts commands at random moments, as often as the first argument says (500): test/cli/signalRounds.test.ts.
# KTSTR_SIGNAL_SEED repeats a run.
set -eu
cd "$(dirname "$0")/.."
rounds="${1:-500}"
[ $# -eq 0 ] || shift
KTSTR_SIGNAL_ROUNDS="$rounds" exec npx vitest run test/cli/signalRounds.test.ts "$@"
