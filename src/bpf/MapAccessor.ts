import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { formatReason, Reason } from "../core/Reason.ts"
import { decodeEntries, type EntryMismatch, type EntrySchemas, type TypedEntry } from "./EntriesAs.ts"
import { type JsonEntry, jsonReader } from "./JsonReader.ts"
import type { MapInfo } from "./MapInfo.ts"
import { decodeEntry, type MapEntry, type MapReader, problemOf } from "./MapReader.ts"
import { isTurnDue, pause } from "./Pause.ts"
import type { ProgramInfo } from "./Report.ts"

/** Entries decoded at once. */
const BATCH = 256
/** Entries between two looks at the clock. */
const LOOKS = 32

/**
 * Entries that `MapAccessor.entries` and dumps have read, by the consistency of what they were read from.
 *
 * @since 0.1.0
 * @category reading
 */
export const entryCount: Metric.Metric.Counter<number> = Metric.counter("ktstr_map_entries", {
  description: "entries of BPF maps that were read",
  incremental: true
})

/** Count `entries` of a map that was read. */
export const countEntries = ({ consistency }: Pick<MapReader, "consistency">, entries: number): Effect.Effect<void> =>
  Metric.incrementBy(Metric.tagged(entryCount, "consistency", consistency), entries)

/**
 * No listed map has that id or name; `names` are those of the listed maps. `omitted` is the number of maps that the source
 * was asked not to keep.
 *
 * @since 0.1.0
 * @category errors
 */
