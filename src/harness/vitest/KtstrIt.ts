import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { it as vitestIt, type TestContext } from "vitest"
import { HostLacks } from "../../core/Errors.ts"
import { kernelVariable } from "../../core/kernels/FindKernel.ts"
import { KernelResolver } from "../../core/kernels/KernelResolver.ts"
import * as NativeKoffi from "../../core/NativeKoffi.ts"
import { type Claim, recordClaims, type RunSubjects } from "../claim/Claim.ts"
import type { RunRecord } from "../claim/RunRecord.ts"
import type { EngineMode } from "../engine/EngineMode.ts"
import { executeAndKeep } from "../run/ExecuteRun.ts"
import { prepareRun, type RunRequest } from "../run/PrepareRun.ts"
import { RUNS_DIRECTORY } from "../run/RunFolder.ts"
import { runReport } from "../run/RunReport.ts"
import type { Scheduler } from "../run/SchedulerProgram.ts"
import { type Scenario, smoke } from "../scenario/Scenario.ts"
import { topologyOf } from "../scenario/TopologyPresets.ts"
import { type Asked, askedByCommand, tellCommand } from "./AskedByCommand.ts"

/**
 * A test of a scheduler. Left out: the kernel's own scheduler, `KTSTR_KERNEL`, the smoke scenario, 2 CPUs, mode `auto`, seed
 * 1. What is claimed of every run is claimed beside `claims`.
 *
 * @since 0.1.0
 * @category models
 */
export interface KtstrTest<G extends string, S extends string> {
  readonly scheduler?: Scheduler
  /** A kernel id. */
  readonly kernel?: string
  readonly scenario?: Scenario<G, S>
  readonly claims?: (run: RunSubjects<G, S>) => ReadonlyArray<Claim>
  /** A preset's name, or `NODES,LLCS,CORES,THREADS`. */
  readonly topology?: string
  readonly memoryMib?: number
  readonly mode?: EngineMode | "auto"
  /** The first seed. */
  readonly seed?: number
  /** That many tests, of a seed each; 1. */
  readonly seeds?: number
}

/** The longest that vitest waits, in ms: the run ends itself before, with its evidence. */
const TIMEOUT = 3_600_000

const Host = Layer.provideMerge(KernelResolver.layer, Layer.merge(NativeKoffi.layer, NodeContext.layer))

/**
 * A scheduler to test, by the name that reports give it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const scheduler = (name: string, of: Omit<Scheduler, "name">): Scheduler => ({ name, ...of })

/** One of the runs of a test. */
interface Cell {
  readonly kernel: string | undefined
  readonly topology: string | undefined
  readonly seed: number
}

/** The runs of a test with the names of their tests, each with what sets it apart: a kernel, a machine, a seed. */
const cellsOf = <G extends string, S extends string>(
  name: string,
  test: KtstrTest<G, S>,
  asked: Asked | undefined
): ReadonlyArray<readonly [string, Cell]> => {
  const several = <A>(given: ReadonlyArray<A> | undefined, own: A) => given?.length ? given : [own]
  const kernels = several(asked?.kernels, test.kernel)
  const topologies = several(asked?.topologies, test.topology)
  const first = asked?.seed ?? test.seed ?? 1
  const seeds = Array.from({ length: asked?.seeds ?? test.seeds ?? 1 }, (_, n) => first + n)
  return kernels.flatMap((kernel) =>
    topologies.flatMap((topology) =>
      seeds.map((seed) => {
        const apart = [
          ...(kernels.length === 1 ? [] : [kernel]),
          ...(topologies.length === 1 ? [] : [topology]),
          ...(seeds.length === 1 ? [] : [`seed ${seed}`])
        ]
        return [apart.length === 0 ? name : `${name} [${apart.join(", ")}]`, { kernel, topology, seed }] as const
      })
    )
  )
}

