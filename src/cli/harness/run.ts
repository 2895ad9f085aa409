import type * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import * as JSONSchema from "effect/JSONSchema"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { basename, resolve } from "node:path"
import { RunRecord } from "../../harness/claim/RunRecord.ts"
import { executeAndKeep } from "../../harness/run/ExecuteRun.ts"
import { type PreparedRun, prepareRun, type RunRequest } from "../../harness/run/PrepareRun.ts"
import { differences, readRun, RUNS_DIRECTORY } from "../../harness/run/RunFolder.ts"
import { runReport } from "../../harness/run/RunReport.ts"
import type { Scenario } from "../../harness/scenario/Scenario.ts"
import type { Asked } from "../../harness/vitest/AskedByCommand.ts"
import { Live } from "../source/snapshot.ts"
import { escapeControls, escapeLine } from "../terminal/escapeControls.ts"
import { NotPassed, UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import { holdSignals } from "../terminal/signals.ts"
import * as Stages from "../terminal/Stages.ts"
import { writeMessage } from "../terminal/Streams.ts"
import { table } from "../terminal/Table.ts"
import { type Cell, type Job, jobsOf, scenariosOf } from "./cells.ts"
import { compareRepeats, NotDeterministic, type Runs } from "./repeats.ts"
import type { runOptions } from "./runOptions.ts"
import { filesByKind, runTestFiles } from "./testFiles.ts"

type Config = Command.Command.ParseConfig<typeof runOptions>

/** The request for the run of each job. */
const requestOf = (config: Config) =>
  Effect.gen(function*() {
    const binary = Option.getOrUndefined(config.scheduler)
    const ops = Option.getOrUndefined(config.ops)
    const expected = Option.getOrUndefined(config.expect)
    if (binary === undefined && (ops !== undefined || expected !== undefined || config.schedulerArg.length > 0)) {
      return yield* new UsageError({ problem: "--ops, --expect and --scheduler-arg go with --scheduler" })
    }
    return ({ kernel, scenario, seed, topology }: Job): RunRequest => ({
      test: scenario.name,
      kernel,
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
      topology: topology.spec,
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
    : writeText(`${runReport(record)}\n`)

const ORDER = ["fail", "inconclusive", "skip", "pass"] as const

/** The exit code of the worst outcome: 0 passed, 1 failed, 4 inconclusive; what was skipped did not fail. */
const endWith = (records: ReadonlyArray<RunRecord>) =>
  Effect.suspend(() => {
    const worst = ORDER.find((outcome) => records.some(({ verdict }) => verdict.outcome === outcome))
    return worst === "fail" || worst === "inconclusive" ? new NotPassed({ outcome: worst }) : Effect.void
  })

/** The runs of several cells, a line each, and how many of them passed. Where there are several tests, each line names its own. */
const tableOf = (runs: Runs, { differing, repeated, schedules }: ReturnType<typeof compareRepeats>): string => {
  const named = new Set(runs.map(([, { test }]) => test)).size > 1
  const rows = runs.map(([{ kernel, seed, topology }, { host, test, verdict: { details, outcome } }]) => {
    const worst = details.find((one) => one.outcome !== "pass")
    const why = escapeLine(worst?.label ?? "")
    return [outcome, ...(named ? [escapeLine(test)] : []), kernel, topology.name, String(seed), host.id, why]
  })
  const passed = runs.filter(([, { verdict }]) => verdict.outcome === "pass").length
  const head = ["OUTCOME", ...(named ? ["TEST"] : []), "KERNEL", "TOPOLOGY", "SEED", "RUN", "WHY"]
  const same = repeated === 0
    ? ""
    : `; ${repeated - differing.length} of ${repeated} repeated ones are the same as their first`
  const count = `${schedules} different schedule${schedules === 1 ? "" : "s"}`
  return `${table(head, rows, [head.indexOf("SEED")])}${passed} of ${runs.length} runs passed, ${count}${same}\n`
}

/** Options that say nothing to test files, whose tests name their own schedulers. */
const notOfTests = (config: Config): ReadonlyArray<readonly [string, boolean]> => [
  ["--plan", config.plan],
  ["--repeat", Option.isSome(config.repeat)],
  ["--scheduler", Option.isSome(config.scheduler)]
]

/** The command line as `it.ktstr` takes it. */
const askedOf = (config: Config, directory: string): Omit<Asked, "log"> => ({
  kernels: config.kernel,
  topologies: config.topology.map(({ name }) => name),
  seed: Option.getOrUndefined(config.seed),
  seeds: Option.getOrUndefined(config.seeds),
  mode: Option.getOrUndefined(config.mode),
  memoryMib: Option.getOrUndefined(config.memoryMib),
  runsDir: resolve(directory)
})

/** The machine of a kept run, as a cell. */
const cellOf = ({ kernel, machine: { cores, llcs, nodes, threads }, seed }: RunRecord): Cell => ({
  kernel: kernel.id,
  topology: { name: [nodes, llcs, cores, threads].join(","), spec: { nodes, llcs, cores, threads } },
  seed
})

/** Run test files; gives their runs, and whether a test failed that is none. */
const runTests = (config: Config, files: ReadonlyArray<string>, directory: string) =>
  Effect.gen(function*() {
    const none: { readonly runs: Runs; readonly failed: boolean } = { runs: [], failed: false }
    if (files.length === 0) return none
    const wrong = notOfTests(config).find(([, given]) => given)
    if (wrong !== undefined) {
      return yield* new UsageError({ problem: `${wrong[0]} goes with scenarios, and ${files[0]} is a test file` })
    }
    const tested = yield* runTestFiles(files, askedOf(config, directory))
    const runs = yield* Effect.forEach(tested.runs, (path) =>
      Effect.map(readRun(path, directory), (record) => [cellOf(record), record] as const))
    const others = [
      ...tested.failed.map(({ file, test, why }) =>
        `FAIL  ${file} > ${test}: ${why}`
      ),
      ...tested.skipped.map((skipped) => `SKIP  ${skipped}`),
      ...(tested.passed === 0 && tested.failed.length === 0 && runs.length === 0 ? ["nothing was tested"] : [])
    ]
    writeMessage(others.map((line) => `${escapeControls(line)}\n`).join(""))
    return { runs, failed: tested.failed.length > 0 }
  })

/** Run a scenario in each cell, and test files; a record each, in their order. Nothing boots before all is found. */
export const run = (config: Config) =>
  Effect.gen(function*() {
    if (config.schema) return yield* writeText(`${JSON.stringify(JSONSchema.make(RunRecord))}\n`)
    yield* holdSignals
    const files = filesByKind(config.files)
    const request = yield* requestOf(config)
    const jobs = yield* jobsOf(config, yield* scenariosOf(config, files.scenarios, files.tests))
    const ready = new Map<Job, PreparedRun>()
    for (const job of jobs.filter(({ seed }) => seed === jobs[0].seed)) {
      const prepared = yield* prepareRun(request(job))
      ready.set(job, prepared)
      if (config.plan) yield* writeText(`${escapeControls(planText(prepared))}\n`)
    }
    const directory = Option.getOrElse(config.runsDir, () => RUNS_DIRECTORY)
    const tested = yield* runTests(config, files.tests, directory)
    if (config.plan) return
    const turns = Option.getOrElse(config.repeat, () => 1)
    const single = jobs.length * turns + tested.runs.length === 1
    const show = (record: RunRecord) =>
      config.json || single || record.verdict.outcome !== "pass" ? print(record, config.json) : Effect.void
    yield* Effect.forEach(tested.runs, ([, record]) => show(record))
    const runs: Array<readonly [Cell, RunRecord]> = [...tested.runs]
    for (const job of jobs) {
      const prepared = ready.get(job) ?? (yield* prepareRun(request(job)))
      for (let turn = 0; turn < turns; turn++) {
        const record = yield* executeAndKeep(prepared, directory)
        runs.push([job, record])
        yield* show(record)
      }
    }
    const compared = compareRepeats(runs)
    if (!single && !config.json && runs.length > 0) yield* writeText(tableOf(runs, compared))
    const { differing, repeated } = compared
    if (differing.length > 0) yield* new NotDeterministic({ repeated, differing })
    if (tested.failed) return yield* new NotPassed({ outcome: "fail" })
    yield* endWith(runs.map(([, record]) => record))
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

/** The clock of exact guests whose records do not say it; it stays, whatever new ones run by. */
const clockBefore = (mode: RunRecord["mode"]["mode"]) => ({ shift: 1, sliceMicros: mode === "exact" ? 50 : 0 })

/** Run a kept run again, by the clock that it had; its record is kept too. */
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
      clock: before.mode.clock ?? clockBefore(before.mode.mode),
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
