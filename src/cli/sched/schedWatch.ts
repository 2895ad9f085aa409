import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { freezeAndAttach } from "../../Ktstr.ts"
import type { Vm } from "../../kvm/spec/VmEngine.ts"
import { samples } from "../../monitor/Monitor.ts"
import { readFrozen } from "../../monitor/ReadSampled.ts"
import { RuleJudge, type RuleVerdict } from "../../monitor/Rules.ts"
import { type Sample, type Sampled, sampleOf } from "../../monitor/Sample.ts"
import type { Target } from "../source/options.ts"
import { bootTarget, Live } from "../source/snapshot.ts"
import { bold, dim, red } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { UsageError } from "../terminal/exit.ts"
import { writeLive, writeScreen } from "../terminal/Output.ts"
import { duration } from "../terminal/Stages.ts"
import * as Stages from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"
import { restartTimeLimit } from "../terminal/timeLimit.ts"

interface Config extends Target {
  readonly every: Duration.Duration
  readonly ndjson: boolean
  readonly running: boolean
  readonly count: Option.Option<number>
}

/** Boot a VM and read it again and again, frozen for each reading unless it is to run on, until Ctrl-C or `--count`. */
export const watch = (config: Config) =>
  Effect.gen(function*() {
    if (Option.isNone(config.kernel) || config.live) {
      return yield* new UsageError({ problem: "say what to watch: --kernel ID boots a VM" })
    }
    const { name, vm } = yield* Effect.provide(bootTarget(config), Stages.layer)
    const judge = new RuleJudge()
    const all = config.running ? samples(vm, { every: config.every }) : frozenSamples(vm, name, config.every)
    const wanted = Option.match(config.count, { onNone: () => all, onSome: (count) => Stream.take(all, count) })
    yield* Stream.runForEachWhile( // until nobody reads
      Stream.tap(wanted, () => restartTimeLimit(Duration.toMillis(config.every))),
      (sample) => {
        judge.take(sample)
        const { verdicts } = judge
        return config.ndjson
          ? writeLive(`${JSON.stringify({ record: "sample", ...sample, verdicts })}\n`)
          : writeScreen(textOf(sample) + verdictsText(verdicts))
      }
    )
  }).pipe(Effect.scoped, Effect.provide(Live))

const frozenSamples = (vm: Vm, name: string, every: Duration.Duration) => {
  let before: Sampled | undefined
  const reading = Effect.scoped(Effect.map(freezeAndAttach(vm, name), ({ kernel }) => readFrozen(kernel)))
  return Stream.map(Stream.repeatEffectWithSchedule(reading, Schedule.fixed(every)), (sampled) => {
    const sample = sampleOf(sampled, before)
    before = sampled
    return sample
  })
}

/** Rules that were broken, then those that have not been judged. */
const verdictsText = (verdicts: ReadonlyArray<RuleVerdict>): string => {
  const failed = verdicts.filter(({ outcome }) => outcome === "fail")
  const open = verdicts.filter(({ outcome }) => outcome === "inconclusive").map(({ rule }) => rule)
  return [
    ...failed.map(({ at, rule, threshold, unit, worst }) =>
      `${red(`rule ${rule} broken`)} at ${at?.slice(11, 19)}: at worst ${
        short(worst ?? 0)
      } ${unit}, allowed ${threshold}\n`
    ),
    dim(
      `${verdicts.length - failed.length - open.length} rules hold${
        open.length === 0 ? "" : `; not judged: ${open.join(", ")}`
      }\n`
    )
  ].join("")
}

const short = (value: number): string => value.toLocaleString("en", { maximumFractionDigits: 1, useGrouping: false })

const textOf = ({ at, cpus, eventsPerSecond, findings, oldest, queues, scheduler }: Sample): string => {
  const events = Object.entries(eventsPerSecond ?? {}).map(([event, by]) => `${event.replace(/^SCX_EV_/, "")} ${by}/s`)
  const head = `${bold(at.slice(11, 19))} ${scheduler === null ? "no sched_ext scheduler" : escapeLine(scheduler)}`
  return [
    `${head}${events.length === 0 ? "" : dim(` · ${escapeLine(events.join(" · "))}`)}\n`,
    table(
      ["CPU", "RUNNABLE", "SWITCHES/s", "RUNS"],
      cpus.map(({ cpu, nr_running, runs, switchesPerSecond }) => [
        String(cpu),
        String(nr_running),
        String(switchesPerSecond ?? ""),
        escapeLine(runs)
      ]),
      [0, 1, 2]
    ),
    queues.length === 0 ? "" : table(
      ["QUEUE", "TASKS", "CHANGE"],
      queues.map((
        { change, name, nr }
      ) => [name, String(nr), change === null || change === 0 ? "" : `${change > 0 ? "+" : ""}${change}`]),
      [1, 2]
    ),
    oldest === null
      ? ""
      : `waits longest: ${escapeLine(oldest.comm)}[${oldest.pid}] of CPU ${oldest.cpu}, ${duration(oldest.millis)}\n`,
    ...findings.map(({ name, text }) => `${red(name)}  ${escapeLine(text)}\n`)
  ].join("")
}
