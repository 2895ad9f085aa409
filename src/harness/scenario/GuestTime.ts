import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

const nanos = (text: string): number | undefined => {
  const decoded = Option.getOrUndefined(Duration.decodeUnknown(text))
  const value = decoded === undefined ? undefined : Option.getOrUndefined(Duration.toNanos(decoded))
  return value === undefined ? undefined : Number(value)
}

/** An hour: nobody waits longer for a test. */
const MOST = 3600e9

/**
 * A time by the guest's clock, as Effect writes durations: "3 seconds", "250 millis". At most an hour.
 *
 * @since 0.1.0
 * @category schemas
 */
export const GuestTime = Schema.String.pipe(
  Schema.filter((text) => {
    const value = nanos(text)
    return value !== undefined && value >= 0 && value <= MOST
  }, { message: () => "expected a time of at most an hour, as in \"3 seconds\" or \"250 millis\"" })
).annotations({ identifier: "GuestTime" })

/** Nanoseconds of a time that the schema has taken. */
export const nanosOf = (text: string): number => nanos(text) ?? 0
