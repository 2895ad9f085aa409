import * as Schema from "effect/Schema"
import { Reason } from "../core/Reason.ts"
import {
  CFS_RQ,
  DL_RQ,
  DOMAIN,
  DOMAIN_STATS,
  ENTITY,
  RQ,
  RQ_STATS,
  RT_RQ,
  SCHED_INFO,
  SCX_RQ,
  SE,
  TASK
} from "./SchedLayouts.ts"
import type { SchedSnapshot } from "./SchedState.ts"
import type { FieldSpecs } from "./StructFields.ts"

const Int = Schema.Union(Schema.Int, Schema.String.pipe(Schema.pattern(/^-?\d{1,20}$/))).annotations({
  identifier: "Int",
  description: "a number where that is exact, else decimal digits"
})
const Address = Schema.String.annotations({ identifier: "Address", description: "a kernel address, 0x and hex digits" })
const Names = Schema.Array(Schema.String)
const Numbers = Schema.Record({ key: Schema.String, value: Schema.Number })
const Counters = Schema.Record({ key: Schema.String, value: Int })

const OF_KIND = { uint: Int, int: Int, flag: Schema.Boolean, text: Schema.String } as const
const maybe = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })
type Maybe<S extends Schema.Schema.Any> = ReturnType<
  typeof maybe<Schema.Schema.Type<S>, Schema.Schema.Encoded<S>>
>

/** A struct's fields, each left out where this kernel does not have it; those in `without` are described elsewhere. */
const fieldsOf = <Specs extends FieldSpecs, Without extends keyof Specs = never>(
  specs: Specs,
  ...without: ReadonlyArray<Without>
) =>
  Object.fromEntries(
    Object.entries(specs).filter(([name]) => !without.some((other) => other === name))
      .map(([name, { kind }]) => [name, maybe(OF_KIND[kind] as Schema.Schema<unknown>)])
  ) as { readonly [F in Exclude<keyof Specs, Without>]: Maybe<typeof OF_KIND[Specs[F]["kind"]]> }

const TaskRef = Schema.Struct({
  address: Address,
  pid: Schema.Int,
  comm: Schema.String,
  class: Schema.String
}).annotations({ identifier: "TaskRef" })

const RunQueue = Schema.Struct({
  ...fieldsOf(RQ, "cpu", "online"),
  cpu: Schema.Int,
  address: Address,
  online: Schema.Boolean,
  locked: maybe(Schema.Boolean.annotations({ description: "its lock was held: counts and lists may differ by one" })),
  curr: maybe(TaskRef),
  idle: maybe(TaskRef),
  stop: maybe(TaskRef),
  donor: maybe(TaskRef),
  currNanos: maybe(Int.annotations({ description: "for how long curr has the CPU, by clock" })),
  timerLateNanos: maybe(
    Int.annotations({ description: "for how long the CPU's next timer has been due; negative: it is to come" })
  ),
  cfs: maybe(Schema.Struct(fieldsOf(CFS_RQ))),
  rt: maybe(Schema.Struct(fieldsOf(RT_RQ))),
  dl: maybe(Schema.Struct(fieldsOf(DL_RQ))),
  scx: maybe(Schema.Struct({ ...fieldsOf(SCX_RQ, "flags"), flags: maybe(Names) })),
  stats: maybe(Schema.Struct(fieldsOf(RQ_STATS))),
  times: maybe(Schema.Struct({
    cpustat: maybe(Counters.annotations({ description: "nanoseconds by enum cpu_usage_stat" })),
    irqs_sum: maybe(Int),
    softirqs: maybe(Counters)
  })),
  problem: maybe(Reason)
}).annotations({ identifier: "RunQueue" })

