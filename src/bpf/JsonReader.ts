import type { Json, RenderedValue } from "../btf/render/RenderedValue.ts"
import { WalkProblems } from "../core/WalkProblems.ts"
import type { EntryWalk } from "./EntryWalk.ts"
import type { MapInfo } from "./MapInfo.ts"
import type { MapReader } from "./MapReader.ts"
import { derivedCodec } from "./values/DerivedCodec.ts"

/**
 * An entry as plain JSON, as the dump document has it: of a per-CPU map `cpus` has each CPU's value, null for one without.
 *
 * @since 0.1.0
 * @category models
 */
export type JsonEntry =
  | { readonly key: Json; readonly value: Json }
  | { readonly key: Json; readonly cpus: ReadonlyArray<Json> }

/** The bytes of such keys and values are the UTF-8 of their JSON. */
const codec = derivedCodec((view, at, length) =>
  valueOf(JSON.parse(Buffer.from(view.buffer, view.byteOffset + at, length).toString()))
)

const viewOf = (json: Json): DataView => {
  const bytes = new TextEncoder().encode(JSON.stringify(json))
  return new DataView(bytes.buffer)
}

/** Of JSON itself, so null has no place in a C type: it is shown as a string. */
const valueOf = (json: Json): RenderedValue => {
  if (typeof json === "number") {
    return Number.isInteger(json)
      ? { _tag: "int", value: json }
      : { _tag: "float", value: json }
  }
  if (typeof json === "boolean") return { _tag: "bool", value: json }
  if (typeof json === "string" || json === null) return { _tag: "string", value: String(json) }
  if (isArray(json)) return { _tag: "array", elements: json.map(valueOf), omitted: 0 }
  return {
    _tag: "struct",
    members: Object.entries(json).map(([name, value]) => ({ name, value: valueOf(value) }))
  }
}

const isArray = (json: Json): json is ReadonlyArray<Json> => Array.isArray(json)

class JsonWalk implements EntryWalk {
  readonly problems = new WalkProblems()
  readonly keyAt = 0
  readonly valueAt = 0
  keyView = viewOf(null)
  valueView = viewOf(null)
  private index = -1

  constructor(private readonly entries: ReadonlyArray<JsonEntry>) {}

  get keyLength(): number {
    return this.keyView.byteLength
  }

  get valueLength(): number {
    return this.valueView.byteLength
  }

  next(): boolean {
    if (++this.index >= this.entries.length) return false
    this.keyView = viewOf(this.entries[this.index].key)
    return true
  }

  value(copy: number): boolean {
    const entry = this.entries[this.index]
    const value = "value" in entry ? entry.value : entry.cpus.at(copy) ?? null
    this.valueView = viewOf(value)
    return "value" in entry || value !== null
  }
}

/** Reads entries that are given as JSON; a per-CPU map has as many CPUs as its longest entry. */
export const jsonReader = (info: MapInfo, entries: ReadonlyArray<JsonEntry>): MapReader => {
  const cpus = entries.reduce<number | null>(
    (most, entry) => "cpus" in entry ? Math.max(most ?? 0, entry.cpus.length) : most,
    null
  )
  return {
    info,
    consistency: "frozen",
    key: codec,
    value: codec,
    cpus,
    walk: () => new JsonWalk(entries),
    details: null,
    problem: null
  }
}
