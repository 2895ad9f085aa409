import * as Schema from "effect/Schema"
import { DUMP_VERSION } from "../bpf/Report.ts"
import { Reason } from "../core/Reason.ts"
import { ScxExitEvent } from "../host/ScxExit.ts"
import { Moment } from "./moments/Moment.ts"
import { Reading } from "./moments/Reading.ts"
import { Sample } from "./Sample.ts"

/**
 * A failure in a guest, and how that was noticed: in its running `memory`, on its `console`, by its init's `report`, or
 * by the `host`, whose time was up or for whom the VM ended.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Failure = Schema.Struct({
  kind: Schema.Literal(
    "scheduler",
    "panic",
    "oops",
    "soft-lockup",
    "script",
    "rule",
    "time-limit",
    "vm-ended",
    "verdict"
  )
    .annotations({
      description:
        "scheduler: sched_ext ended one for an error; script: it ended with another status than 0; rule: the running guest broke one; verdict: a test of "
        + "a scheduler failed for what stands in `text`"
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
 * A failure, and all that was read of the guest when it was noticed. `single`: it was stopped and read; `dual`: also
 * before, when a task had been runnable for half of the time after which the kernel ends the scheduler; `degraded`: it
 * could not be read when it had failed, and `degraded` says why.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FailureDocument = Schema.Struct({
  schema: Schema.Literal("single", "dual", "degraded"),
  version: Schema.Literal(DUMP_VERSION),
  failure: Failure,
  degraded: Schema.NullOr(Reason),
  ...Reading.fields,
  console: Schema.Array(Schema.String).annotations({ description: "its last lines" }),
  log: FailureLog.annotations({
    description: "read last: when a scheduler fails, the kernel says why some time after"
  }),
  samples: Schema.optional(Schema.Array(Sample)).annotations({
    description: "of the last seconds before the failure, five a second, while the guest ran"
  }),
  early: Schema.optional(Moment).annotations({ description: "the guest before the failure" })
}).annotations({ identifier: "FailureDocument" })
/**
 * The type that the Schema `FailureDocument` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type FailureDocument = typeof FailureDocument.Type