const Task = Schema.Struct({
  ...fieldsOf(TASK, "policy", "comm", "pid", "tgid"),
  address: Address,
  pid: Schema.Int,
  tgid: Schema.Int,
  comm: Schema.String,
  state: Schema.String.annotations({ description: "as ps shows it: R S D T t X Z P I" }),
  class: Schema.String,
  policy: Schema.String,
  nice: Schema.Int,
  kthread: Schema.Boolean,
  ppid: maybe(Schema.Int),
  pgid: maybe(Schema.Int),
  sid: maybe(Schema.Int),
  cpus_ptr: maybe(Schema.String.annotations({ description: "the CPUs that it may run on, as 0-3,5" })),
  cgroup: maybe(Schema.String),
  wchan: maybe(Schema.String.annotations({ description: "the function it sleeps in, by its kernel stack" })),
  uclamp_min: maybe(Schema.Int),
  uclamp_max: maybe(Schema.Int),
  se: maybe(Schema.Struct(fieldsOf(SE))),
  sched_info: maybe(Schema.Struct(fieldsOf(SCHED_INFO))),
  scx: maybe(
    Schema.Struct({ ...fieldsOf(ENTITY), dsq: maybe(Address), sched: maybe(Address) })
  )
}).annotations({ identifier: "Task" })

const exitInfo = {
  kind: Schema.String,
  exit_code: maybe(Int),
  exit_cpu: maybe(Int),
  reason: maybe(Schema.String),
  message: maybe(Schema.String),
  backtrace: Names,
  dump: maybe(Schema.String)
}
const ExitInfo = Schema.Struct(exitInfo).annotations({ identifier: "ExitInfo" })

const Scheduler = Schema.Struct({
  address: Address,
  root: Schema.Boolean,
  parent: maybe(Address),
  level: maybe(Int),
  id: maybe(Int),
  cgroup: maybe(Schema.String),
  name: Schema.String,
  flags: Names,
  callbacks: Names,
  programs: Schema.Record({ key: Schema.String, value: Schema.Struct({ id: Schema.Int, name: Schema.String }) })
    .annotations({ description: "by callback the BPF program that implements it" }),
  timeout_ms: maybe(Int),
  dispatch_max_batch: maybe(Int),
  exit_dump_len: maybe(Int),
  hotplug_seq: maybe(Int),
  sub_cgroup_id: maybe(Int),
  slice_dfl: maybe(Int),
  bypass_depth: maybe(Int),
  bypass_timestamp: maybe(Int),
  aborting: maybe(Schema.Boolean),
  is_cid_type: maybe(Schema.Boolean),
  watchdogMillis: maybe(Schema.Number),
  exit_kind: Schema.String,
  exitInfo: maybe(ExitInfo),
  events: Schema.Union(
    Schema.Struct({ total: Counters, cpus: Schema.Array(Schema.Struct({ cpu: Schema.Int, events: Counters })) }),
    Reason
  )
}).annotations({ identifier: "Scheduler" })

const ScxState = Schema.Struct({
  state: Schema.String,
  enabled: maybe(Schema.Boolean),
  switching_all: maybe(Schema.Boolean),
  switched_all: maybe(Schema.Boolean),
  nr_rejected: maybe(Int),
  hotplug_seq: maybe(Int),
  enable_seq: maybe(Int),
  bypass_depth: maybe(Int),
  aborting: maybe(Schema.Boolean),
  watchdogCheckedMillis: Schema.NullOr(Schema.Number),
  schedulers: Schema.Array(Scheduler),
  lastExit: maybe(Schema.Struct({ scheduler: maybe(Schema.String), ...exitInfo })),
  problems: Schema.Array(Reason)
}).annotations({ identifier: "ScxState" })

/** Purposes of a dispatch queue. */
export const QueueKind = Schema.Literal("local", "global", "bypass", "reject", "rescue", "user")

