import * as Effect from "effect/Effect"
import { prepare } from "../../Ktstr.ts"
import { upReport } from "../../kvm/guest/Init.ts"
import { VmEngine } from "../../kvm/spec/VmEngine.ts"
import { samples } from "../../monitor/Monitor.ts"
import type { Machine, Script } from "../source/options.ts"
import { bootOptions, engineOf, Live, PREPARE_MILLIS } from "../source/snapshot.ts"
import { GuestStatus } from "../terminal/exit.ts"
import { holdSignals } from "../terminal/signals.ts"
import * as Stages from "../terminal/Stages.ts"
import { restartTimeLimit } from "../terminal/timeLimit.ts"
import { type SampleOptions, showSamples } from "./showSamples.ts"

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
    if (status !== 0) return yield* new GuestStatus({ status })
  }).pipe(Effect.provide(engineOf(config)), Effect.scoped, Effect.provide(Live))
