import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { FormatError } from "../core/FormatError.ts"
import { formatReason, Reason } from "../core/Reason.ts"
import { inRealTime } from "../kvm/spec/RealTime.ts"
import type { Vm, VmEnded } from "../kvm/spec/VmEngine.ts"
import type { NoBtf, NotAKernel } from "../memory/Errors.ts"
import { GuestKernel } from "../memory/GuestKernel.ts"
import { defaultRules, type Rule, RuleJudge, type RuleVerdict } from "./Rules.ts"
import { Sample } from "./Sample.ts"
import { Sampler } from "./Sampler.ts"

/**
 * Options of `samples` and `watch`.
 *
 * @since 0.1.0
 * @category models
 */
export interface MonitorOptions {
  /** Time between two samples; 100 milliseconds. */
  readonly every?: Duration.DurationInput | undefined
}

/**
 * Failures of sampling: the VM has ended, or its memory cannot be read as a kernel's.
 *
 * @since 0.1.0
 * @category errors
 */
export type MonitorError = VmEnded | NotAKernel | NoBtf | FormatError | NotSampled

/**
 * A kernel whose scheduler cannot be read while it runs: it lacks what a sample is made of, or 50 readings one after
 * another were torn.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotSampled extends Schema.TaggedError<NotSampled>("ktstr/NotSampled")("NotSampled", { why: Reason }) {
  override get message() {
    return `the running guest's scheduler cannot be sampled: ${formatReason(this.why)}; freeze the guest to read it`
  }
}

/** Torn readings in a row, of some tries each, before sampling fails: a few are normal. */
const MOST_TORN = 50

/**
 * A rule was broken: by how much and when; `sample` is the last of those that broke it.
 *
 * @since 0.1.0
 * @category errors
 */
export class RuleBroken extends Schema.TaggedError<RuleBroken>("ktstr/RuleBroken")("RuleBroken", {
  rule: Schema.String,
  worst: Schema.Number,
  threshold: Schema.Number,
  unit: Schema.String,
  at: Schema.String,
  sample: Sample
}) {
  /** The error of a verdict that has failed with a sample. */
  static readonly of = ({ at, rule, threshold, unit, worst }: RuleVerdict, sample: Sample): RuleBroken =>
    new RuleBroken({ rule, worst: worst ?? 0, threshold, unit, at: at ?? sample.at, sample })
  override get message() {
    const { at, rule, threshold, unit, worst } = this
    return `rule ${rule} was broken at ${at}: ${worst} ${unit}, more than ${threshold}; raise its threshold if that is wanted`
  }
}

/**
 * Samples of a running guest's scheduler, from its memory, without stopping it. A reading that was torn is passed over; of
 * too many the stream fails. To be run once the guest's init is up, as it is after `Ktstr.boot`.
 *
 * @since 0.1.0
 * @category reading
 */
export const samples = (vm: Vm, options: MonitorOptions = {}): Stream.Stream<Sample, MonitorError> =>
  Stream.unwrap(Effect.gen(function*() {
    const memory = yield* vm.memory
    const kernel = yield* GuestKernel.fromMemory(memory, "memory of the running guest")
    const sampler = new Sampler(kernel, yield* vm.vcpuThreads)
    let torn = 0
    const next = Effect.suspend(() => {
      const sample = sampler.next()
      if ("kind" in sample) {
        torn++
        return sample.kind === "absent" || torn >= MOST_TORN
          ? Effect.fail(new NotSampled({ why: sample }))
          : Effect.succeedNone
      }
      torn = 0
      return Effect.succeedSome(sample)
    })
    const ticks = Stream.repeatEffectWithSchedule(
      Effect.zipRight(stillThere(vm), next),
      Schedule.spaced(options.every ?? Duration.millis(100))
    )
    return Stream.filterMap(ticks, (sample) => sample)
  })).pipe(Stream.withSpan("Monitor.samples"))

/** A VM that has ended fails; one that runs has memory. */
const stillThere = (vm: Vm): Effect.Effect<void, FormatError | VmEnded> => Effect.asVoid(vm.memory)

/**
 * Judge samples by rules: fails with `RuleBroken` as soon as one is, and does not end otherwise.
 *
 * @since 0.1.0
 * @category reading
 */
export const watch = (
  vm: Vm,
  rules: ReadonlyArray<Rule> = defaultRules,
  options: MonitorOptions = {}
): Effect.Effect<never, RuleBroken | MonitorError> =>
  Effect.suspend(() => {
    const judge = new RuleJudge(rules)
    return Stream.runForEach(samples(vm, options), (sample) => {
      const [broken] = judge.take(sample)
      return broken === undefined ? Effect.void : RuleBroken.of(broken, sample)
    })
  }).pipe(Effect.zipRight(Effect.never), inRealTime)