export class MapNotFound extends Schema.TaggedError<MapNotFound>("ktstr/MapNotFound")("MapNotFound", {
  wanted: Schema.String,
  names: Schema.Array(Schema.String),
  omitted: Schema.Int
}) {
  override get message() {
    const { names, omitted, wanted } = this
    if (names.length === 0) {
      return `no map ${wanted}: ${
        omitted === 0 ? "this kernel has no BPF maps" : `\`keep\` excludes all ${omitted} maps`
      }`
    }
    const listed = `${names.slice(0, 20).join(", ")}${names.length > 20 ? ", …" : ""}`
    return `no map ${wanted}: there are ${listed}${omitted === 0 ? "" : `; \`keep\` excludes ${omitted} more`}`
  }
}

/**
 * Entries of a map, or parts of them, are missing: `problem` says which and why. Raised after every entry that could be read.
 *
 * @since 0.1.0
 * @category errors
 */
export class MapProblem extends Schema.TaggedError<MapProblem>("ktstr/MapProblem")("MapProblem", {
  id: Schema.Int,
  /** The map's name; `name` is that of every Error. */
  map: Schema.String,
  problem: Reason
}) {
  override get message() {
    return `map ${this.id} (${this.map}): ${formatReason(this.problem)}`
  }
}

/**
 * The kernel's BPF structures cannot be found at all: `what` was looked for, `why` it is not there, `hint` says what to do.
 *
 * @since 0.1.0
 * @category errors
 */
export class BpfUnreadable extends Schema.TaggedError<BpfUnreadable>("ktstr/BpfUnreadable")("BpfUnreadable", {
  what: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `${this.what}: ${this.why}; ${this.hint}`
  }
}

/**
 * A list as a source gives it: the items it could read, and a reason for each that it could not.
 *
 * @since 0.1.0
 * @category models
 */
export interface Listing<A> {
  readonly items: ReadonlyArray<A>
  readonly problems: ReadonlyArray<Reason>
}

/**
 * The service behind the tag `MapAccessor`.
 *
 * @since 0.1.0
 * @category models
 */
export interface MapAccessorService {
  /** Every map, in the order of ids. */
  readonly list: Effect.Effect<Listing<MapInfo>, BpfUnreadable>
  /** Every program, in the order of ids. */
  readonly programs: Effect.Effect<Listing<ProgramInfo>, BpfUnreadable>
  /** The maps with this id (decimal digits), or with this name: several may share one. */
  readonly find: (idOrName: string) => Effect.Effect<ReadonlyArray<MapInfo>, MapNotFound | BpfUnreadable>
  /** Compile the map's types and get ready to walk it. The reader's `problem` says what cannot be read. */
  readonly reader: (map: MapInfo) => Effect.Effect<MapReader, BpfUnreadable>
  /** The map's entries, decoded. What could not be read of them makes it end with `MapProblem`, after all the others. */
  readonly entries: (map: MapInfo) => Stream.Stream<MapEntry, MapProblem | BpfUnreadable>
  /** As `entries`, decoded by Schemas. One that does not fit ends it with `EntryMismatch`. */
  readonly entriesAs: <K, KI, V, VI>(
    map: MapInfo,
    schemas: EntrySchemas<K, KI, V, VI>
  ) => Stream.Stream<TypedEntry<K, V>, EntryMismatch | MapProblem | BpfUnreadable>
}

/**
 * The source that a `MapAccessor` is made from: its lists, and how it reads a map.
 *
 * @since 0.1.0
 * @category models
 */
export interface MapSource {
  readonly maps: Listing<MapInfo>
  readonly programs: Listing<ProgramInfo>
  /** As `MapAccessorService.reader`. */
  readonly reader: (map: MapInfo) => Effect.Effect<MapReader, BpfUnreadable>
  /** How many maps are not in the list because the source was asked not to keep them; 0 if not given. */
  readonly omitted?: number | undefined
}

/**
 * Maps of a test, and their entries by the map's name; a map that `entries` does not name is empty.
 *
 * @since 0.1.0
 * @category models
 */
export interface TestMaps {
  readonly maps: ReadonlyArray<MapInfo>
  readonly entries: { readonly [name: string]: ReadonlyArray<JsonEntry> }
  readonly programs?: ReadonlyArray<ProgramInfo> | undefined
}

/**
 * The BPF maps and programs of one kernel at one instant. Every source gives the same shapes.
 *
 * @since 0.1.0
 * @category services
 */
export class MapAccessor extends Context.Tag("ktstr/bpf/MapAccessor")<MapAccessor, MapAccessorService>() {
  /** The accessor of a source. */
  static readonly make = (source: MapSource): MapAccessorService => {
    const entries = (map: MapInfo) => Stream.unwrapScoped(Effect.flatMap(source.reader(map), entriesOf))
    return {
      list: Effect.succeed(source.maps),
      programs: Effect.succeed(source.programs),
      find: (idOrName) => {
        const { items } = source.maps
        const found = items.filter(({ id, name }) => String(id) === idOrName || name === idOrName)
        return found.length > 0
          ? Effect.succeed(found)
          : new MapNotFound({ wanted: idOrName, names: items.map(({ name }) => name), omitted: source.omitted ?? 0 })
      },
      reader: source.reader,
      entries,
      entriesAs: (map, schemas) => decodeEntries(map, entries(map), schemas)
    }
  }

  /** Maps without a kernel, for tests: entries are plain JSON. What is made of an accessor (dumps, diffs) works on them too. */
  static readonly layerTest = ({ entries, maps, programs = [] }: TestMaps): Layer.Layer<MapAccessor> =>
    Layer.succeed(
      MapAccessor,
      MapAccessor.make({
        maps: { items: maps, problems: [] },
        programs: { items: programs, problems: [] },
        reader: (map) => Effect.succeed(jsonReader(map, entries[map.name] ?? []))
      })
    )
}

/** The span and the count of a read belong to the scope: as layers of the stream every entry would pass through them. */
const entriesOf = (reader: MapReader): Effect.Effect<Stream.Stream<MapEntry, MapProblem>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { id, name, type } = reader.info
    yield* Effect.makeSpanScoped("MapAccessor.entries", { attributes: { id, name, type } })
    let read = 0
    yield* Effect.addFinalizer(() => countEntries(reader, read))
    const walk = reader.walk?.() ?? null
    const missing = Stream.suspend(() => {
      const problem = problemOf(reader, walk)
      return problem === null ? Stream.empty : Stream.fail(new MapProblem({ id, map: name, problem }))
    })
    if (walk === null) return missing
    let size = 1 // a first look at a large map that is nearly empty must not wait for a whole batch
    const batch = Effect.suspend(() => {
      const entries: Array<MapEntry> = []
      while (walk.next()) {
        entries.push(decodeEntry(reader, walk))
        if (entries.length === size || (entries.length % LOOKS === 0 && isTurnDue())) break
      }
      read += entries.length
      size = Math.min(size * 4, BATCH)
      return entries.length === 0
        ? Effect.zipRight(pause, Effect.fail(Option.none<never>()))
        : Effect.as(pause, Chunk.unsafeFromArray(entries))
    })
    return Stream.concat(Stream.repeatEffectChunkOption(batch), missing)
  })
