import * as Schema from "effect/Schema"
import { ScxExitEvent } from "../../host/ScxExit.ts"
import { EngineMode, ExactClock } from "../engine/EngineMode.ts"
import { Scenario } from "../scenario/Scenario.ts"
import { Claim } from "./Claim.ts"
import { ExpectedEnd } from "./ExpectedEnd.ts"
import { Verdict } from "./Verdict.ts"

const Nanos = Schema.Number.annotations({ description: "nanoseconds of the guest" })
const Count = Schema.Int
/** A text that records of an earlier ktstr do not have: null there. */
const laterText = (description: string) =>
  Schema.optionalWith(Schema.NullOr(Schema.String).annotations({ description }), { default: () => null })

/** Latencies of a worker or group: wake-ups, or whatever its work type measures. Null: there was none. */
const Latencies = Schema.Struct({
  count: Count,
  p50: Schema.NullOr(Nanos),
  p99: Schema.NullOr(Nanos),
  max: Schema.NullOr(Nanos)
}).annotations({ identifier: "Latencies" })

/** The work of a worker, or of a group's workers together, in a phase. */
export const Work = Schema.Struct({
  units: Count,
  cpu: Schema.NullOr(Nanos).annotations({ description: "CPU time; null: the kernel did not tell" }),
  wait: Nanos.annotations({ description: "time that it was runnable and did not run" }),
  runs: Count.annotations({ description: "times that it was given a CPU" }),
  gap: Schema.Struct({ max: Nanos, at: Nanos, cpu: Count }).annotations({
    description: "the longest time between two units, when it ended and on which CPU"
  }),
  migrations: Count,
  cpus: Schema.String.annotations({ description: "CPUs that it ran on since it started, as a list" })
}).annotations({ identifier: "Work" })
export type Work = typeof Work.Type

const Group = Schema.Struct({
  ...Work.fields,
  cpuStat: Schema.NullOr(Nanos).annotations({ description: "usage_usec of the control group, as nanoseconds" }),
  workers: Schema.Array(Schema.Struct({ worker: Count, ...Work.fields }))
})

const Phase = Schema.Struct({
  name: Schema.String,
  from: Nanos,
  to: Nanos,
  complete: Schema.Boolean.annotations({ description: "its end was reached" }),
  groups: Schema.Record({ key: Schema.String, value: Group })
}).annotations({ identifier: "Phase" })
export type Phase = typeof Phase.Type

/** A worker that ended though no operation had stopped it. */
const LostWorker = Schema.Struct({
  worker: Count,
  group: Schema.String,
  at: Nanos,
  status: Schema.Int.annotations({ description: "wait(2)'s status" })
}).annotations({ identifier: "LostWorker" })

/**
 * How a scheduler did.
 *
 * @since 0.1.0
 * @category models
 */
