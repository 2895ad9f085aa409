import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type { Topology } from "../../kvm/spec/Topology.ts"
import { MOST_WORKERS } from "../agent/Protocol.ts"
import { nanosOf } from "./GuestTime.ts"
import { resolveCpus } from "./ResolveCpus.ts"
import { type CgroupDef, type CpuSpec, type Op, Scenario } from "./Scenario.ts"
import { togetherOf } from "./WorkTypes.ts"

/**
 * One thing that is wrong with a scenario: where (`groups.a.cpus`), what, and what to do.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Problem = Schema.Struct({ path: Schema.String, problem: Schema.String, fix: Schema.String })
/**
 * The type that the Schema `Problem` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Problem = typeof Problem.Type

/**
 * A scenario cannot be run; all that is wrong with it. Nothing was booted.
 *
 * @since 0.1.0
 * @category errors
 */
export class ScenarioInvalid extends Schema.TaggedError<ScenarioInvalid>("ktstr/ScenarioInvalid")("ScenarioInvalid", {
  problems: Schema.NonEmptyArray(Problem)
}) {
  override get message() {
    const lines = this.problems.map(({ fix, path, problem }) => `${path === "" ? "it" : path}: ${problem}; ${fix}`)
    return lines.length === 1
      ? `the scenario is invalid: ${lines[0]}`
      : `the scenario has ${lines.length} problems: ${lines.map((line, index) => `(${index + 1}) ${line}`).join(" ")}`
  }
}

/** Workers that a group starts with. */
export const workersOf = (def: CgroupDef, topology: Topology): number =>
  def.workers === undefined ? 0 : typeof def.workers === "number" ? def.workers : def.workers.perCpu * topology.cpus

/** The name that is most like a wrong one. */
const nearest = (wrong: string, names: ReadonlyArray<string>): string | undefined => {
  const distance = (a: string, b: string): number => {
    let row = Array.from({ length: b.length + 1 }, (_, index) => index)
    for (let i = 1; i <= a.length; i++) {
      const next = [i]
      for (let j = 1; j <= b.length; j++) {
        next.push(Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)))
      }
      row = next
    }
    return row[b.length]
  }
  return names.map((name) => ({ name, far: distance(wrong, name) })).sort((a, b) => a.far - b.far).at(0)?.name
}

/** The agent knows 64 programs, a scheduler among them. */
const MOST_PAYLOADS = 63

/** How a group stands at a point of the scenario. */
type Standing = "absent" | "running" | "frozen" | "stopped"

class Checker {
  readonly problems: Array<Problem> = []
  readonly #standing = new Map<string, Standing>()
  readonly #run = new Set<string>()
  #attached: boolean

  constructor(readonly scenario: Scenario, readonly topology: Topology, hasScheduler: boolean) {
    this.#attached = hasScheduler
    for (const [name, def] of Object.entries(scenario.groups)) {
      this.#standing.set(name, def.starts === "later" ? "absent" : "running")
    }
    Object.entries(scenario.groups).forEach(([name, def]) => this.group(`groups.${name}`, def))
    const workers = Object.values(scenario.groups).reduce((sum, def) => sum + workersOf(def, topology), 0)
    if (workers > MOST_WORKERS) {
      this.add("groups", `they have ${workers} workers`, `give at most ${MOST_WORKERS} in all`)
    }
    const names = new Set<string>()
    for (const [name, { group }] of Object.entries(scenario.payloads ?? {})) {
      if (group !== undefined) this.exists(`payloads.${name}.group`, group)
    }
    if (Object.keys(scenario.payloads ?? {}).length > MOST_PAYLOADS) {
      this.add("payloads", "too many", `give at most ${MOST_PAYLOADS}`)
    }
    scenario.steps.forEach((step, index) => {
      const path = `steps[${index}]`
      if (names.has(step.name)) this.add(`${path}.name`, `another step is called ${step.name}`, "rename one of them")
      names.add(step.name)
      step.do?.forEach((op, n) => this.op(`${path}.do[${n}]`, op, hasScheduler))
    })
    const total = scenario.steps.reduce((sum, { hold }) => sum + nanosOf(hold), 0)
    if (total > 3600e9) this.add("steps", "they take more than an hour together", "shorten their holds")
  }

  add(path: string, problem: string, fix: string): void {
    this.problems.push({ path, problem, fix })
  }

  cpus(path: string, spec: CpuSpec | undefined): void {
    if (spec === undefined) return
    Either.match(resolveCpus(spec, this.topology), {
      onLeft: ({ fix, problem }) => this.add(path, problem, fix),
      onRight: () => undefined
    })
  }

  group(path: string, def: CgroupDef): void {
    this.cpus(`${path}.cpus`, def.cpus)
    this.cpus(`${path}.affinity`, def.affinity)
    const workers = workersOf(def, this.topology)
    if (workers > 0 && def.work === undefined) this.add(path, "it has workers without work", "add work, as in spin")
    if (def.work !== undefined && def.workers === undefined) {
      this.add(path, "it has work and no workers", "add workers: a number, or perCpu")
    }
    const together = def.work === undefined ? 1 : togetherOf(def.work)
    if (workers % together !== 0) {
      const less = Math.floor(workers / together) * together
      this.add(
        `${path}.workers`,
        `${workers} workers, where ${together} of ${def.work?.type} work together`,
        `give ${less > 0 ? `${less} or ` : ""}${less + together}`
      )
    }
    if (def.quota !== undefined) this.quota(`${path}.quota`, def.quota)
  }

