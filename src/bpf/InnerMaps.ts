import * as Effect from "effect/Effect"
import { absent, corrupted, type Reason } from "../core/Reason.ts"
import type { EntryWalk } from "./EntryWalk.ts"
import type { BpfUnreadable, MapAccessorService } from "./MapAccessor.ts"
import type { MapInfo } from "./MapInfo.ts"
import type { MapReader } from "./MapReader.ts"

/**
 * The maps that maps of maps hold, by id, ready to be read; an id that is not in the list has no reader.
 *
 * @since 0.1.0
 * @category models
 */
export type InnerMaps = ReadonlyMap<number, MapReader>

/** Names of the types whose entries are maps (`MapInfo.type`). */
const OUTER: ReadonlySet<string> = new Set(["array_of_maps", "hash_of_maps"])

/** Are the map's values maps? */
export const holdsMaps = ({ type }: Pick<MapInfo, "type">): boolean => OUTER.has(type)

/** The id of the map in the entry that the walk over a map of maps stands at: in every source the value's four bytes. */
const innerId = (walk: EntryWalk): number => {
  walk.value(0)
  return walk.valueView.getUint32(walk.valueAt, true)
}

/**
 * Get ready to read the maps that `readers` of maps of maps hold. Walks those once, for the ids.
 *
 * @since 0.1.0
 * @category constructors
 */
export const openInnerMaps = (
  accessor: MapAccessorService,
  readers: Iterable<MapReader>
): Effect.Effect<InnerMaps, BpfUnreadable> =>
  Effect.gen(function*() {
    const ids = new Set<number>()
    for (const { info, walk } of readers) {
      if (!holdsMaps(info) || walk === null) continue
      for (const slots = walk(); slots.next();) ids.add(innerId(slots))
    }
    const { items } = yield* accessor.list
    const held = items.filter(({ id }) => ids.has(id))
    return new Map(
      yield* Effect.forEach(held, (info) => Effect.map(accessor.reader(info), (reader) => [info.id, reader] as const))
    )
  })

/** The map in an entry: its id, and how it is read or why it is not. */
export const innerMapAt = (
  walk: EntryWalk,
  inner: InnerMaps
): { readonly id: number; readonly reader: MapReader | null; readonly problem: Reason | null } => {
  const id = innerId(walk)
  const reader = inner.get(id) ?? null
  if (reader === null) return { id, reader, problem: absent("no map in the list has this id: it is gone") }
  // kernel/bpf/map_in_map.c `bpf_map_meta_alloc` refuses them, v6.1 to v6.18
  return holdsMaps(reader.info)
    ? { id, reader: null, problem: corrupted("a map of maps inside a map of maps") }
    : { id, reader, problem: null }
}
