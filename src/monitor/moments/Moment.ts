import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Reason } from "../../core/Reason.ts"
import { Reading } from "./Reading.ts"
import { momentFields, momentPieces, type TakenMoment } from "./TakenMoment.ts"

/**
 * A running guest at an instant: all that was read of it, or why that could not be.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Moment = Schema.Struct({ ...momentFields, reading: Schema.Union(Reading, Reason) }).annotations({
  identifier: "Moment"
})
/**
 * The type that the Schema `Moment` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Moment = typeof Moment.Type

const decode = Schema.decodeUnknown(Schema.parseJson(Moment))

/**
 * A moment with its reading as values. It takes as long as it takes to parse the document, so that is left until asked for.
 *
 * @since 0.1.0
 * @category reading
 */
export const decodeMoment = (moment: TakenMoment): Effect.Effect<Moment> =>
  // what we wrote ourselves is a `Moment`
  Effect.orDie(Effect.suspend(() => decode(Buffer.concat(momentPieces(moment)).toString())))
