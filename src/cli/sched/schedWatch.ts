import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { freezeAndAttach } from "../../Ktstr.ts"
import { NotSampled } from "../../monitor/Monitor.ts"
import { readFrozen } from "../../monitor/ReadSampled.ts"
import { type Sampled, sampleOf } from "../../monitor/Sample.ts"
import { type SampleOptions, showSamples } from "../monitor/showSamples.ts"
import type { Machine, Script } from "../source/options.ts"
import { bootTarget, Live } from "../source/snapshot.ts"
import { UsageError } from "../terminal/exit.ts"
import * as Stages from "../terminal/Stages.ts"

/** Boot a VM and read it again and again, frozen for each reading, until Ctrl-C or `--count`. */
export const watch = (config: Machine & Script & SampleOptions) =>
  Effect.gen(function*() {
    if (Option.isNone(config.kernel)) {
      return yield* new UsageError({ problem: "say what to watch: --kernel ID boots a VM" })
    }
    const { name, vm } = yield* Effect.provide(bootTarget(config), Stages.layer)
    let before: Sampled | undefined
    const reading = Effect.scoped(Effect.gen(function*() {
      const { kernel } = yield* freezeAndAttach(vm, name)
      const sampled = readFrozen(kernel)
      if ("kind" in sampled) return yield* new NotSampled({ why: sampled })
      const sample = sampleOf(sampled, before)
      before = sampled
      return sample
    }))
    yield* showSamples(Stream.repeatEffectWithSchedule(reading, Schedule.fixed(config.every)), config)
  }).pipe(Effect.scoped, Effect.provide(Live))
