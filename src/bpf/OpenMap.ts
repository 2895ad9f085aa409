import * as Either from "effect/Either"
import type { Btf } from "../btf/Btf.ts"
import { bytesCodec, type Codec, compile } from "../btf/render/Codec.ts"
import { absent, combine, corrupted, type Reason } from "../core/Reason.ts"
import type { EntryWalk } from "./EntryWalk.ts"
import type { MapInfo } from "./MapInfo.ts"
import type { MapReader } from "./MapReader.ts"
import { isIndexed } from "./MapType.ts"
import type { Consistency, Details } from "./Report.ts"
import { indexCodec } from "./values/IndexCodec.ts"

/** A map of a source that is open: its walk, and the codecs of what the walk gives. */
export interface OpenedMap {
  readonly walk: () => EntryWalk
  /** As `MapReader.elsewhere`. */
  readonly elsewhere?: () => object | undefined
  /** Instead of the map's own, where its BTF does not describe what the walk gives. */
  readonly key?: Codec
  readonly value?: Codec
  /** The map's state beyond its entries. */
  readonly details?: Details
  /** A limit of the source itself, which does not give all of the map. */
  readonly problem?: Reason
}

/** A map as its source found it. */
export interface FoundMap {
  readonly info: MapInfo
  /** The number of its type, `enum bpf_map_type`. */
  readonly type: number
  /** The map's own BTF, or why it cannot be read; undefined: it has none. */
  readonly types: Either.Either<Btf, Reason> | undefined
  /** The codec of a value's type: sources differ in what they give of special fields. */
  readonly compileValue: (types: Btf, typeId: number) => Codec
  readonly opened: Either.Either<OpenedMap, Reason>
  /** How the source reads entries, of a map that it can open. */
  readonly consistency: Consistency
  /** As `MapReader.cpus`. */
  readonly cpus: number | null
}

/** The one assembly of a reader: what does not fit is shown as bytes, and said in the reader's problem. */
export const readerOf = (map: FoundMap): MapReader => {
  const { info: { keySize, keyTypeId, valueSize, valueTypeId } } = map
  const problems: Array<Reason> = []
  const types = map.types === undefined ? undefined : Either.getOrElse(map.types, (problem) => {
    problems.push({ ...problem, text: `${problem.text}: shown as bytes` })
    return undefined
  })
  const codec = (what: "key" | "value", typeId: number, size: number, plain: Codec): Codec => {
    if (types === undefined || typeId === 0) return plain
    const typed = what === "key" ? compile(types, typeId) : map.compileValue(types, typeId)
    if (typed.size === size) return typed
    problems.push(corrupted(`its ${what} type has ${typed.size} bytes, its ${what}s ${size}: shown as bytes`))
    return plain
  }
  const plainKey = isIndexed(map.type) && keySize === 4 ? indexCodec : bytesCodec(keySize)
  const key = codec("key", keyTypeId, keySize, plainKey)
  const value = codec("value", valueTypeId, valueSize, bytesCodec(valueSize))
  if (Either.isLeft(map.opened)) problems.push(map.opened.left)
  const opened = Either.getOrUndefined(map.opened)
  if (opened?.problem !== undefined) problems.push(opened.problem)
  return {
    info: map.info,
    consistency: opened === undefined ? "unseen" : map.consistency,
    key: opened?.key ?? key,
    value: opened?.value ?? value,
    cpus: map.cpus,
    walk: opened?.walk ?? null,
    elsewhere: opened?.elsewhere,
    details: opened?.details ?? null,
    problem: combine(problems)
  }
}

/** The reader of a map that its source cannot read at all. */
export const unreadableMap = (info: MapInfo, problem: Reason): MapReader => ({
  info,
  consistency: "unseen",
  key: bytesCodec(info.keySize),
  value: bytesCodec(info.valueSize),
  cpus: null,
  walk: null,
  details: null,
  problem
})

export const NOT_LISTED = absent("it is not in the list")
