import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { combine, Reason } from "../../core/Reason.ts"
import { WalkProblems } from "../../core/WalkProblems.ts"
import { type MapReader, problemOf } from "../MapReader.ts"
import { pause } from "../Pause.ts"
import { Change } from "./DiffChange.ts"
import { changedEntry, isChanged, wholeEntry } from "./EntryChange.ts"
import { type EntryTexts, entryTexts, identityOf } from "./EntryJson.ts"

/**
 * Maps read once more: how many entries each has, and what has changed since the reading before.
 *
 * @since 0.1.0
 * @category schemas
 */
export const WatchTick = Schema.Struct({
  at: Schema.String.annotations({ description: "wall-clock time, ISO 8601" }),
  seconds: Schema.NullOr(Schema.Number).annotations({
    description: "since the reading before; null: this is the first"
  }),
  maps: Schema.Array(Schema.Struct({
    id: Schema.Int,
    name: Schema.String,
    entries: Schema.Int,
    problem: Schema.NullOr(Reason).annotations({
      description: "why entries, or parts of them, are missing; null: none is"
    })
  })),
  changes: Schema.Array(Change).annotations({ description: "of entries only; rates are a second" })
}).annotations({ identifier: "WatchTick" })
/**
 * The type that the Schema `WatchTick` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type WatchTick = typeof WatchTick.Type

/** Entries between two looks at the clock. */
const BATCH = 256

/** A map's entries, each by its `identityOf`. */
interface Held {
  readonly entries: Map<string, EntryTexts>
  readonly atMillis: number
  readonly problem: Reason | null
  /** No entry is missing, though parts of some may be. */
  readonly complete: boolean
}

/**
 * Read maps again and again, the first time at once. Of every map the entries are kept, as text. A reading that takes longer
 * than `every` is followed by the next at once; none runs beside another.
 * @param open gives the maps for one reading; what it acquires (a VM's freeze) is released after that
 * @since 0.1.0
 * @category comparing
 */
export const watchMaps = <E, R>(
  open: Effect.Effect<ReadonlyArray<MapReader>, E, R>,
  every: Duration.DurationInput
): Stream.Stream<WatchTick, E, Exclude<R, Scope.Scope>> =>
  Stream.suspend(() => {
    const before = new Map<number, Held>()
    const tick = Effect.gen(function*() {
      const start = yield* Clock.currentTimeMillis
      const changes: Array<Change> = []
      const maps: Array<WatchTick["maps"][number]> = []
      let seconds: number | null = null
      for (const reader of yield* open) {
        const { id, name } = reader.info
        const old = before.get(id)
        const held = yield* hold(reader)
        before.set(id, held)
        maps.push({ id, name, entries: held.entries.size, problem: held.problem })
        if (old === undefined) continue
        const elapsed = (held.atMillis - old.atMillis) / 1000
        for (const change of changesOf(reader, old.entries, held, elapsed)) changes.push(change)
        seconds ??= elapsed
      }
      return { at: new Date(start).toISOString(), seconds, maps, changes }
    }).pipe(Effect.scoped)
    return Stream.repeatEffectWithSchedule(tick, Schedule.fixed(every))
  })

/** Read a map whole. */
const hold = (reader: MapReader): Effect.Effect<Held> =>
  Effect.gen(function*() {
    const atMillis = yield* Clock.currentTimeMillis
    const entries = new Map<string, EntryTexts>()
    const walk = reader.walk?.() ?? null
    let read = 0
    const inside = new WalkProblems()
    for (const entry of entryTexts(reader, walk, inside)) {
      entries.set(identityOf(entry), entry)
      if (++read % BATCH === 0) yield* pause
    }
    const why = problemOf(reader, walk)
    const problem = combine([why, inside.reason].filter((reason) => reason !== null))
    return { entries, atMillis, problem, complete: why === null }
  })

function* changesOf(
  { info: { id, name, type } }: MapReader,
  old: ReadonlyMap<string, EntryTexts>,
  { complete, entries }: Held,
  seconds: number
): Generator<Change, void> {
  for (const [key, entry] of entries) {
    const was = old.get(key)
    if (was === undefined) yield { change: "entryAdded", id, name, type, ...wholeEntry(entry) }
    else if (isChanged(was, entry)) {
      yield { change: "entryChanged", id, name, type, ...changedEntry(was, entry, seconds) }
    }
  }
  // What could not be read is not gone.
  for (const [key, entry] of complete ? old : []) {
    if (!entries.has(key)) yield { change: "entryRemoved", id, name, type, ...wholeEntry(entry) }
  }
}
