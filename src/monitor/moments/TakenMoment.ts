import * as Schema from "effect/Schema"
import { escapedJson } from "../../core/EscapeText.ts"
import type { Reason } from "../../core/Reason.ts"
import { withMembers } from "./WithMembers.ts"

/**
 * The reasons for taking a moment: it was `asked` for; it was one of the points of a `periodic` series; a `line` came on
 * the console; a `rule` was broken; a `write` changed what is watched; a task's `age` was half of what the kernel allows.
 *
 * @since 0.1.0
 * @category schemas
 */
export const MomentCause = Schema.Literal("asked", "periodic", "line", "rule", "write", "age").annotations({
  identifier: "MomentCause"
})
/**
 * The type that the Schema `MomentCause` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type MomentCause = typeof MomentCause.Type

/** The fields of a moment besides its reading. */
export const momentFields = {
  name: Schema.String,
  cause: MomentCause,
  text: Schema.String.annotations({ description: "what caused it, in one line" }),
  at: Schema.String.annotations({ description: "when it was to be taken: wall-clock time of the host, ISO 8601" }),
  pauseMillis: Schema.NullOr(Schema.Number).annotations({
    description: "how long the guest stood still for it; null: it was not read"
  })
}

/**
 * A moment as it was taken: the reading is UTF-8, or why there is none.
 *
 * @since 0.1.0
 * @category models
 */
export interface TakenMoment extends Schema.Struct.Type<typeof momentFields> {
  readonly reading: ReadonlyArray<Uint8Array> | Reason
}

/**
 * The document of a moment, a `Moment`, as UTF-8.
 *
 * @since 0.1.0
 * @category rendering
 */
export const momentPieces = ({ reading, ...about }: TakenMoment): ReadonlyArray<Uint8Array> =>
  withMembers([Buffer.from(`${escapedJson(about)}\n`)], {
    reading: "kind" in reading ? [Buffer.from(escapedJson(reading))] : reading
  })
