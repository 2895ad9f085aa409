import type * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { kernelVariable } from "../../core/kernels/FindKernel.ts"
import { parseForeignJson } from "../../core/process/ForeignJson.ts"
import { readForeignText } from "../../core/process/ForeignText.ts"
import { type Scenario, smoke } from "../../harness/scenario/Scenario.ts"
import { decodeScenario } from "../../harness/scenario/ValidateScenario.ts"
import type { TopologySpec } from "../../kvm/spec/Topology.ts"
import { FileUnreadable, UsageError } from "../terminal/exit.ts"
import type { axes } from "./runOptions.ts"

type Axes = Command.Command.ParseConfig<typeof axes>

/** One of the runs that a command line asks for: a kernel, a machine and a seed. */
export interface Cell {
  readonly kernel: string
  readonly topology: { readonly name: string; readonly spec: TopologySpec }
  readonly seed: number
}

/** Two CPUs that share a cache. */
const SMALL: Cell["topology"] = { name: "1,1,2,1", spec: { nodes: 1, llcs: 1, cores: 2, threads: 1 } }

/** Every kernel with every topology with every seed: the seeds of a machine one after another. */
const cellsOf = (config: Axes) =>
  Effect.gen(function*() {
    const variable = config.kernel.length > 0 ? Option.none() : yield* kernelVariable
    const kernels = Option.isSome(variable) ? [variable.value] : config.kernel
    if (kernels.length === 0) {
      return yield* new UsageError({ problem: "say which kernel to run: --kernel ID, or KTSTR_KERNEL" })
    }
    const topologies = config.topology.length === 0 ? [SMALL] : config.topology
    const first = Option.getOrElse(config.seed, () => 1)
    const seeds = Array.from({ length: Option.getOrElse(config.seeds, () => 1) }, (_, n) => first + n)
    return kernels.flatMap((kernel) =>
      topologies.flatMap((topology) => seeds.map((seed): Cell => ({ kernel, topology, seed })))
    )
  })

/** The scenarios of `--scenario` and of files; where there are neither these nor test files, the smoke test. */
export const scenariosOf = (
  config: Pick<Axes, "scenario">,
  files: ReadonlyArray<string>,
  tests: ReadonlyArray<string>
) => {
  const paths = [...Option.toArray(config.scenario), ...files]
  return paths.length === 0 && tests.length === 0 ? Effect.succeed([smoke]) : Effect.forEach(paths, readScenario)
}

/** A cell with the scenario that is run in it. */
export type Job = Cell & { readonly scenario: Scenario }

/** Each scenario in each cell. */
export const jobsOf = (config: Axes, scenarios: ReadonlyArray<Scenario>) =>
  scenarios.length === 0
    ? Effect.succeed<ReadonlyArray<Job>>([])
    : Effect.map(cellsOf(config), (cells) =>
      scenarios.flatMap((scenario) => cells.map((cell): Job => ({ ...cell, scenario }))))

const readScenario = (path: string) =>
  Effect.gen(function*() {
    const unreadable = (why: string) =>
      new FileUnreadable({ what: `the scenario ${path}`, why, hint: "give a scenario's JSON file that you can read" })
    const text = yield* Effect.mapError(readForeignText(path), unreadable)
    const json = yield* Either.mapLeft(parseForeignJson(text), (why) => unreadable(`not JSON: ${why}`))
    return yield* decodeScenario(json)
  })
