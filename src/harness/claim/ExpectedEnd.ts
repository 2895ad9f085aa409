import * as Schema from "effect/Schema"

/**
 * An end of a scheduler that a test may ask for: the kernel's watchdog ejects it, it ends itself with an error, it
 * leaves by itself, the verifier refuses it, or its process dies before it attaches.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ExpectedEnd = Schema.Literal("stalled", "error", "exited", "refused", "died").annotations({
  identifier: "ExpectedEnd"
})
/**
 * The type that the Schema `ExpectedEnd` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type ExpectedEnd = typeof ExpectedEnd.Type
