import * as Schema from "effect/Schema"
import { Link } from "../bpf/Link.ts"
import { Freeze, Kernel, MapDump, ProgramInfo, Source } from "../bpf/Report.ts"
import { DUMP_VERSION } from "../bpf/Report.ts"
import { Reason } from "../core/Reason.ts"
import { ScxExitEvent } from "../host/ScxExit.ts"
import { SchedDocument } from "../sched/SchedDocument.ts"

/**
 * A failure in a guest, and how that was noticed: in its running `memory`, on its `console`, by its init's `report`, or
 * by the `host`, whose time was up or for whom the VM ended.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Failure = Schema.Struct({
  kind: Schema.Literal("scheduler", "panic", "oops", "soft-lockup", "script", "time-limit", "vm-ended").annotations({
    description: "scheduler: sched_ext ended one for an error; script: it ended with another status than 0"
  }),
  text: Schema.String.annotations({ description: "in one line, the kernel's words where it said it" }),
  seenIn: Schema.Literal("memory", "console", "report", "host"),
  at: Schema.String.annotations({ description: "when it was noticed: wall-clock time of the host, ISO 8601" }),
  status: Schema.optional(Schema.Int).annotations({ description: "the script's exit status" })
}).annotations({ identifier: "Failure" })
/**
 * The type that the Schema `Failure` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Failure = typeof Failure.Type

/**
 * A CPU of the guest when it was stopped. `place` is the function that `rip` is in; null in user space, in a module and in
 * BPF programs.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FailedCpu = Schema.Struct({
  cpu: Schema.Int,
  mode: Schema.Literal("kernel", "user"),
  place: Schema.NullOr(Schema.String),
  registers: Schema.Record({ key: Schema.String, value: Schema.String }).annotations({ description: "hexadecimal" })
}).annotations({ identifier: "FailedCpu" })
/**
 * The type that the Schema `FailedCpu` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type FailedCpu = typeof FailedCpu.Type

const LogLine = Schema.Struct({
  atMicros: Schema.NullOr(Schema.Int).annotations({ description: "microseconds since boot" }),
  text: Schema.String
}).annotations({ identifier: "LogLine" })

/**
 * The kernel's log, from its memory: the last lines, and the ends of schedulers in all of it.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FailureLog = Schema.Struct({
  lines: Schema.Array(LogLine),
  exits: Schema.Array(ScxExitEvent),
  problem: Schema.NullOr(Reason)
}).annotations({ identifier: "FailureLog" })
/**
 * The type that the Schema `FailureLog` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type FailureLog = typeof FailureLog.Type

/**
 * A failure, and all that was read of the guest when it was noticed. `single`: it was stopped and read; `degraded`: it
 * could not be, and `degraded` says why.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FailureDocument = Schema.Struct({
  schema: Schema.Literal("single", "degraded"),
  version: Schema.Literal(DUMP_VERSION),
  failure: Failure,
  degraded: Schema.NullOr(Reason),
  source: Source,
  kernel: Schema.NullOr(Kernel),
  freeze: Schema.NullOr(Freeze),
  vcpus: Schema.Union(Schema.Array(FailedCpu), Reason),
  sched: Schema.Union(SchedDocument, Reason),
  links: Schema.Union(Schema.Array(Link), Reason),
  console: Schema.Array(Schema.String).annotations({ description: "its last lines" }),
  maps: Schema.Array(MapDump),
  programs: Schema.Array(ProgramInfo),
  problems: Schema.Array(Reason),
  losses: Schema.Int.annotations({ description: "how many maps and lists could not be read whole" }),
  log: FailureLog.annotations({ description: "read last: when a scheduler fails, the kernel says why some time after" })
}).annotations({ identifier: "FailureDocument" })
/**
 * The type that the Schema `FailureDocument` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type FailureDocument = typeof FailureDocument.Type
