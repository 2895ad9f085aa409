import * as Schema from "effect/Schema"
import { Reason } from "../../core/Reason.ts"
import { Count } from "../Program.ts"
import { DUMP_VERSION, PlainJson } from "../Report.ts"

/**
 * A field that changed. `path` is empty for a value that has none, `in.cpus[3]` inside structs and arrays; a member that only
 * one side has is null on the other. Numbers have a `delta`, exact, and a `rate` a second where both times are known.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FieldChange = Schema.Struct({
  path: Schema.String,
  cpu: Schema.NullOr(Schema.Union(Schema.Int, Schema.Literal("all"))).annotations({
    description: "whose copy of a per-CPU value; all: the sum over CPUs; null: there is one for all"
  }),
  before: PlainJson,
  after: PlainJson,
  delta: Schema.NullOr(Count),
  rate: Schema.NullOr(Schema.Number).annotations({ description: "delta a second" })
}).annotations({ identifier: "FieldChange" })
/**
 * The type that the Schema `FieldChange` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type FieldChange = typeof FieldChange.Type

const map = { id: Schema.Int, name: Schema.String, type: Schema.String }
const program = { id: Schema.Int, name: Schema.String, type: Schema.String }

const keyBytes = Schema.optional(Schema.String).annotations({
  description: "all bytes of the key in hex; there where `key` does not show all"
})
const copiesHex = Schema.Array(Schema.NullOr(Schema.String))
/** Hex of a value's bytes; of per-CPU maps an array by CPU; null where the form shows all. */
const Bytes = Schema.NullOr(Schema.Union(Schema.String, copiesHex))

const EntryWhole = Schema.Struct({
  key: PlainJson,
  keyBytes,
  value: PlainJson.annotations({ description: "of per-CPU maps an array by CPU" }),
  valueBytes: Schema.optional(Schema.Union(Schema.String, copiesHex)).annotations({
    description: "all bytes of the value in hex, by CPU in per-CPU maps; there where `value` does not show all"
  })
})
export type EntryWhole = typeof EntryWhole.Type

const EntryChanged = Schema.Struct({
  key: PlainJson,
  keyBytes,
  fields: Schema.Array(FieldChange),
  bytes: Schema.optional(Schema.Struct({ before: Bytes, after: Bytes })).annotations({
    description: "the value's bytes in hex; there where they differ in what its form does not show"
  })
})
export type EntryChanged = typeof EntryChanged.Type

/**
 * One difference between two dumps. Maps and programs are the same on both sides when id, name and type are (of different
 * boots name and type: the id is then the second side's); entries when their keys' bytes are. `problem`: what was not compared, and why.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Change = Schema.Union(
  Schema.Struct({ change: Schema.Literal("mapAdded", "mapRemoved"), ...map }),
  Schema.Struct({
    change: Schema.Literal("entryAdded", "entryRemoved"),
    ...map,
    ...EntryWhole.fields
  }),
  Schema.Struct({ change: Schema.Literal("entryChanged"), ...map, ...EntryChanged.fields }),
  Schema.Struct({ change: Schema.Literal("programAdded", "programRemoved"), ...program }),
  Schema.Struct({ change: Schema.Literal("programChanged"), ...program, fields: Schema.Array(FieldChange) }),
  Schema.Struct({ change: Schema.Literal("problem"), problem: Reason })
).annotations({ identifier: "Change" })
/**
 * The type that the Schema `Change` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Change = typeof Change.Type

/**
 * The document of `ktstr diff --json`. `seconds` between the two: null where a side does not say when it was taken.
 *
 * @since 0.1.0
 * @category schemas
 */
export const DiffDocument = Schema.Struct({
  schema: Schema.Literal("diff"),
  version: Schema.Literal(DUMP_VERSION),
  from: PlainJson,
  to: PlainJson,
  seconds: Schema.NullOr(Schema.Number),
  changes: Schema.Array(Change),
  sched: Schema.optional(PlainJson).annotations({
    description:
      "what changed of the scheduler: seconds of the guest's time, and changes: SchedChange; absent where a side "
      + "has no scheduler's state, or the two are of different boots; its problems are not among losses"
  })
}).annotations({ identifier: "DiffDocument" })
/**
 * The type that the Schema `DiffDocument` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type DiffDocument = typeof DiffDocument.Type
