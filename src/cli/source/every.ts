import * as Options from "@effect/cli/Options"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

const UNITS = { ms: 1, s: 1000, m: 60_000 } as const
const PERIOD = /^(\d+(?:\.\d+)?)(ms|s|m)$/

/** `1s`, `250ms`, `0.5m` */
const Period = Schema.String.pipe(Schema.filter((text) => PERIOD.test(text) && Number.parseFloat(text) > 0))

const millisOf = (text: string): number => {
  const [, number, unit] = PERIOD.exec(text) ?? []
  return Number(number) * (unit === "ms" || unit === "m" ? UNITS[unit] : UNITS.s)
}

/** The milliseconds of `1s`, `250ms` or `0.5m`; undefined for another text. */
export const periodMillis = (text: string): number | undefined => Schema.is(Period)(text) ? millisOf(text) : undefined

const period = (name: string, description: string) =>
  Options.text(name).pipe(
    Options.withPseudoName("TIME"),
    Options.withDescription(description),
    Options.withSchema(
      Period.pipe(Schema.annotations({ message: () => `--${name} needs a time such as 1s, 250ms or 2m` }))
    ),
    Options.map((text) => Duration.millis(millisOf(text)))
  )

/** The time between two readings. */
export const every = period("every", "how often to read: 1s (default), 250ms, 2m").pipe(
  Options.withDefault(Duration.seconds(1))
)

/** The least time of a scheduler's watchdog. */
export const watchdog = period(
  "watchdog",
  "let tasks of a sched_ext scheduler be runnable for this long at least before the kernel ends it, whatever the scheduler "
    + "asks for: an emulated guest is slow"
).pipe(Options.optional)
