import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { Pause } from "../core/Pause.ts"
import { type BpfUnreadable, type Listing, type MapAccessorService, MapNotFound, MapProblem } from "./MapAccessor.ts"
import type { MapInfo } from "./MapInfo.ts"
import { decodeEntry, type MapEntry, type MapReader, problemOf } from "./MapReader.ts"
import type { ProgramInfo } from "./Report.ts"

/** Entries decoded at once. */
const BATCH = 256
/** Entries between two looks at the clock. */
const LOOKS = 32

/**
 * A `MapAccessor` of what a source lists, and how it reads a map.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeAccessor = (source: {
  readonly maps: Listing<MapInfo>
  readonly programs: Listing<ProgramInfo>
  readonly reader: (map: MapInfo) => Effect.Effect<MapReader, BpfUnreadable>
}): MapAccessorService => ({
  maps: Effect.succeed(source.maps),
  programs: Effect.succeed(source.programs),
  find: (idOrName) => {
    const { items } = source.maps
    const found = items.filter(({ id, name }) => String(id) === idOrName || name === idOrName)
    return found.length > 0
      ? Effect.succeed(found)
      : new MapNotFound({ wanted: idOrName, names: items.map(({ name }) => name) })
  },
  reader: source.reader,
  entries: (map) => Stream.unwrap(Effect.map(source.reader(map), entriesOf))
})

const entriesOf = (reader: MapReader): Stream.Stream<MapEntry, MapProblem> =>
  Stream.suspend(() => {
    const walk = reader.walk?.() ?? null
    const missing = Stream.suspend(() => {
      const problem = problemOf(reader, walk)
      return problem === null ? Stream.empty : Stream.fail(new MapProblem({ ...reader.info, problem }))
    })
    if (walk === null) return missing
    const pause = new Pause()
    const batch = Effect.suspend(() => {
      const entries: Array<MapEntry> = []
      while (walk.next()) {
        entries.push(decodeEntry(reader, walk))
        if (entries.length === BATCH || (entries.length % LOOKS === 0 && pause.due)) break
      }
      return entries.length === 0
        ? Effect.fail(Option.none<never>())
        : Effect.as(pause.now, Chunk.unsafeFromArray(entries))
    })
    return Stream.concat(Stream.repeatEffectChunkOption(batch), missing)
  })
