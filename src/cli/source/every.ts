import * as Options from "@effect/cli/Options"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

const UNITS = { ms: 1, s: 1000, m: 60_000 } as const
const PERIOD = /^(\d+(?:\.\d+)?)(ms|s|m)$/

/** `1s`, `250ms`, `0.5m` */
const Period = Schema.String.pipe(
  Schema.filter((text) => PERIOD.test(text) && Number.parseFloat(text) > 0),
  Schema.annotations({ message: () => "--every needs a time such as 1s, 250ms or 2m" })
)

const millisOf = (text: string): number => {
  const [, number, unit] = PERIOD.exec(text) ?? []
  return Number(number) * (unit === "ms" || unit === "m" ? UNITS[unit] : UNITS.s)
}

/** The milliseconds of `1s`, `250ms` or `0.5m`; undefined for another text. */
export const periodMillis = (text: string): number | undefined => Schema.is(Period)(text) ? millisOf(text) : undefined

/** The time between two readings. */
export const every = Options.text("every").pipe(
  Options.withPseudoName("TIME"),
  Options.withDescription("how often to read: 1s (default), 250ms, 2m"),
  Options.withSchema(Period),
  Options.withDefault("1s"),
  Options.map((text) => Duration.millis(millisOf(text)))
)
