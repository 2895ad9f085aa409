import { ByteSink, literal } from "../../btf/render/ByteSink.ts"
import type { Codec } from "../../btf/render/Codec.ts"
import type { HiddenBytes } from "../../btf/render/HiddenCheck.ts"
import type { WalkProblems } from "../../core/WalkProblems.ts"
import type { EntryWalk } from "../EntryWalk.ts"
import type { MapReader } from "../MapReader.ts"

const OPEN = 0x5b
const CLOSE = 0x5d
const COMMA = 0x2c
const NULL = literal("null")

const hexOf = (view: DataView, at: number, length: number): string =>
  `"${Buffer.from(view.buffer, view.byteOffset + at, length).toString("hex")}"`

/** Writes a map's entries as JSON: the one way from an entry to text. Of most types no value hides bytes: none is looked at. */
export class EntryJson {
  private readonly key: Codec
  private readonly value: Codec
  private readonly cpus: number | null
  private readonly keyHides: HiddenBytes | null
  private readonly valueHides: HiddenBytes | null
  /**
   * Is `hiddenValue` asked before the value is written? Only where its codec moves the window under the bytes: after the
   * writing they are in the CPU's cache.
   */
  readonly asksFirst: boolean

  constructor({ cpus, key, value }: MapReader) {
    this.key = key
    this.value = value
    this.cpus = cpus
    this.keyHides = key.hides
    this.valueHides = value.hides
    this.asksFirst = value.hides !== null && value.refers
  }

  /**
   * All bytes of the key of the entry that a walk stands at, in hex, as JSON, where its typed form hides some; else null.
   * To be asked before the key is written: a codec that follows pointers moves the window under the bytes.
   */
  hiddenKey(walk: EntryWalk): string | null {
    return this.keyHides !== null && this.keyHides(walk.keyView, walk.keyAt)
      ? hexOf(walk.keyView, walk.keyAt, walk.keyLength)
      : null
  }

  /** As `hiddenKey`, of the value that the walk was moved to last. */
  hiddenValue(walk: EntryWalk): string | null {
    return this.valueHides !== null && this.valueHides(walk.valueView, walk.valueAt)
      ? hexOf(walk.valueView, walk.valueAt, walk.valueLength)
      : null
  }

  /** Write the key of the entry that a walk stands at; the result is `hiddenKey`. */
  writeKey(walk: EntryWalk, out: ByteSink): string | null {
    const hidden = this.hiddenKey(walk)
    this.key.json(walk.keyView, walk.keyAt, out, walk.keyLength)
    return hidden
  }

  /**
   * Write the value of the entry that a walk stands at; of per-CPU maps an array by CPU, null for a CPU without. Where its
   * form hides bytes, the result is them in hex, as JSON: in per-CPU maps an array again, null for a value that hides none.
   */
  writeValue(walk: EntryWalk, out: ByteSink): string | null {
    if (this.cpus !== null) return this.writeCopies(walk, out, this.cpus)
    walk.value(0)
    const first = this.asksFirst ? this.hiddenValue(walk) : null
    this.value.json(walk.valueView, walk.valueAt, out, walk.valueLength)
    return this.asksFirst ? first : this.hiddenValue(walk)
  }

  private writeCopies(walk: EntryWalk, out: ByteSink, cpus: number): string | null {
    const { asksFirst, value, valueHides } = this
    let hidden: Array<string | null> | undefined
    out.byte(OPEN)
    for (let cpu = 0; cpu < cpus; cpu++) {
      if (cpu > 0) out.byte(COMMA)
      if (!walk.value(cpu)) {
        out.literal(NULL)
        continue
      }
      const { valueAt, valueLength, valueView } = walk
      const first = asksFirst ? this.hiddenValue(walk) : null
      value.json(valueView, valueAt, out, valueLength)
      if (first !== null) (hidden ??= Array.from({ length: cpus }, () => null))[cpu] = first
      if (!asksFirst && valueHides !== null && valueHides(valueView, valueAt)) {
        hidden ??= Array.from({ length: cpus }, () => null)
        hidden[cpu] = hexOf(valueView, valueAt, valueLength)
      }
    }
    out.byte(CLOSE)
    return hidden === undefined ? null : `[${hidden.map((bytes) => bytes ?? "null").join(",")}]`
  }
}

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
