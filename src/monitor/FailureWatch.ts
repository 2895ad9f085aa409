import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { exitReport, upReport } from "../kvm/guest/Init.ts"
import { inRealTime } from "../kvm/spec/RealTime.ts"
import type { Vm } from "../kvm/spec/VmEngine.ts"
import { GuestKernel } from "../memory/GuestKernel.ts"
import type { Failure } from "./Failure.ts"
import { CONSOLE_SIGN, FailureSigns, type Sign, signOfConsole } from "./FailureSigns.ts"
import { type SnapshotOptions, take } from "./moments/TakeMoment.ts"
import type { TakenMoment } from "./moments/TakenMoment.ts"
import { type Rule, RuleJudge, type RuleVerdict } from "./Rules.ts"
import type { Sample } from "./Sample.ts"

/** Time between two looks at a running guest's memory, each of which takes well below a millisecond. */
const LOOK = Duration.millis(10)
/** Milliseconds between two looks at how long tasks have been runnable: there can be many. */
const AGES = 100
/** And between two samples. */
const SAMPLES = 200

/**
 * Options of `awaitFailure`.
 *
 * @since 0.1.0
 * @category models
 */
export interface FailureWatchOptions extends SnapshotOptions {
  /**
   * Given a moment before the failure, each time that a task has been runnable for half of the time after which the kernel
   * ends the scheduler: a task that is stuck is still where it is stuck then. If not given, none is taken.
   */
  readonly early?: ((moment: TakenMoment) => void) | undefined
  /** Rules by which samples are judged, five a second: one that is broken is a failure. If not given, none is. */
  readonly rules?: ReadonlyArray<Rule> | undefined
  /** Given a sample at once and then five times a second. If not given, none is taken. */
  readonly sample?: ((sample: Sample) => void) | undefined
}

const noticed = (sign: Sign, seenIn: Failure["seenIn"]): Failure => ({
  ...sign,
  seenIn,
  at: new Date().toISOString()
})

/**
 * Waits for a guest's first failure, while it runs, or for its script to end with 0, which gives undefined. It looks at
 * the guest's memory without stopping it, once more when the script has ended, at its console, and at how its script ends.
 * For a guest whose initramfs `makeInitramfs` made.
 *
 * @since 0.1.0
 * @category constructors
 */
export const awaitFailure = (vm: Vm, options: FailureWatchOptions = {}): Effect.Effect<Failure | undefined> =>
  Effect.gen(function*() {
    const end = yield* Deferred.make<Failure | undefined>()
    const ends = Effect.raceFirst(ofScript(vm), ofGuest(vm)).pipe(
      Effect.intoDeferred(end),
      Effect.zipRight(Effect.never)
    )
    return yield* Effect.raceFirst(Effect.raceFirst(inMemory(vm, end, options), onConsole(vm)), ends)
  }).pipe(inRealTime, Effect.withSpan("Monitor.awaitFailure"))

/** Once the init is up. What cannot be read, as of a kernel without BTF, is said when the guest is stopped. */
const inMemory = (
  vm: Vm,
  end: Deferred.Deferred<Failure | undefined>,
  options: FailureWatchOptions
): Effect.Effect<Failure | undefined> =>
  Effect.gen(function*() {
    yield* vm.awaitReport(upReport)
    const kernel = yield* GuestKernel.fromMemory(yield* vm.memory, "memory of the running guest")
    return yield* watchSigns(vm, new FailureSigns(kernel, yield* vm.vcpuThreads), end, options)
  }).pipe(
    Effect.tapError((error) => Effect.logDebug(`the running guest's memory is not watched: ${error.message}`)),
    Effect.orElse(() => Deferred.await(end))
  )

/** Says whether as many milliseconds have passed since it said so last; however few looks a busy host has let us have. */
const every = (millis: number): () => boolean => {
  let due = 0
  return () => {
    const now = performance.now()
    if (now < due) return false
    due = now + millis
    return true
  }
}

const ruleText = ({ rule, threshold, unit, worst }: RuleVerdict): string =>
  `${rule}: ${Math.round((worst ?? 0) * 1000) / 1000} ${unit}, more than ${threshold}`

/** Until there is a sign, or the `end`, which has less to say than a sign that came shortly before it. */
export const watchSigns = (
  vm: Vm,
  signs: FailureSigns,
  end: Deferred.Deferred<Failure | undefined>,
  { early, rules, sample, ...options }: FailureWatchOptions
): Effect.Effect<Failure | undefined> =>
  Effect.gen(function*() {
    const agesAreDue = every(AGES)
    const sampleIsDue = every(SAMPLES)
    const judge = rules === undefined ? undefined : new RuleJudge(rules)
    while (true) {
      const isOver = yield* Deferred.isDone(end)
      const sign = signs.look()
      if (sign !== undefined) return noticed(sign, "memory")
      // also where the script is over before the first look
      const isSampled = (sample !== undefined || judge !== undefined) && sampleIsDue()
      const sampled = isSampled ? signs.sample() : undefined
      if (sampled !== undefined && !("kind" in sampled)) {
        sample?.(sampled)
        const [broken] = judge?.take(sampled) ?? []
        if (broken !== undefined) return noticed({ kind: "rule", text: ruleText(broken) }, "memory")
      }
      if (isOver) return yield* Deferred.await(end)
      const text = early === undefined || !(agesAreDue() || signs.hasSuspect) ? undefined : signs.lookAtAges()
      if (text !== undefined) early?.(yield* take(vm, { name: "early", cause: "age", text }, options))
      yield* Effect.raceFirst(Effect.sleep(LOOK), Deferred.await(end))
    }
  })

const onConsole = (vm: Vm): Effect.Effect<Failure> =>
  Effect.map(vm.awaitLine(CONSOLE_SIGN), (line) => noticed(signOfConsole(line), "console")).pipe(
    Effect.orElse(() => Effect.never) // `ofGuest` says how the VM ended
  )

/** `exit` is reported by an init that ends the VM itself some time before `awaitReady` knows. */
const ofScript = (vm: Vm): Effect.Effect<Failure | undefined> =>
  Effect.map(vm.awaitReport(exitReport), (line) => statusSign(Number(exitReport.exec(line)?.[2]))).pipe(
    Effect.orElse(() => Effect.never)
  )

const statusSign = (status: number): Failure | undefined =>
  status === 0
    ? undefined
    : { ...noticed({ kind: "script", text: `the script ended with exit status ${status}` }, "report"), status }

const ofGuest = (vm: Vm): Effect.Effect<Failure | undefined> =>
  Effect.match(vm.awaitReady, {
    onSuccess: statusSign,
    onFailure: (error) => {
      const kind = error._tag === "NotReady"
        ? "time-limit"
        : error._tag === "GuestPanicked"
        ? "panic"
        : error._tag === "InitramfsIncomplete"
        ? "script"
        : "vm-ended"
      return noticed({ kind, text: error._tag === "GuestPanicked" ? error.line : error.message }, "host")
    }
  })
