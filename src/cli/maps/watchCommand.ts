import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { filter, output, target } from "../source/options.ts"

const UNITS = { ms: 1, s: 1000, m: 60_000 } as const
const PERIOD = /^(\d+(?:\.\d+)?)(ms|s|m)$/

/** `1s`, `250ms`, `0.5m` */
const Period = Schema.String.pipe(
  Schema.filter((text) => PERIOD.test(text) && Number.parseFloat(text) > 0),
  Schema.annotations({ message: () => "--every wants a time such as 1s, 250ms or 2m" })
)

const millisOf = (text: string): number => {
  const [, number, unit] = PERIOD.exec(text) ?? []
  return Number(number) * (unit === "ms" || unit === "m" ? UNITS[unit] : UNITS.s)
}

export const watch = Command.make("watch", {
  ...target,
  map: filter.map,
  every: Options.text("every").pipe(
    Options.withPseudoName("TIME"),
    Options.withDescription("how often to read: 1s (if not given), 250ms, 2m"),
    Options.withSchema(Period),
    Options.withDefault("1s")
  ),
  ndjson: output.ndjson
}, (config) =>
  Effect.flatMap(
    Effect.promise(() => import("./watch.ts")),
    (module) => module.watch({ ...config, every: Duration.millis(millisOf(config.every)) })
  )).pipe(
    Command.withDescription(
      "Show which entries of BPF maps change, and how fast, until Ctrl-C: on this host, or in a VM, frozen for each reading"
    )
  )
