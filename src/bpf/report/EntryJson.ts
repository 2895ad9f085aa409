import { ByteSink, type Literal, literal } from "../../btf/render/ByteSink.ts"
import type { Codec } from "../../btf/render/Codec.ts"
import type { WalkProblems } from "../../core/WalkProblems.ts"
import type { EntryWalk } from "../EntryWalk.ts"
import type { MapReader } from "../MapReader.ts"

const OPEN = 0x5b
const CLOSE = 0x5d
const COMMA = 0x2c
const NULL = literal("null")
const VALUE = literal(",\"value\":")
const CPUS = literal(",\"cpus\":")

/** The bytes around an entry: `first`, or behind another `open`, before its key; `close` after its value. */
export interface Frame {
  readonly first: Literal
  readonly open: Literal
  readonly close: Literal
}

const hexOf = (view: DataView, at: number, length: number): string =>
  `"${Buffer.from(view.buffer, view.byteOffset + at, length).toString("hex")}"`

/** Writes a map's entries as JSON: the one way from an entry to text. */
export class EntryJson {
  private readonly key: Codec
  private readonly value: Codec
  private readonly cpus: number | null

  constructor({ cpus, key, value }: Pick<MapReader, "cpus" | "key" | "value">) {
    this.key = key
    this.value = value
    this.cpus = cpus
  }

  /** Hot: write the entry that a walk stands at, without allocating. */
  writeEntry(walk: EntryWalk, out: ByteSink, open: Literal, close: Literal): void {
    this.openEntry(walk, out, open)
    out.literal(this.cpus === null ? VALUE : CPUS)
    const bytes = this.writeValue(walk, out)
    if (bytes !== null) out.text(`,"${this.cpus === null ? "valueBytes" : "cpuBytes"}":${bytes}`)
    out.literal(close)
  }

  /** Write an entry up to its key, and the key's bytes where it hides some. */
  openEntry(walk: EntryWalk, out: ByteSink, open: Literal): void {
    out.literal(open)
    const bytes = this.writeKey(walk, out)
    if (bytes !== null) out.text(`,"keyBytes":${bytes}`)
  }

  /**
   * Write the key of the entry that a walk stands at. Where its typed form hides bytes, the result is all of them in hex,
   * as JSON; else null.
   */
  writeKey({ keyAt, keyLength, keyView }: EntryWalk, out: ByteSink): string | null {
    const { key } = this
    const moved = key.refers ? bytesToMove(key, keyView, keyAt, keyLength) : null
    return key.json(keyView, keyAt, out, keyLength) ? moved ?? hexOf(keyView, keyAt, keyLength) : null
  }

  /**
   * Write the value of the entry that a walk stands at; of per-CPU maps an array by CPU, null for a CPU without. The result
   * is as of `writeKey`: in per-CPU maps an array again, null for a value that hides none.
   */
  writeValue(walk: EntryWalk, out: ByteSink): string | null {
    if (this.cpus !== null) return this.writeCopies(walk, out, this.cpus)
    const { value } = this
    walk.value(0)
    const { valueAt, valueLength, valueView } = walk
    const moved = value.refers ? bytesToMove(value, valueView, valueAt, valueLength) : null
    return value.json(valueView, valueAt, out, valueLength) ? moved ?? hexOf(valueView, valueAt, valueLength) : null
  }

  private writeCopies(walk: EntryWalk, out: ByteSink, cpus: number): string | null {
    const { value } = this
    let hidden: Array<string | null> | undefined
    out.byte(OPEN)
    for (let cpu = 0; cpu < cpus; cpu++) {
      if (cpu > 0) out.byte(COMMA)
      if (!walk.value(cpu)) {
        out.literal(NULL)
        continue
      }
      const { valueAt, valueLength, valueView } = walk
      const moved = value.refers ? bytesToMove(value, valueView, valueAt, valueLength) : null
      if (value.json(valueView, valueAt, out, valueLength)) {
        hidden ??= Array.from({ length: cpus }, () => null)
        hidden[cpu] = moved ?? hexOf(valueView, valueAt, valueLength)
      }
    }
    out.byte(CLOSE)
    return hidden === undefined ? null : `[${hidden.map((bytes) => bytes ?? "null").join(",")}]`
  }
}

/** The bytes of a value that hides some and follows pointers: its writing moves the window under them. */
const bytesToMove = ({ hides }: Codec, view: DataView, at: number, length: number): string | null =>
  hides !== null && hides(view, at) ? hexOf(view, at, length) : null

/**
 * An entry as JSON texts, which are quick to compare.
 *
 * @since 0.1.0
 * @category models
 */
export interface EntryTexts {
  readonly key: string
  /** All bytes of the key in hex, where `key` hides some; else null. */
  readonly keyBytes: string | null
  /** In per-CPU maps an array by CPU. */
  readonly value: string
  /** As `keyBytes`; in per-CPU maps an array by CPU. */
  readonly valueBytes: string | null
  readonly perCpu: boolean
}

/** The entries of a walk as texts. Parts that are missing inside entries are counted among `problems`. */
export function* entryTexts(
  reader: MapReader,
  walk: EntryWalk | null,
  problems: WalkProblems | null = walk?.problems ?? null
): Generator<EntryTexts, void> {
  const json = new EntryJson(reader)
  const out = new ByteSink(4096)
  out.problems = problems
  const text = (): string => Buffer.from(out.take()).toString()
  while (walk?.next() === true) {
    const keyBytes = json.writeKey(walk, out)
    const key = text()
    const valueBytes = json.writeValue(walk, out)
    yield { key, keyBytes, value: text(), valueBytes, perCpu: reader.cpus !== null }
  }
}

/** The identity by which entries are paired: the key's bytes, which `key` determines where it hides none. */
export const identityOf = ({ key, keyBytes }: Pick<EntryTexts, "key" | "keyBytes">): string =>
  keyBytes === null ? key : `${key} ${keyBytes}`