export const SchedulerRun = Schema.Struct({
  name: Schema.String,
  path: Schema.String,
  sha256: Schema.String,
  arguments: Schema.Array(Schema.String),
  ops: Schema.String,
  attach: Schema.NullOr(Nanos).annotations({ description: "from its start until the kernel scheduled by it" }),
  attached: Schema.Literal("yes", "died", "left", "late", "noSchedExt", "other", "never").annotations({
    description:
      "yes; died: its process ended before; left: it is, and its process has ended; late: not in time; other: another one "
      + "is; never: it was not started"
  }),
  switchAll: Schema.NullOr(Schema.Boolean).annotations({
    description: "it had the ordinary classes' tasks too, not only those of SCHED_EXT; null: it did not attach"
  }),
  cpu: Schema.NullOr(Nanos).annotations({
    description: "CPU time of its process while it was attached; null: it ended before the test did"
  }),
  expected: Schema.NullOr(ExpectedEnd).annotations({ description: "how it must end; null: it must stay" }),
  attachLimit: Nanos.annotations({ description: "longest time that it may take to attach" }),
  gone: Schema.NullOr(Nanos).annotations({
    description: "how long after it attached the kernel no longer scheduled by it, unasked; null: it never happened"
  }),
  atEnd: Schema.NullOr(Schema.Boolean).annotations({ description: "the kernel scheduled by it at the end" }),
  status: Schema.NullOr(Schema.Int).annotations({
    description: "wait(2)'s status of its process; null: it ran at the end"
  }),
  exits: Schema.Array(ScxExitEvent),
  log: Schema.Array(Schema.String).annotations({ description: "the last lines that it printed" })
}).annotations({ identifier: "SchedulerRun" })
/**
 * The type that the Schema `SchedulerRun` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type SchedulerRun = typeof SchedulerRun.Type

/**
 * All that a run yielded; `ktstr.run/1`. In the modes exact and exact-coarse two runs with one determinism key are equal but
 * for `host`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const RunRecord = Schema.Struct({
  schema: Schema.Literal("ktstr.run/1"),
  test: Schema.String,
  determinismKey: Schema.String.annotations({
    description:
      "SHA-256 over the QEMU and its parameters, the kernel, its command line, the initramfs, the machine, the mode and the seed"
  }),
  seed: Schema.NonNegativeInt,
  mode: Schema.Struct({
    mode: EngineMode,
    why: Schema.String,
    qemu: Schema.NullOr(Schema.String),
    clock: Schema.optionalWith(
      Schema.NullOr(ExactClock).annotations({
        description: "null: its time is the host's, or its record is of an earlier ktstr"
      }),
      { default: () => null }
    )
  }),
  kernel: Schema.Struct({ id: Schema.String, release: Schema.String, sha256: Schema.String }),
  machine: Schema.Struct({
    cpus: Schema.Int,
    nodes: Schema.Int,
    llcs: Schema.Int,
    cores: Schema.Int,
    threads: Schema.Int,
    memoryMib: Schema.Int
  }),
  scenario: Scenario,
  claims: Schema.Array(Claim),
  scheduler: Schema.NullOr(SchedulerRun),
  payloads: Schema.Record({
    key: Schema.String,
    value: Schema.Struct({
      status: Schema.NullOr(Schema.Int).annotations({ description: "wait(2)'s status; null: it did not end" }),
      killed: Schema.Boolean.annotations({ description: "the scenario ended it" }),
      log: Schema.Array(Schema.String).annotations({ description: "the last lines that it printed" })
    })
  }),
  phases: Schema.Array(Phase),
  latencies: Schema.Record({ key: Schema.String, value: Latencies }).annotations({
    description: "by group, over the whole run"
  }),
  operations: Schema.Array(Schema.Struct({
    op: Schema.Int,
    what: Schema.String,
    error: Schema.String,
    why: laterText("what was waited for in vain, and how it stands")
  })).annotations({ description: "those that failed" }),
  lostWorkers: Schema.optionalWith(Schema.Array(LostWorker), { default: () => [] }),
  kernelLog: Schema.Array(Schema.String).annotations({ description: "warnings and sched_ext's lines since init" }),
  end: Schema.Struct({
    how: Schema.Literal("done", "refused", "panicked", "ended", "starved", "time limit"),
    at: Nanos,
    why: Schema.NullOr(Schema.String)
  }),
  damage: Schema.NullOr(Schema.String).annotations({ description: "what of the agent's records is missing" }),
  verdict: Verdict,
  host: Schema.Struct({
    id: Schema.String,
    startedAt: Schema.String,
    wallMillis: Schema.Int,
    ktstr: Schema.String,
    directory: Schema.NullOr(Schema.String),
    dump: laterText(
      "a file for `ktstr show`: the guest as it failed, or of a run that failed at its end as it was then"
    )
  })
}).annotations({ identifier: "RunRecord" })
/**
 * The type that the Schema `RunRecord` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type RunRecord = typeof RunRecord.Type
