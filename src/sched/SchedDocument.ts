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

const Int = Schema.Union(Schema.Int, Schema.String.pipe(Schema.pattern(/^-?\d+$/))).annotations({
  identifier: "Int",
  description: "a number where that is exact, else decimal digits"
})
const Address = Schema.String.annotations({ identifier: "Address", description: "a kernel address, 0x and hex digits" })
const Names = Schema.Array(Schema.String)
const Counters = Schema.Record({ key: Schema.String, value: Int })

const OF_KIND = { uint: Int, int: Int, flag: Schema.Boolean, text: Schema.String, pointer: Address } as const

/** A struct's fields, each left out where this kernel does not have it; those in `without` are described elsewhere. */
const fieldsOf = (specs: FieldSpecs, ...without: ReadonlyArray<string>) =>
  Object.fromEntries(
    Object.entries(specs).filter(([name]) => !without.includes(name))
      .map(([name, { kind }]) => [name, Schema.optional(OF_KIND[kind] as Schema.Schema<unknown>)] as const)
  )

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
  locked: Schema.optional(Schema.Boolean).annotations({
    description: "its lock was held: counts and lists may differ by one"
  }),
  curr: Schema.optional(TaskRef),
  idle: Schema.optional(TaskRef),
  stop: Schema.optional(TaskRef),
  donor: Schema.optional(TaskRef),
  currNanos: Schema.optional(Int).annotations({ description: "for how long curr has the CPU, by clock" }),
  cfs: Schema.optional(Schema.Struct(fieldsOf(CFS_RQ))),
  rt: Schema.optional(Schema.Struct(fieldsOf(RT_RQ))),
  dl: Schema.optional(Schema.Struct(fieldsOf(DL_RQ))),
  scx: Schema.optional(Schema.Struct({ ...fieldsOf(SCX_RQ, "flags"), flags: Schema.optional(Names) })),
  stats: Schema.optional(Schema.Struct(fieldsOf(RQ_STATS))),
  times: Schema.optional(Schema.Struct({
    cpustat: Schema.optional(Counters).annotations({ description: "nanoseconds by enum cpu_usage_stat" }),
    irqs_sum: Schema.optional(Int),
    softirqs: Schema.optional(Counters)
  })),
  problem: Schema.optional(Reason)
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
  ppid: Schema.optional(Schema.Int),
  pgid: Schema.optional(Schema.Int),
  sid: Schema.optional(Schema.Int),
  cpus_ptr: Schema.optional(Schema.String).annotations({ description: "the CPUs that it may run on, as 0-3,5" }),
  cgroup: Schema.optional(Schema.String),
  wchan: Schema.optional(Schema.String).annotations({ description: "the function it sleeps in, by its kernel stack" }),
  uclamp_min: Schema.optional(Schema.Int),
  uclamp_max: Schema.optional(Schema.Int),
  se: Schema.optional(Schema.Struct(fieldsOf(SE))),
  sched_info: Schema.optional(Schema.Struct(fieldsOf(SCHED_INFO))),
  scx: Schema.optional(
    Schema.Struct({ ...fieldsOf(ENTITY), dsq: Schema.optional(Address), sched: Schema.optional(Address) })
  )
}).annotations({ identifier: "Task" })

const ExitInfo = Schema.Struct({
  kind: Schema.String,
  exit_code: Schema.optional(Int),
  exit_cpu: Schema.optional(Int),
  reason: Schema.optional(Schema.String),
  message: Schema.optional(Schema.String),
  backtrace: Names,
  dump: Schema.optional(Schema.String)
}).annotations({ identifier: "ExitInfo" })