  /** kernel/sched/core.c `tg_set_cfs_bandwidth`, v6.12: a quota of at least 1 ms, a period of 1 ms to 1 s. */
  quota(path: string, { period = "100 millis", time }: { readonly time: string; readonly period?: string }): void {
    if (nanosOf(time) < 1e6) this.add(path, `a quota of ${time}`, "give at least 1 millis")
    if (nanosOf(period) < 1e6 || nanosOf(period) > 1e9) {
      this.add(path, `a period of ${period}`, "give 1 millis to 1 second")
    }
  }

  payload(path: string, op: Extract<Op, { readonly payload: string }>): void {
    const names = Object.keys(this.scenario.payloads ?? {})
    if (!names.includes(op.payload)) {
      const like = nearest(op.payload, names)
      const fix = like === undefined ? "declare it in payloads" : `did you mean ${like}?`
      return this.add(`${path}.payload`, `no such payload: ${op.payload}`, fix)
    }
    const group = this.scenario.payloads?.[op.payload].group
    if (op.op === "run" && group !== undefined && this.#standing.has(group)) {
      this.needs(`${path}.payload`, group, ["running", "stopped"])
    }
    if (op.op === "run") this.#run.add(op.payload)
    else if (!this.#run.has(op.payload)) {
      this.add(`${path}.payload`, `${op.payload} does not run at this step`, "run it in a step before")
    }
  }

  op(path: string, op: Op, hasScheduler: boolean): void {
    if ("payload" in op) return this.payload(path, op)
    if (!("group" in op)) {
      if (!hasScheduler) {
        return this.add(path, `${op.op} needs a scheduler, and the test has none`, "give the test a scheduler")
      }
      if (this.#attached === (op.op === "attach")) {
        this.add(path, `the scheduler is ${this.#attached ? "attached already" : "not attached then"}`, "take it out")
      }
      this.#attached = op.op !== "detach"
      return
    }
    if (!this.exists(`${path}.group`, op.group)) return
    if (op.op === "move" && this.exists(`${path}.to`, op.to)) {
      if (op.to === op.group) this.add(`${path}.to`, "a move into the same group", "name another group")
      this.needs(`${path}.to`, op.to, ["running", "frozen", "stopped"])
    }
    if ("cpus" in op) this.cpus(`${path}.cpus`, op.cpus)
    if (op.op === "setQuota") this.quota(path, op)
    const after: Partial<Record<Op["op"], readonly [ReadonlyArray<Standing>, Standing]>> = {
      add: [["absent"], "running"],
      remove: [["running", "stopped"], "absent"],
      stop: [["running"], "stopped"],
      freeze: [["running"], "frozen"],
      thaw: [["frozen"], "running"]
    }
    const [before, then] = after[op.op] ?? [["running", "frozen", "stopped"], undefined]
    if (this.needs(`${path}.group`, op.group, before) && then !== undefined) this.#standing.set(op.group, then)
  }

  exists(path: string, group: string): boolean {
    if (this.#standing.has(group)) return true
    const like = nearest(group, [...this.#standing.keys()])
    this.add(path, `no such group: ${group}`, like === undefined ? "declare it in groups" : `did you mean ${like}?`)
    return false
  }

  needs(path: string, group: string, wanted: ReadonlyArray<Standing>): boolean {
    const is = this.#standing.get(group) ?? "absent"
    if (wanted.includes(is)) return true
    this.add(path, `the group ${group} is ${is} at this step`, `it must be ${wanted.join(" or ")}`)
    return false
  }
}

/**
 * The scenario of a JSON document, or all that is wrong with its form.
 *
 * @since 0.1.0
 * @category parsing
 */
export const decodeScenario = (json: unknown): Either.Either<Scenario, ScenarioInvalid> =>
  Either.mapLeft(
    Schema.decodeUnknownEither(Scenario)(json),
    (error) => {
      const problems = ParseResult.ArrayFormatter.formatErrorSync(error).map(({ message, path }) => ({
        path: pathOf(path),
        problem: message.replaceAll(/\s+/g, " ").slice(0, 300),
        fix: "see `ktstr run --schema`"
      }))
      const [first = { path: "", problem: error.message, fix: "see `ktstr run --schema`" }, ...rest] = problems
      return new ScenarioInvalid({ problems: [first, ...rest.slice(0, 49)] })
    }
  ) as Either.Either<Scenario, ScenarioInvalid>

const pathOf = (path: ReadonlyArray<PropertyKey>): string =>
  path.map((part) => typeof part === "number" ? `[${part}]` : `.${String(part)}`).join("").replace(/^\./, "")

/**
 * Whether a scenario can be run on that machine; all that is wrong with it. Its form is looked at too: a name of another form
 * would lead out of the guest's directory of programs.
 *
 * @since 0.1.0
 * @category parsing
 */
export const validateScenario = (
  scenario: Scenario,
  topology: Topology,
  hasScheduler: boolean
): Either.Either<Scenario, ScenarioInvalid> =>
  Either.flatMap(decodeScenario(scenario), (valid) => {
    const [first, ...rest] = new Checker(valid, topology, hasScheduler).problems
    return first === undefined ? Either.right(valid) : Either.left(new ScenarioInvalid({ problems: [first, ...rest] }))
  })
