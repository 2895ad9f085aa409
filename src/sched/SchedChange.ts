import * as Schema from "effect/Schema"
import { Reason } from "../core/Reason.ts"

const Value = Schema.NullOr(Schema.Union(Schema.Number, Schema.String, Schema.Boolean))

/**
 * A field that changed; null where a side does not have it. Counters have a `delta`, and a `rate` a second of the guest's
 * time where that is known.
 *
 * @since 0.1.0
 * @category schemas
 */
export const SchedFieldChange = Schema.Struct({
  field: Schema.String,
  before: Value,
  after: Value,
  delta: Schema.NullOr(Schema.Number),
  rate: Schema.NullOr(Schema.Number).annotations({ description: "delta a second" })
}).annotations({ identifier: "SchedFieldChange" })
/**
 * The type that the Schema `SchedFieldChange` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type SchedFieldChange = typeof SchedFieldChange.Type

const fields = Schema.Array(SchedFieldChange)
const task = { pid: Schema.Int, tgid: Schema.Int, comm: Schema.String, class: Schema.String }
const queue = { queue: Schema.String, address: Schema.String }
const scheduler = { name: Schema.String, address: Schema.String }
const finding = { name: Schema.String, text: Schema.String }
const queued = Schema.Array(Schema.Struct({ pid: Schema.Int, comm: Schema.String }))

/**
 * One difference between two readings of a kernel's scheduler. A task is the same on both sides when its pid and its start
 * are, a queue when its place is, a scheduler when its address is and none was loaded between. `before` and `after` of a
 * queue count its tasks; `entered` and `left` are those that only one side has in it.
 *
 * @since 0.1.0
 * @category schemas
 */
export const SchedChange = Schema.Union(
  Schema.Struct({ change: Schema.Literal("scxChanged"), fields }),
  Schema.Struct({ change: Schema.Literal("schedulerLoaded"), ...scheduler }),
  Schema.Struct({ change: Schema.Literal("schedulerGone"), ...scheduler }),
  Schema.Struct({ change: Schema.Literal("schedulerChanged"), ...scheduler, fields }),
  Schema.Struct({ change: Schema.Literal("cpuChanged"), cpu: Schema.Int, fields }),
  Schema.Struct({ change: Schema.Literal("queueAdded"), ...queue, tasks: Schema.Int }),
  Schema.Struct({ change: Schema.Literal("queueRemoved"), ...queue, tasks: Schema.Int }),
  Schema.Struct({
    change: Schema.Literal("queueChanged"),
    ...queue,
    before: Schema.Int,
    after: Schema.Int,
    entered: queued,
    left: queued
  }),
  Schema.Struct({ change: Schema.Literal("taskAdded"), ...task }),
  Schema.Struct({ change: Schema.Literal("taskEnded"), ...task }),
  Schema.Struct({ change: Schema.Literal("taskChanged"), ...task, fields }),
  Schema.Struct({ change: Schema.Literal("findingAppeared"), ...finding }),
  Schema.Struct({ change: Schema.Literal("findingGone"), ...finding }),
  Schema.Struct({ change: Schema.Literal("problem"), problem: Reason })
).annotations({ identifier: "SchedChange" })
/**
 * The type that the Schema `SchedChange` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type SchedChange = typeof SchedChange.Type
