import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { EntryWalk } from "./EntryWalk.ts"
import { type BpfUnreadable, type Listing, type MapAccessor, MapNotFound, MapProblem } from "./MapAccessor.ts"
import type { MapInfo } from "./MapInfo.ts"
import { decodeEntry, type MapEntry, type MapReader, problemOf } from "./MapReader.ts"
import type { ProgramInfo } from "./Report.ts"

/** Entries decoded between two chances for other fibers. */
const BATCH = 256

/** A `MapAccessor` of what a source lists, and how it reads a map. */
export const accessorOf = (source: {
  readonly maps: Listing<MapInfo>
  readonly programs: Listing<ProgramInfo>
  readonly reader: (map: MapInfo) => Effect.Effect<MapReader, BpfUnreadable>
}): typeof MapAccessor.Service => ({
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
    return Stream.concat(Stream.fromIteratorSucceed(decoded(reader, walk), BATCH), missing)
  })

function* decoded(reader: MapReader, walk: EntryWalk): Generator<MapEntry, void> {
  while (walk.next()) yield decodeEntry(reader, walk)
}
