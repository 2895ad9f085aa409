import type { Codec } from "../btf/Codec.ts"
import type { RenderedValue } from "../btf/RenderedValue.ts"
import type { EntryWalk } from "./EntryWalk.ts"
import type { MapInfo } from "./MapInfo.ts"
import type { Consistency } from "./Report.ts"

/**
 * A map that is ready to be read: its types compiled once, and walks over its entries. Plain code: loops over entries
 * use it as it is; `MapAccessor.entries` wraps it in a Stream.
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
  /** What is known to be wrong before the walk: types that do not fit, a type that is not read yet; else null. */
  readonly problem: string | null
}

/** One entry, decoded and with its bytes. In per-CPU maps `cpus[n]` is CPU n's copy, undefined when it has none. */
export type MapEntry =
  | {
    readonly key: RenderedValue
    readonly value: RenderedValue
    readonly keyBytes: Uint8Array
    readonly valueBytes: Uint8Array
  }
  | {
    readonly key: RenderedValue
    readonly cpus: ReadonlyArray<RenderedValue | undefined>
    readonly keyBytes: Uint8Array
    readonly cpuBytes: ReadonlyArray<Uint8Array | undefined>
  }

/** Decode the entry that `walk` stands at; copies its bytes, so it stays valid. */
export const decodeEntry = (reader: MapReader, walk: EntryWalk): MapEntry => {
  const { keySize, valueSize } = reader.info
  const copy = (view: DataView, at: number, length: number): Uint8Array =>
    new Uint8Array(view.buffer, view.byteOffset + at, length).slice()
  const keyBytes = copy(walk.keyView, walk.keyAt, keySize)
  const key = reader.key.tree(walk.keyView, walk.keyAt)
  if (reader.cpus === null) {
    walk.value(0)
    const value = reader.value.tree(walk.valueView, walk.valueAt)
    return { key, value, keyBytes, valueBytes: copy(walk.valueView, walk.valueAt, valueSize) }
  }
  const cpus: Array<RenderedValue | undefined> = []
  const cpuBytes: Array<Uint8Array | undefined> = []
  for (let cpu = 0; cpu < reader.cpus; cpu++) {
    const there = walk.value(cpu)
    cpus.push(there ? reader.value.tree(walk.valueView, walk.valueAt) : undefined)
    cpuBytes.push(there ? copy(walk.valueView, walk.valueAt, valueSize) : undefined)
  }
  return { key, cpus, keyBytes, cpuBytes }
}

/** A walk's problem after its end, together with what was known before it. */
export const problemOf = (reader: MapReader, walk: EntryWalk | null): string | null => {
  const found = [reader.problem, walk?.trouble.text ?? null].filter((text) => text !== null)
  return found.length === 0 ? null : found.join("; ")
}
