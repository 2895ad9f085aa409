import * as Schema from "effect/Schema"
import { GuestTime } from "./GuestTime.ts"
import { WorkType } from "./WorkTypes.ts"

const optional = <A, I, R>(schema: Schema.Schema<A, I, R>) => Schema.optionalWith(schema, { exact: true })
const Index = Schema.Int.pipe(Schema.between(0, 1023))
const Name = Schema.String.pipe(
  Schema.pattern(/^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,62}$/, {
    message: () => "expected a name of letters, digits, spaces, _ . + and -, at most 63 characters"
  })
)
/** A group's name is a directory's and, cut to 15 bytes, its workers'. */
const GroupName = Schema.String.pipe(
  Schema.pattern(/^[A-Za-z0-9][A-Za-z0-9_-]{0,30}$/, {
    message: () => "expected a group's name of letters, digits, _ and -, at most 31 characters"
  })
)

/** The guest's kernel ends each at its first NUL. */
const Argument = Schema.String.pipe(Schema.pattern(/^[^\0]*$/, { message: () => "expected an argument without a NUL" }))

/**
 * CPUs of the guest, worked out on the host by its topology: all, those of an LLC or a NUMA node, from one fraction of them
 * to another, or a list.
 *
 * @since 0.1.0
 * @category schemas
 */
export const CpuSpec = Schema.Union(
  Schema.Literal("all"),
  Schema.Struct({ llc: Index }),
  Schema.Struct({ node: Index }),
  Schema.Struct({
    fraction: Schema.Tuple(Schema.Number.pipe(Schema.between(0, 1)), Schema.Number.pipe(Schema.between(0, 1)))
  }),
  Schema.Struct({
    list: Schema.String.pipe(
      Schema.pattern(/^\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*$/, {
        message: () => "expected a list of CPUs, as in 0-3,7"
      })
    )
  })
).annotations({ identifier: "CpuSpec" })
/**
 * The type that the Schema `CpuSpec` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type CpuSpec = typeof CpuSpec.Type

/** A scheduling class of workers, with the priority of a real-time one. */
const Policy = Schema.Union(
  Schema.Literal("other", "batch", "idle", "ext"),
  Schema.Struct({ fifo: Schema.Int.pipe(Schema.between(1, 90)) }),
  Schema.Struct({ rr: Schema.Int.pipe(Schema.between(1, 90)) })
)

/**
 * A program of the host that a step runs in the guest, with the libraries that it needs; in a group, or outside of all.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Payload = Schema.Struct({
  program: Schema.NonEmptyString.annotations({ description: "its path on the host" }),
  args: optional(Schema.Array(Argument).pipe(Schema.maxItems(255))),
  group: optional(GroupName)
}).annotations({ identifier: "Payload" })
/**
 * The type that the Schema `Payload` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Payload = typeof Payload.Type

/**
 * A control group and the workers in it. `starts: "later"` waits for an operation that adds it.
 *
 * @since 0.1.0
 * @category schemas
 */