/** Run once, and keep the record. */
const runOnce = <G extends string, S extends string>(
  name: string,
  test: KtstrTest<G, S>,
  claims: ReadonlyArray<Claim>,
  { kernel: asks, seed, topology }: Cell,
  asked: Asked | undefined
) =>
  Effect.gen(function*() {
    const kernel = asks ?? Option.getOrUndefined(yield* kernelVariable)
    if (kernel === undefined) {
      return yield* new HostLacks({
        what: "a kernel",
        why: "the test names none",
        hint: "give it kernel: \"debian:7.3-cloud\", or set KTSTR_KERNEL"
      })
    }
    const request: RunRequest = {
      test: name,
      kernel,
      scheduler: test.scheduler,
      scenario: (test.scenario ?? smoke) as Scenario,
      claims,
      topology: topology === undefined ? undefined : yield* topologyOf(topology),
      memoryMib: asked?.memoryMib ?? test.memoryMib,
      mode: asked?.mode ?? test.mode,
      seed
    }
    return yield* executeAndKeep(yield* prepareRun(request), asked?.runsDir ?? RUNS_DIRECTORY)
  })

/** An error whose place is that of the test, not ours. */
const failureAt = (message: string, place: string): Error => {
  const error = new Error(message)
  error.stack = `Error: ${message}\n${place}`
  return error
}

const settle = (
  context: TestContext,
  exit: Exit.Exit<RunRecord, { readonly message: string }>,
  place: string,
  asked: Asked | undefined
): void => {
  if (Exit.isFailure(exit)) {
    const error = Option.getOrUndefined(Cause.failureOption(exit.cause))
    if (error === undefined) throw Cause.squash(exit.cause)
    if (error instanceof HostLacks && process.env["KTSTR_NO_SKIP"] !== "1") {
      tellCommand(asked, { skipped: context.task.name, why: error.message })
      return context.skip(error.message)
    }
    throw failureAt(error.message, place)
  }
  const record = exit.value
  if (record.host.directory !== null) tellCommand(asked, { run: record.host.directory })
  if (record.verdict.outcome === "pass") return
  const report = runReport(record)
  if (record.verdict.outcome === "skip" && process.env["KTSTR_NO_SKIP"] !== "1") return context.skip(report)
  throw failureAt(report, place)
}

/**
 * Declares a test of a scheduler, one for each of its seeds.
 *
 * @since 0.1.0
 * @category models
 */
export type DeclareRun = <const G extends string = "spin" | "pipe" | "timer", const S extends string = "run" | "rest">(
  name: string,
  test: KtstrTest<G, S>
) => void

const ktstr: DeclareRun = (name, test) => {
  const place = (new Error().stack ?? "").split("\n").slice(2).join("\n")
  // what a recorder refuses is told where the test is defined
  const claims = test.claims === undefined ? [] : recordClaims(test.claims)
  const asked = askedByCommand()
  for (const [title, cell] of cellsOf(name, test, asked)) {
    vitestIt(title, { timeout: TIMEOUT }, async (context) => {
      const run = runOnce(name, test, claims, cell, asked).pipe(Effect.provide(Host))
      settle(context, await Effect.runPromiseExit(run, { signal: context.signal }), place, asked)
    })
  }
}

/**
 * Vitest's `it` with `ktstr`.
 *
 * @since 0.1.0
 * @category models
 */
export type KtstrIt = typeof vitestIt & { readonly ktstr: DeclareRun }

/**
 * `it.ktstr(name, test)` is a test of vitest's for each seed, or for each run that `ktstr run` with the file asks for: it boots a guest, puts the scheduler under the scenario, and
 * passes where the verdict does. Fails with a report of one screen that has the command to run it again; is skipped where
 * the host lacks something (with `KTSTR_NO_SKIP=1` it fails).
 *
 * @example
 * import { it, scheduler } from "ktstr/vitest"
 *
 * const simple = scheduler("scx_simple", { binary: "./scx_simple", ops: "simple" })
 * it.ktstr("carries a load", { scheduler: simple, kernel: "debian:7.3-cloud" })
 * @since 0.1.0
 * @category testing
 */
export const it: KtstrIt = Object.assign(
  ((...args: Parameters<typeof vitestIt>) => vitestIt(...args)) as typeof vitestIt,
  vitestIt,
  { ktstr }
)