const DispatchQueue = Schema.Struct({
  kind: QueueKind,
  address: Address,
  id: Int,
  name: maybe(Schema.String),
  cpu: maybe(Schema.Int),
  node: maybe(Schema.Int),
  sched: maybe(Address),
  nr: Int,
  seq: Int,
  locked: Schema.Boolean,
  cursors: Schema.Int.annotations({ description: "iterators that stand in it" }),
  tasks: Schema.Array(Schema.Struct({
    address: Address,
    pid: Schema.Int,
    comm: Schema.String,
    order: Schema.Literal("fifo", "vtime"),
    slice: Int,
    dsq_vtime: Int,
    dsq_seq: Int,
    flags: Int,
    weight: Int,
    waitingMillis: Schema.NullOr(Schema.Number)
  })).annotations({ description: "in the order in which they are dispatched" }),
  problems: Schema.Array(Reason)
}).annotations({ identifier: "DispatchQueue" })

const Domain = Schema.Struct({
  ...fieldsOf(DOMAIN, "flags"),
  address: Address,
  name: Schema.String,
  flags: Names,
  span: Schema.String,
  balance: maybe(
    Schema.Record({ key: Schema.String, value: Numbers })
  ),
  stats: maybe(Schema.Struct(fieldsOf(DOMAIN_STATS)))
}).annotations({ identifier: "SchedDomain" })

/** Something that looks wrong. */
export const Finding = Schema.Struct({
  name: Schema.Literal(
    "runnable-too-long",
    "idle-with-work",
    "clock-stands",
    "queue-disagrees",
    "not-allowed-here",
    "long-bypass",
    "scheduler-exits"
  ),
  text: Schema.String,
  cpu: maybe(Schema.Int),
  pid: maybe(Schema.Int),
  comm: maybe(Schema.String),
  address: maybe(Address),
  measured: maybe(Schema.Number),
  threshold: maybe(Schema.Number),
  unit: maybe(Schema.Literal("ms"))
}).annotations({ identifier: "Finding" })

const Stall = Schema.Struct({ avg10: Schema.Number, avg60: Schema.Number, avg300: Schema.Number, total: Int })

const document = Schema.Struct({
  time: Schema.Struct({ jiffies: Int, hz: Schema.NullOr(Schema.Int) }),
  runQueues: Schema.Union(Schema.Array(RunQueue), Reason),
  scx: Schema.Union(ScxState, Reason),
  dispatchQueues: Schema.Union(Schema.Array(DispatchQueue), Reason),
  tasks: Schema.Union(Schema.Array(Task), Reason),
  domains: Schema.Array(Schema.Struct({
    cpu: Schema.Int,
    domains: Schema.Array(Domain),
    problem: maybe(Reason)
  })),
  numa: Schema.Union(Schema.Array(Schema.Struct({ node: Schema.Int, counters: Numbers })), Reason),
  pressure: Schema.Union(Schema.Record({ key: Schema.String, value: Stall }), Reason),
  findings: Schema.Array(Finding),
  absent: Schema.Record({ key: Schema.String, value: Names }),
  problems: Schema.Array(Reason)
}).annotations({ identifier: "SchedDocument" })

/** With no field optional: assignability overlooks optional fields that only one of two types has. */
type Whole<T> = T extends ReadonlyArray<infer Element> ? ReadonlyArray<Whole<Element>>
  : T extends object ? { readonly [K in keyof T]-?: Whole<T[K]> }
  : T
type Same<A, B> = [A, B] extends [B, A] ? true : false

/**
 * A kernel's scheduler at an instant, as JSON. A part that cannot be had is a reason; a field that this kernel's structs
 * do not have is left out and named in `absent`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const SchedDocument: Schema.Schema<SchedSnapshot> = document satisfies Same<
  Whole<typeof document.Type>,
  Whole<SchedSnapshot>
> extends true ? Schema.Schema<SchedSnapshot>
  : never

/**
 * A document that was read, as what wrote it.
 * @throws ParseError where it is not one
 * @since 0.1.0
 * @category parsing
 */
export const decodeSched: (json: unknown) => SchedSnapshot = Schema.decodeUnknownSync(SchedDocument, {
  onExcessProperty: "error"
})