export const CgroupDef = Schema.Struct({
  workers: optional(
    Schema.Union(
      Schema.Int.pipe(Schema.between(0, 512)),
      Schema.Struct({ perCpu: Schema.Int.pipe(Schema.between(1, 64)) })
    )
  ),
  work: optional(WorkType),
  cpus: optional(CpuSpec),
  weight: optional(Schema.Int.pipe(Schema.between(1, 10_000))),
  quota: optional(Schema.Struct({ time: GuestTime, period: optional(GuestTime) })),
  affinity: optional(CpuSpec),
  nice: optional(Schema.Int.pipe(Schema.between(-20, 19))),
  policy: optional(Policy),
  starts: optional(Schema.Literal("scenario", "later"))
}).annotations({ identifier: "CgroupDef" })
/**
 * The type that the Schema `CgroupDef` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type CgroupDef = typeof CgroupDef.Type

/**
 * Something that is done at the beginning of a step.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Op = Schema.Union(
  Schema.Struct({ op: Schema.Literal("add", "remove", "stop", "freeze", "thaw", "clearCpus"), group: GroupName }),
  Schema.Struct({ op: Schema.Literal("setCpus", "setAffinity"), group: GroupName, cpus: CpuSpec }),
  Schema.Struct({
    op: Schema.Literal("setWeight"),
    group: GroupName,
    weight: Schema.Int.pipe(Schema.between(1, 10_000))
  }),
  Schema.Struct({ op: Schema.Literal("setQuota"), group: GroupName, time: GuestTime, period: optional(GuestTime) }),
  Schema.Struct({ op: Schema.Literal("setNice"), group: GroupName, nice: Schema.Int.pipe(Schema.between(-20, 19)) }),
  Schema.Struct({ op: Schema.Literal("setPolicy"), group: GroupName, policy: Policy }),
  Schema.Struct({ op: Schema.Literal("move"), group: GroupName, to: GroupName }),
  Schema.Struct({ op: Schema.Literal("run", "kill"), payload: GroupName }),
  Schema.Struct({ op: Schema.Literal("wait"), payload: GroupName, within: GuestTime }),
  Schema.Struct({ op: Schema.Literal("attach", "detach", "restart") })
).annotations({ identifier: "Op" })
/**
 * The type that the Schema `Op` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Op = typeof Op.Type

/**
 * A part of a scenario: its operations, then its time. What is measured of a step is from the end of its operations on.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Step = Schema.Struct({
  name: Name,
  do: optional(Schema.Array(Op)),
  hold: GuestTime
}).annotations({ identifier: "Step" })

/**
 * A workload as a value: groups of workers that live as long as it, and steps. JSON both ways; version 1.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Scenario = Schema.Struct({
  version: Schema.Literal(1),
  name: Name,
  groups: Schema.Record({ key: GroupName, value: CgroupDef }),
  payloads: optional(Schema.Record({ key: GroupName, value: Payload })),
  steps: Schema.NonEmptyArray(Step).pipe(Schema.maxItems(256))
  // a member that is not known says something that would not be done, and a name of another form may lead anywhere
}).annotations({ identifier: "Scenario", parseOptions: { errors: "all", onExcessProperty: "error" } })

/**
 * A step of a scenario; `N` is its name.
 *
 * @since 0.1.0
 * @category models
 */
export interface Step<N extends string = string> {
  readonly name: N
  readonly do?: ReadonlyArray<Op>
  readonly hold: string
}

/**
 * A scenario whose groups are `G` and whose steps are `S`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Scenario<G extends string = string, S extends string = string> {
  readonly version: 1
  readonly name: string
  readonly groups: { readonly [Group in G]: CgroupDef }
  readonly payloads?: { readonly [name: string]: Payload }
  readonly steps: readonly [Step<S>, ...ReadonlyArray<Step<S>>]
}

/**
 * A scenario. `steps` is called once, with a handle of each group.
 *
 * @example
 * import { cgroup, scenario, step, work } from "ktstr/harness"
 *
 * const load = scenario("load", {
 *   groups: { a: cgroup({ workers: 4, work: work.spin() }) },
 *   steps: () => [step("run", { hold: "2 seconds" })]
 * })
 * @since 0.1.0
 * @category constructors
 */
export const scenario = <const G extends Readonly<Record<string, CgroupDef>>, const S extends string>(
  name: string,
  of: {
    readonly groups: G
    readonly payloads?: Readonly<Record<string, Payload>>
    readonly steps: (groups: { readonly [Name in keyof G & string]: Name }) => readonly [Step<S>, ...Array<Step<S>>]
  }
): Scenario<keyof G & string, S> => {
  const handles = Object.fromEntries(Object.keys(of.groups).map((group) => [group, group]))
  return {
    version: 1,
    name,
    groups: of.groups,
    ...(of.payloads === undefined ? {} : { payloads: of.payloads }),
    steps: of.steps(handles as { readonly [Name in keyof G & string]: Name })
  }
}

/**
 * A step of a scenario.
 *
 * @since 0.1.0
 * @category constructors
 */
export const step = <const N extends string>(
  name: N,
  of: { readonly do?: ReadonlyArray<Op>; readonly hold: string }
): Step<N> => ({ name, ...of })

/**
 * A control group with workers.
 *
 * @since 0.1.0
 * @category constructors
 */