const Scheduler = Schema.Struct({
  address: Address,
  root: Schema.Boolean,
  parent: Schema.optional(Address),
  level: Schema.optional(Int),
  id: Schema.optional(Int),
  cgroup: Schema.optional(Schema.String),
  name: Schema.String,
  flags: Names,
  callbacks: Names,
  timeout_ms: Schema.optional(Int),
  dispatch_max_batch: Schema.optional(Int),
  exit_dump_len: Schema.optional(Int),
  hotplug_seq: Schema.optional(Int),
  sub_cgroup_id: Schema.optional(Int),
  slice_dfl: Schema.optional(Int),
  bypass_depth: Schema.optional(Int),
  bypass_timestamp: Schema.optional(Int),
  aborting: Schema.optional(Schema.Boolean),
  is_cid_type: Schema.optional(Schema.Boolean),
  watchdogMillis: Schema.optional(Schema.Number),
  exit_kind: Schema.String,
  exitInfo: Schema.optional(ExitInfo),
  events: Schema.Union(
    Schema.Struct({ total: Counters, cpus: Schema.Array(Schema.Struct({ cpu: Schema.Int, events: Counters })) }),
    Reason
  )
}).annotations({ identifier: "Scheduler" })

const ScxState = Schema.Struct({
  state: Schema.String,
  enabled: Schema.optional(Schema.Boolean),
  switching_all: Schema.optional(Schema.Boolean),
  switched_all: Schema.optional(Schema.Boolean),
  nr_rejected: Schema.optional(Int),
  hotplug_seq: Schema.optional(Int),
  enable_seq: Schema.optional(Int),
  bypass_depth: Schema.optional(Int),
  aborting: Schema.optional(Schema.Boolean),
  watchdogCheckedMillis: Schema.NullOr(Schema.Number),
  schedulers: Schema.Array(Scheduler),
  lastExit: Schema.optional(ExitInfo),
  problems: Schema.Array(Reason)
}).annotations({ identifier: "ScxState" })

const DispatchQueue = Schema.Struct({
  kind: Schema.Literal("local", "global", "bypass", "reject", "rescue", "user"),
  address: Address,
  id: Int,
  name: Schema.optional(Schema.String),
  cpu: Schema.optional(Schema.Int),
  node: Schema.optional(Schema.Int),
  sched: Schema.optional(Address),
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
  balance: Schema.optional(Schema.Record({ key: Schema.String, value: Counters })),
  stats: Schema.optional(Schema.Struct(fieldsOf(DOMAIN_STATS)))
}).annotations({ identifier: "SchedDomain" })

const Finding = Schema.Struct({
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
  cpu: Schema.optional(Schema.Int),
  pid: Schema.optional(Schema.Int),
  comm: Schema.optional(Schema.String),
  address: Schema.optional(Address),
  measured: Schema.optional(Schema.Number),
  threshold: Schema.optional(Schema.Number),
  unit: Schema.optional(Schema.Literal("ms"))
}).annotations({ identifier: "Finding" })

const Stall = Schema.Struct({ avg10: Schema.Number, avg60: Schema.Number, avg300: Schema.Number, total: Int })

/**
 * A kernel's scheduler at an instant, as JSON. A part that cannot be had is a reason; a field that this kernel's structs
 * do not have is left out and named in `absent`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const SchedDocument = Schema.Struct({
  time: Schema.Struct({ jiffies: Int, hz: Schema.NullOr(Schema.Int) }),
  runQueues: Schema.Union(Schema.Array(RunQueue), Reason),
  scx: Schema.Union(ScxState, Reason),
  dispatchQueues: Schema.Union(Schema.Array(DispatchQueue), Reason),
  tasks: Schema.Union(Schema.Array(Task), Reason),
  domains: Schema.Array(Schema.Struct({
    cpu: Schema.Int,
    domains: Schema.Array(Domain),
    problem: Schema.optional(Reason)
  })),
  numa: Schema.Union(Schema.Array(Schema.Struct({ node: Schema.Int, counters: Counters })), Reason),
  pressure: Schema.Union(Schema.Record({ key: Schema.String, value: Stall }), Reason),
  findings: Schema.Array(Finding),
  absent: Schema.Record({ key: Schema.String, value: Names }),
  problems: Schema.Array(Reason)
}).annotations({ identifier: "SchedDocument" })

/**
 * A document that was read, as what wrote it.
 *
 * @since 0.1.0
 * @category parsing
 */
export const decodeSched = (json: unknown): SchedSnapshot =>
  Schema.decodeUnknownSync(SchedDocument, { onExcessProperty: "error" })(json) as unknown as SchedSnapshot
