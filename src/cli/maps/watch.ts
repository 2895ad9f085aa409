import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { MapAccessorService } from "../../bpf/MapAccessor.ts"
import type { FieldChange } from "../../bpf/report/DiffChange.ts"
import { watchMaps, type WatchTick } from "../../bpf/report/MapWatch.ts"
import { formatReason } from "../../core/Reason.ts"
import { freezeAndAttach } from "../../Ktstr.ts"
import type { Target } from "../source/options.ts"
import { bootTarget, Live, openMaps } from "../source/snapshot.ts"
import { bold, dim, green, red, yellow } from "../terminal/Color.ts"
import { copyWhile } from "../terminal/copyWhile.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { UsageError } from "../terminal/exit.ts"
import { writeLive, writeScreen } from "../terminal/Output.ts"
import * as Stages from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"
import { restartTimeLimit } from "../terminal/timeLimit.ts"

/** Rows that are shown of one reading. */
const ROWS = 64

/** Show what changes in the maps of this host or of a VM that is frozen for each reading, until it is interrupted. */
export const watch = (
  config: Target & {
    /** Names or ids; all maps if empty. */
    readonly map: ReadonlyArray<string>
    readonly every: Duration.Duration
    readonly ndjson: boolean
  }
) =>
  Effect.gen(function*() {
    if (!config.live && Option.isNone(config.kernel)) {
      return yield* new UsageError({
        problem: "say what to watch: --live, the maps of this host, or --kernel ID, those of a VM"
      })
    }
    const print = (tick: WatchTick) => config.ndjson ? writeLive(recordsOf(tick)) : writeScreen(textOf(tick))
    const readers = config.live
      ? Effect.succeed(yield* readersOf((yield* openMaps(config)).maps, config.map))
      : yield* readersOfVm(config)
    const ticks = Stream.tap(watchMaps(readers, config.every), () => restartTimeLimit(Duration.toMillis(config.every)))
    yield* copyWhile(ticks, print) // until nobody reads
  }).pipe(Effect.scoped, Effect.provide(Live))

const readersOf = (maps: MapAccessorService, names: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const { items } = yield* maps.list
    const named = names.length === 0 ? items : (yield* Effect.forEach(names, maps.find)).flat()
    return yield* Effect.forEach(new Set(named), maps.reader)
  })

/** Boots the VM; what it gives freezes it and is to be run once a reading. */
const readersOfVm = (config: Target & { readonly map: ReadonlyArray<string> }) =>
  Effect.map(
    Effect.provide(bootTarget(config), Stages.layer),
    ({ name, vm }) => Effect.flatMap(freezeAndAttach(vm, name), ({ maps }) => readersOf(maps, config.map))
  )

/** A record for the reading, then one for each change. */
const recordsOf = ({ changes, ...tick }: WatchTick): string =>
  [{ record: "tick", ...tick }, ...changes.map((change) => ({ record: "change", ...change }))]
    .map((record) => `${JSON.stringify(record)}\n`).join("")

const textOf = ({ at, changes, maps, seconds }: WatchTick): string => {
  const names = maps.length > 4
    ? `${maps.length} maps`
    : maps.map(({ entries, id, name }) => `#${id} ${escapeLine(name)} (${entries})`).join(", ")
  const head = `${bold(at.slice(11, 19))} ${names}${
    seconds === null ? "" : dim(` · ${changes.length} changed in ${seconds.toFixed(1)} s`)
  }\n`
  const rows = changes.flatMap(rowsOf)
  const body = rows.length === 0
    ? ""
    : table(["MAP", "KEY", "FIELD", "NOW", "CHANGE", "A SECOND"], rows.slice(0, ROWS), [4, 5])
  const more = rows.length > ROWS ? dim(`${rows.length - ROWS} more rows\n`) : ""
  const problems = maps.flatMap(({ name, problem }) =>
    problem === null ? [] : [`${yellow(escapeLine(`${name}: ${formatReason(problem)}`))}\n`]
  )
  return `${head}${body}${more}${problems.join("")}\n`
}

const rowsOf = (change: WatchTick["changes"][number]): ReadonlyArray<ReadonlyArray<string>> => {
  switch (change.change) {
    case "entryAdded":
      return [[escapeLine(change.name), short(change.key), "", short(change.value), green("new"), ""]]
    case "entryRemoved":
      return [[escapeLine(change.name), short(change.key), "", "", red("gone"), ""]]
    case "entryChanged":
      return [
        ...change.fields.map((field) => [escapeLine(change.name), short(change.key), ...fieldCells(field)]),
        ...(change.bytes === undefined
          ? []
          : [[escapeLine(change.name), short(change.key), "bytes", short(change.bytes.after), "", ""]])
      ]
    default:
      return []
  }
}

const fieldCells = ({ after, cpu, delta, path, rate }: FieldChange): ReadonlyArray<string> => [
  `${cpu === null ? "" : cpu === "all" ? "all CPUs " : `CPU ${cpu} `}${escapeLine(path)}`.trim(),
  short(after),
  delta === null ? "" : Number(delta) > 0 ? `+${delta}` : String(delta),
  rate === null ? "" : rate.toLocaleString("en", { maximumFractionDigits: 1 })
]

const short = (json: unknown): string => {
  const text = escapeLine(typeof json === "string" ? json : JSON.stringify(json))
  return text.length > 48 ? `${text.slice(0, 47)}…` : text
}