export const cgroup = (def: CgroupDef): CgroupDef => def

/**
 * The maker of one type of work, from what differs from its defaults.
 *
 * @since 0.1.0
 * @category models
 */
export type WorkOf<T extends WorkType["type"]> = (
  parameters?: Omit<Extract<WorkType, { readonly type: T }>, "type">
) => WorkType
const workOf = <T extends WorkType["type"]>(type: T): WorkOf<T> => (parameters) => ({ type, ...parameters }) as WorkType

/**
 * Work of workers, by type; see `WorkType`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const work = {
  spin: workOf("spin"),
  yield: workOf("yield"),
  mixed: workOf("mixed"),
  bursty: workOf("bursty"),
  timer: workOf("timer"),
  pipe: workOf("pipe"),
  futexPair: workOf("futexPair"),
  fanOut: workOf("fanOut"),
  mutex: workOf("mutex"),
  forkExit: workOf("forkExit"),
  pageFaults: workOf("pageFaults"),
  affinityChurn: workOf("affinityChurn"),
  niceSweep: workOf("niceSweep")
}

/**
 * Operations of a step.
 *
 * @since 0.1.0
 * @category constructors
 */
export const op = {
  add: (group: string): Op => ({ op: "add", group }),
  remove: (group: string): Op => ({ op: "remove", group }),
  stop: (group: string): Op => ({ op: "stop", group }),
  freeze: (group: string): Op => ({ op: "freeze", group }),
  thaw: (group: string): Op => ({ op: "thaw", group }),
  setCpus: (group: string, cpus: CpuSpec): Op => ({ op: "setCpus", group, cpus }),
  clearCpus: (group: string): Op => ({ op: "clearCpus", group }),
  setAffinity: (group: string, cpus: CpuSpec): Op => ({ op: "setAffinity", group, cpus }),
  setWeight: (group: string, weight: number): Op => ({ op: "setWeight", group, weight }),
  setQuota: (group: string, time: string, period?: string): Op => ({
    op: "setQuota",
    group,
    time,
    ...(period === undefined ? {} : { period })
  }),
  setNice: (group: string, nice: number): Op => ({ op: "setNice", group, nice }),
  setPolicy: (group: string, policy: NonNullable<CgroupDef["policy"]>): Op => ({ op: "setPolicy", group, policy }),
  run: (payload: string): Op => ({ op: "run", payload }),
  wait: (payload: string, within: string): Op => ({ op: "wait", payload, within }),
  kill: (payload: string): Op => ({ op: "kill", payload }),
  move: (group: string, to: string): Op => ({ op: "move", group, to }),
  attach: (): Op => ({ op: "attach" }),
  detach: (): Op => ({ op: "detach" }),
  restart: (): Op => ({ op: "restart" })
}

/**
 * CPUs of the guest; see `CpuSpec`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const cpus = {
  all: "all" as CpuSpec,
  llc: (llc: number): CpuSpec => ({ llc }),
  node: (node: number): CpuSpec => ({ node }),
  fraction: (from: number, to: number): CpuSpec => ({ fraction: [from, to] }),
  list: (list: string): CpuSpec => ({ list })
}

/**
 * The scenario of a test that has none: a computing worker a CPU, a pair that sends messages and eight that sleep most of
 * the time, for 2 seconds; then 2 seconds of rest, through which a scheduler stays as well.
 *
 * @since 0.1.0
 * @category constructors
 */
export const smoke: Scenario<"spin" | "pipe" | "timer", "run" | "rest"> = scenario("smoke", {
  groups: {
    spin: cgroup({ workers: { perCpu: 1 }, work: work.spin() }),
    // A kind of work, not Effect's pipe of functions.
    // @effect-diagnostics-next-line unnecessaryPipe:off
    pipe: cgroup({ workers: 2, work: work.pipe() }),
    timer: cgroup({ workers: 8, work: work.timer({ interval: "10 millis" }) })
  },
  steps: ({ pipe, spin, timer }) => [
    step("run", { hold: "2 seconds" }),
    step("rest", { do: [op.stop(spin), op.stop(pipe), op.stop(timer)], hold: "2 seconds" })
  ]
})
