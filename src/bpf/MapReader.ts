import type { Codec } from "../btf/render/Codec.ts"
import { lossesInside, type RenderedValue } from "../btf/render/RenderedValue.ts"
import { combine, type Reason } from "../core/Reason.ts"
import type { EntryWalk } from "./EntryWalk.ts"
import type { MapInfo } from "./MapInfo.ts"
import type { Consistency, Details } from "./Report.ts"

/**
 * A map that is ready to be read: its types compiled once, and walks over its entries. Plain code: loops over entries
 * use it as it is; `MapAccessor.entries` wraps it in a Stream.
 *
 * @since 0.1.0
 * @category models
 */
export interface MapReader {
  readonly info: MapInfo
  readonly consistency: Consistency
  readonly key: Codec
  readonly value: Codec
  /** Null, or one more than the highest CPU number: the length of an entry's `cpus`. */
  readonly cpus: number | null
  /** A new walk from the first entry. Null when this source cannot read the entries: `problem` says why. */
  readonly walk: (() => EntryWalk) | null
  /** The plain data that another thread makes the same walk of; undefined where it cannot. */
  readonly elsewhere?: (() => object | undefined) | undefined
  /** The map's state beyond its entries, by type; null if its type has none. */
  readonly details: Details | null
  /** A problem known before the walk: types that do not fit, a map type that is not supported; else null. */
  readonly problem: Reason | null
}

/**
 * One entry, decoded and with its bytes (what these are: `EntryWalk`).
 *
 * @since 0.1.0
 * @category models
 */
export type MapEntry = SingleEntry | PerCpuEntry

/**
 * An entry with one value.
 *
 * @since 0.1.0
 * @category models
 */
export interface SingleEntry {
  readonly _tag: "single"
  readonly key: RenderedValue
  readonly value: RenderedValue
  readonly keyBytes: Uint8Array
  readonly valueBytes: Uint8Array
}

/**
 * An entry of a per-CPU map: `cpus[n]` is CPU n's copy, undefined when it has none.
 *
 * @since 0.1.0
 * @category models
 */
export interface PerCpuEntry {
  readonly _tag: "perCpu"
  readonly key: RenderedValue
  readonly cpus: ReadonlyArray<RenderedValue | undefined>
  readonly keyBytes: Uint8Array
  readonly cpuBytes: ReadonlyArray<Uint8Array | undefined>
}

/** A key or value as a tree; what is missing in it is counted among the walk's problems. */
export const countedTree = (
  codec: Codec,
  walk: EntryWalk,
  view: DataView,
  at: number,
  length: number
): RenderedValue => {
  const value = codec.tree(view, at, { length })
  if (codec.refers) { for (const loss of lossesInside(value)) walk.problems.add(loss) }
  return value
}

/**
 * Decode the entry that `walk` stands at; copies its bytes, so it stays valid. What is missing inside its key or value is
 * counted among the walk's problems.
 *
 * @since 0.1.0
 * @category parsing
 */
export const decodeEntry = (reader: MapReader, walk: EntryWalk): MapEntry => {
  const copy = (view: DataView, at: number, length: number): Uint8Array =>
    new Uint8Array(view.buffer, view.byteOffset + at, length).slice()
  // A codec that follows pointers moves the window under the bytes: they are copied first.
  const keyBytes = copy(walk.keyView, walk.keyAt, walk.keyLength)
  const key = countedTree(reader.key, walk, walk.keyView, walk.keyAt, walk.keyLength)
  const valueBytes = () => copy(walk.valueView, walk.valueAt, walk.valueLength)
  const value = () => countedTree(reader.value, walk, walk.valueView, walk.valueAt, walk.valueLength)
  if (reader.cpus === null) {
    walk.value(0)
    const bytes = valueBytes()
    return { _tag: "single", key, value: value(), keyBytes, valueBytes: bytes }
  }
  const cpus: Array<RenderedValue | undefined> = []
  const cpuBytes: Array<Uint8Array | undefined> = []
  for (let cpu = 0; cpu < reader.cpus; cpu++) {
    const there = walk.value(cpu)
    cpuBytes.push(there ? valueBytes() : undefined)
    cpus.push(there ? value() : undefined)
  }
  return { _tag: "perCpu", key, cpus, keyBytes, cpuBytes }
}

/**
 * A walk's problem after its end, together with what was known before it.
 *
 * @since 0.1.0
 * @category reading
 */
export const problemOf = (reader: MapReader, walk: EntryWalk | null): Reason | null =>
  combine([reader.problem, walk?.problems.reason ?? null].filter((reason) => reason !== null))
