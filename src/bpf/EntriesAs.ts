import * as Chunk from "effect/Chunk"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Take from "effect/Take"
import { type Json, toJson } from "../btf/render/RenderedValue.ts"
import type { MapInfo } from "./MapInfo.ts"
import type { MapEntry } from "./MapReader.ts"

/**
 * How the keys and values of a map are decoded, from the plain JSON that `toJson` and the dump document have of them:
 * structs are objects, integers beyond 2^53 decimal strings, enums their names. In per-CPU maps `value` gets the array of the
 * CPUs' values, with null for a CPU that has none.
 *
 * @since 0.1.0
 * @category models
 */
export interface EntrySchemas<K, KI, V, VI> {
  readonly key: Schema.Schema<K, KI>
  readonly value: Schema.Schema<V, VI>
}

/**
 * An entry that was decoded by `EntrySchemas`.
 *
 * @since 0.1.0
 * @category models
 */
export interface TypedEntry<K, V> {
  readonly key: K
  readonly value: V
}

/**
 * The key or the value of an entry that a Schema does not decode. `index` counts the map's entries from 0; `got` is what the
 * map has, as JSON.
 *
 * @since 0.1.0
 * @category errors
 */
export class EntryMismatch extends Schema.TaggedError<EntryMismatch>("ktstr/EntryMismatch")("EntryMismatch", {
  id: Schema.Int,
  /** The name of the map. */
  map: Schema.String,
  index: Schema.Int,
  part: Schema.Literal("key", "value"),
  why: Schema.String,
  got: Schema.Unknown
}) {
  override get message() {
    return `map ${this.id} (${this.map}), entry ${this.index}: its ${this.part} does not fit the Schema: ${
      this.why.slice(0, 200)
    }; ` +
      `it is ${JSON.stringify(this.got).slice(0, 200)}; change the Schema`
  }
}

/** `entries`, those of `map`, decoded: all that fit before the first that does not. */
export const decodeEntries = <K, KI, V, VI, E>(
  map: MapInfo,
  entries: Stream.Stream<MapEntry, E>,
  schemas: EntrySchemas<K, KI, V, VI>
): Stream.Stream<TypedEntry<K, V>, E | EntryMismatch> =>
  Stream.suspend(() => {
    const decodeKey = ParseResult.decodeUnknownEither(schemas.key)
    const decodeValue = ParseResult.decodeUnknownEither(schemas.value)
    let index = 0
    const decoded = (chunk: Chunk.Chunk<MapEntry>): Chunk.Chunk<Take.Take<TypedEntry<K, V>, EntryMismatch>> => {
      const rows: Array<TypedEntry<K, V>> = []
      const endedBy = (part: EntryMismatch["part"], got: Json, issue: ParseResult.ParseIssue) =>
        Chunk.make(
          Take.chunk(Chunk.unsafeFromArray(rows)),
          Take.fail(new EntryMismatch({ id: map.id, map: map.name, index, part, why: reasonOf(issue), got }))
        )
      for (const entry of chunk) {
        const json = { key: toJson(entry.key), value: valueOf(entry) }
        const key = decodeKey(json.key)
        const value = decodeValue(json.value)
        if (Either.isLeft(key)) return endedBy("key", json.key, key.left)
        if (Either.isLeft(value)) return endedBy("value", json.value, value.left)
        rows.push({ key: key.right, value: value.right })
        index++
      }
      return Chunk.of(Take.chunk(Chunk.unsafeFromArray(rows)))
    }
    return Stream.flattenTake(Stream.mapChunks(entries, decoded))
  })

const valueOf = (entry: MapEntry): Json =>
  entry._tag === "single" ? toJson(entry.value) : entry.cpus.map((one) => one === undefined ? null : toJson(one))

/** The first issue in one line, behind the path of the member that it is about. */
const reasonOf = (issue: ParseResult.ParseIssue): string => {
  const [{ message, path }] = ParseResult.ArrayFormatter.formatIssueSync(issue)
  return path.length === 0 ? message : `${path.map(String).join(".")}: ${message}`
}
