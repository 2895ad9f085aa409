import * as Effect from "effect/Effect"
import { prepare, ScriptFailed } from "../../Ktstr.ts"
import { upReport } from "../../kvm/guest/Init.ts"
import { scriptLines } from "../../kvm/guest/ScriptLines.ts"
import { VmEngine } from "../../kvm/spec/VmEngine.ts"
import { samples } from "../../monitor/Monitor.ts"
import type { Machine, Script } from "../source/options.ts"
import { bootOptions, engineOf, Live, PREPARE_MILLIS } from "../source/snapshot.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { GuestStatus } from "../terminal/exit.ts"
import { holdSignals } from "../terminal/signals.ts"
import * as Stages from "../terminal/Stages.ts"
import { writeMessage } from "../terminal/Streams.ts"
import { restartTimeLimit } from "../terminal/timeLimit.ts"
import { type SampleOptions, showSamples } from "./showSamples.ts"

/** Of what a script that failed has printed, which is not shown while it runs. */
const LAST_LINES = 3

/**
 * Boot a VM and sample it while it runs, from its init's start on: until its commands end, and then with their status, or
 * until Ctrl-C or `--count`.
 */
export const monitor = (config: Machine & Script & SampleOptions) =>
  Effect.gen(function*() {
    const options = yield* bootOptions(config, "say what to monitor: --kernel ID boots a VM")
    yield* holdSignals
    yield* restartTimeLimit(PREPARE_MILLIS)
    const { spec } = yield* Effect.provide(prepare(options), Stages.layer)
    const vm = yield* Effect.flatMap(VmEngine, (engine) => engine.boot(spec))
    yield* vm.awaitReport(upReport)
    const shown = Effect.as(showSamples(samples(vm, { every: config.every }), config), 0)
    const ended = options.script === undefined ? Effect.zipRight(vm.awaitReady, Effect.never) : vm.awaitReady
    const status = yield* Effect.raceFirst(shown, ended)
    if (status === 0) return
    const lastLines = scriptLines(yield* vm.consoleTail).slice(-LAST_LINES)
    writeMessage(`  ${escapeLine(new ScriptFailed({ status, lastLines }).message)}\n`)
    return yield* new GuestStatus({ status })
  }).pipe(Effect.provide(engineOf(config)), Effect.scoped, Effect.provide(Live))
