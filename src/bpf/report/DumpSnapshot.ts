import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type BpfUnreadable, countEntries, type MapAccessorService } from "../MapAccessor.ts"
import { pause } from "../Pause.ts"
import { DumpDocument, type Header } from "../Report.ts"
import { type Dump, jsonDocument, ndjsonRecords } from "./DumpWriter.ts"
import { secondThread } from "./WalkThread.ts"

/**
 * The source of a dump: a kernel's maps, and the dump's header. `Snapshot` and `LiveSnapshot` both are one.
 *
 * @since 0.1.0
 * @category models
 */
export interface DumpSource {
  readonly header: Header
  readonly maps: MapAccessorService
}

/**
 * The whole dump as one document. It has every entry in memory: for maps of millions of entries take `ndjson`.
 *
 * @since 0.1.0
 * @category rendering
 */
export const dump = (source: DumpSource): Effect.Effect<DumpDocument, BpfUnreadable> =>
  Stream.runCollect(pieces(source, jsonDocument)).pipe(
    Effect.map((parts) => Buffer.concat(Chunk.toReadonlyArray(parts)).toString()),
    Effect.flatMap((text) => Effect.orDie(Schema.decode(Schema.parseJson(DumpDocument))(text)))
  )

/**
 * The dump as NDJSON (`DumpRecord`s), UTF-8 in pieces of some 256 KiB, each its own. Memory stays flat. Large hash maps are
 * written by two threads.
 *
 * @since 0.1.0
 * @category rendering
 */
export const ndjson = (source: DumpSource): Stream.Stream<Uint8Array, BpfUnreadable> => pieces(source, ndjsonRecords)

const pieces = (
  { header, maps }: DumpSource,
  write: (dump: Dump) => Generator<Uint8Array, void>
): Stream.Stream<Uint8Array, BpfUnreadable> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const { items, problems } = yield* maps.list
    const programs = yield* maps.programs
    const counts: Array<Effect.Effect<void>> = []
    const readers = yield* Effect.forEach(items, maps.reader)
    const second = yield* secondThread(readers, Infinity)
    const written = write({
      header,
      readers,
      second,
      programs: programs.items,
      problems: [...problems, ...programs.problems],
      limit: Infinity,
      onMap: (reader, entries) => void counts.push(countEntries(reader, entries))
    })
    return Stream.repeatEffectChunkOption(Effect.suspend(() => {
      const next = written.next()
      const counted = Effect.all(counts.splice(0), { discard: true })
      return Effect.zipRight(
        counted,
        next.done === true ? Effect.fail(Option.none<never>()) : Effect.as(pause, Chunk.of(next.value.slice()))
      )
    }))
  })).pipe(Stream.withSpan("MapAccessor.dump", { attributes: { source: header.source.kind } }))
