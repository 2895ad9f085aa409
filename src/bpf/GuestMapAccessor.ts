import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { GuestKernel } from "../memory/GuestKernel.ts"
import type { EntryWalk } from "./EntryWalk.ts"
import { GuestMaps } from "./GuestMaps.ts"
import { type BpfUnreadable, MapAccessor, MapNotFound, MapProblem } from "./MapAccessor.ts"
import type { MapInfo } from "./MapInfo.ts"
import { decodeEntry, type MapEntry, type MapReader, problemOf } from "./MapReader.ts"

/** Entries decoded between two chances for other fibers. */
const BATCH = 256

/** The maps and programs in a guest's memory. */
export const makeGuestMapAccessor: Effect.Effect<typeof MapAccessor.Service, BpfUnreadable, GuestKernel> = Effect.gen(
  function*() {
    const guest = yield* GuestMaps.make(yield* GuestKernel)
    const maps = { items: guest.maps.items.map(({ info }) => info), problems: guest.maps.problems }
    const reader = (map: MapInfo): Effect.Effect<MapReader> => Effect.sync(() => guest.reader(map))
    return {
      maps: Effect.succeed(maps),
      programs: Effect.succeed(guest.programs),
      find: (idOrName) => {
        const found = maps.items.filter(({ id, name }) => String(id) === idOrName || name === idOrName)
        return found.length > 0
          ? Effect.succeed(found)
          : new MapNotFound({ wanted: idOrName, names: maps.items.map(({ name }) => name) })
      },
      reader,
      entries: (map) => Stream.unwrap(Effect.map(reader(map), entriesOf))
    }
  }
)

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

/** `MapAccessor` over the `GuestKernel`. */
export const layerGuestMaps: Layer.Layer<MapAccessor, BpfUnreadable, GuestKernel> = Layer.effect(
  MapAccessor,
  makeGuestMapAccessor
)
