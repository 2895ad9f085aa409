import type * as Command from "@effect/cli/Command"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as JSONSchema from "effect/JSONSchema"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { basename } from "node:path"
import { kernelVariable } from "../../core/kernels/FindKernel.ts"
import { RunRecord } from "../../harness/claim/RunRecord.ts"
import { executeAndKeep } from "../../harness/run/ExecuteRun.ts"
import { type PreparedRun, prepareRun, type RunRequest } from "../../harness/run/PrepareRun.ts"
import { differences, readRun, RUNS_DIRECTORY } from "../../harness/run/RunFolder.ts"
import { runReport } from "../../harness/run/RunReport.ts"
import { type Scenario, smoke } from "../../harness/scenario/Scenario.ts"
import { decodeScenario } from "../../harness/scenario/ValidateScenario.ts"
import { Live } from "../source/snapshot.ts"
import { escapeControls } from "../terminal/escapeControls.ts"
import { FileUnreadable, NotPassed, UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import { holdSignals } from "../terminal/signals.ts"
import * as Stages from "../terminal/Stages.ts"
import { whyOf } from "../terminal/whyOf.ts"
import type { runOptions } from "./runOptions.ts"

type Config = Command.Command.ParseConfig<typeof runOptions>

const scenarioOf = (path: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const unreadable = (why: string) =>
      new FileUnreadable({ what: `the scenario ${path}`, why, hint: "give --scenario a JSON file that you can read" })
    const text = yield* Effect.mapError(fs.readFileString(path), (error) => unreadable(whyOf(error)))
    const json = yield* Either.try({ try: (): unknown => JSON.parse(text), catch: () => unreadable("not JSON") })
    return yield* decodeScenario(json)
  })

const requestOf = (config: Config) =>
  Effect.gen(function*() {
    const kernel = Option.isSome(config.kernel) ? config.kernel : yield* kernelVariable
    if (Option.isNone(kernel)) {
      return yield* new UsageError({ problem: "say which kernel to run: --kernel ID, or KTSTR_KERNEL" })
    }
    const binary = Option.getOrUndefined(config.scheduler)
    const ops = Option.getOrUndefined(config.ops)
    const expected = Option.getOrUndefined(config.expect)
    if (binary === undefined && (ops !== undefined || expected !== undefined || config.schedulerArg.length > 0)) {
      return yield* new UsageError({ problem: "--ops, --expect and --scheduler-arg go with --scheduler" })
    }
    const scenario: Scenario = Option.isSome(config.scenario) ? yield* scenarioOf(config.scenario.value) : smoke
    return (seed: number): RunRequest => ({
      test: scenario.name,
      kernel: kernel.value,
      scheduler: binary === undefined
        ? undefined
        : {
          name: basename(binary),
          binary,
          args: config.schedulerArg,
          ...(ops === undefined ? {} : { ops }),
          ...(expected === undefined ? {} : { expected })
        },
      scenario,
      topology: Option.getOrUndefined(config.topology),
      memoryMib: Option.getOrUndefined(config.memoryMib),
      mode: Option.getOrUndefined(config.mode),
      seed
    })
  })

/** Its operations, a line each, with times in seconds. */
const planText = ({ determinismKey, mode, planned, kernel }: PreparedRun): string =>
  [
    `mode ${mode.mode} (${mode.why}), kernel ${kernel.release}, determinism key ${determinismKey.slice(0, 16)}`,
    ...planned.groups.map(({ count, first, name }) => `group ${name}: workers ${first} to ${first + count - 1}`),
    ...planned.plan.ops.map(({ a, b, c, code, ns, step }) => {
      const operands = [a, b, c].filter((one) => one !== undefined).map((one) => JSON.stringify(one)).join(" ")
      const time = ns === undefined ? "" : `${ns / 1e9} s`
      return `${step === 0 ? "start" : planned.steps[step - 1]}: ${
        [code, operands, time].filter((one) => one !== "").join(" ")
      }`
    })
  ].join("\n")

const print = (record: RunRecord, json: boolean) =>
  json
    ? Effect.flatMap(Effect.orDie(Schema.encode(RunRecord)(record)), (encoded) =>
      writeText(`${JSON.stringify(encoded)}\n`))
    : writeText(`${escapeControls(runReport(record))}\n`)

const ORDER = ["fail", "inconclusive", "skip", "pass"] as const

/** The exit code of the worst outcome: 0 passed, 1 failed, 4 inconclusive; what was skipped did not fail. */
const endWith = (records: ReadonlyArray<RunRecord>) =>
  Effect.suspend(() => {
    const worst = ORDER.find((outcome) => records.some(({ verdict }) => verdict.outcome === outcome))
    return worst === "fail" || worst === "inconclusive" ? new NotPassed({ outcome: worst }) : Effect.void
  })

/** Run a scenario for each seed; a record each, in the order of the seeds. */
export const run = (config: Config) =>
  Effect.gen(function*() {
    if (config.schema) return yield* writeText(`${JSON.stringify(JSONSchema.make(RunRecord))}\n`)
    yield* holdSignals
    const request = yield* requestOf(config)
    const first = Option.getOrElse(config.seed, () => 1)
    if (config.plan) return yield* writeText(`${escapeControls(planText(yield* prepareRun(request(first))))}\n`)
    const directory = Option.getOrElse(config.runsDir, () => RUNS_DIRECTORY)
    const records: Array<RunRecord> = []
    for (let n = 0; n < Option.getOrElse(config.seeds, () => 1); n++) {
      const record = yield* executeAndKeep(yield* prepareRun(request(first + n)), directory)
      yield* print(record, config.json)
      records.push(record)
    }
    yield* endWith(records)
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

/** Run a kept run again; its record is kept too. */
export const replay = (config: {
  readonly run: string
  readonly runsDir: Option.Option<string>
  readonly json: boolean
}) =>
  Effect.gen(function*() {
    yield* holdSignals
    const directory = Option.getOrElse(config.runsDir, () => RUNS_DIRECTORY)
    const before = yield* readRun(config.run, directory)
    const { machine, scheduler } = before
    const prepared = yield* prepareRun({
      test: before.test,
      kernel: before.kernel.id,
      scheduler: scheduler === null
        ? undefined
        : {
          name: scheduler.name,
          binary: scheduler.path,
          args: scheduler.arguments,
          ops: scheduler.ops,
          ...(scheduler.expected === null ? {} : { expected: scheduler.expected }),
          attachWithin: `${scheduler.attachLimit} nanos`
        },
      scenario: before.scenario as Scenario,
      claims: before.claims,
      topology: { nodes: machine.nodes, llcs: machine.llcs, cores: machine.cores, threads: machine.threads },
      memoryMib: machine.memoryMib,
      mode: before.mode.mode,
      seed: before.seed
    })
    const after = yield* executeAndKeep(prepared, directory)
    yield* print(after, config.json)
    const parts = differences(before, after)
    const same = before.determinismKey === after.determinismKey
    const said = parts.length === 0
      ? "the same as the run, except for the host's clock"
      : `${same ? "different from the run" : "not the same inputs as the run's, and different"} in ${parts.join(", ")}`
    if (!config.json) yield* writeText(`  ${said}\n`)
    yield* endWith([after])
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))
