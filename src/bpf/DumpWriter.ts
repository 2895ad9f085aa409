import { ByteSink } from "../btf/ByteSink.ts"
import type { EntryWalk } from "./EntryWalk.ts"
import { type MapReader, problemOf } from "./MapReader.ts"
import type { Header, ProgramInfo } from "./Report.ts"

/** What a dump prints. `limit` bounds the entries of each map. */
export interface Dump {
  readonly header: Header
  readonly readers: Iterable<MapReader>
  readonly programs: ReadonlyArray<ProgramInfo>
  readonly problems: ReadonlyArray<string>
  readonly limit: number
}

/** Output is handed on in pieces of about this many bytes. */
const CHUNK = 1 << 18

const encoder = new TextEncoder()

/**
 * The `--json` document as UTF-8, piece by piece; a piece is borrowed until the next is asked for. However many entries
 * a map has, memory stays flat.
 */
export function* jsonDocument(dump: Dump): Generator<Uint8Array, void> {
  const out = new ByteSink(CHUNK * 2)
  out.text(`${JSON.stringify(dump.header).slice(0, -1)},"maps":[`)
  let separator = "\n"
  for (const reader of dump.readers) {
    const fields = { ...reader.info, details: reader.details, consistency: reader.consistency }
    out.text(`${separator}${JSON.stringify(fields).slice(0, -1)},"entries":[`)
    separator = ",\n"
    const walk = reader.walk?.() ?? null
    const entries = writeEntries(out, reader, walk, dump.limit, JSON_FRAME)
    let step = entries.next()
    for (; step.done !== true; step = entries.next()) yield step.value
    const { truncated } = step.value
    out.text(`],${JSON.stringify({ truncated, problem: problemOf(reader, walk) }).slice(1)}`)
  }
  out.text(`],\n"programs":${JSON.stringify(dump.programs)},"problems":${JSON.stringify(dump.problems)}}\n`)
  yield out.take()
}

/** The `--ndjson` records (`DumpRecord`), one a line, as UTF-8 in borrowed pieces. */
export function* ndjsonRecords(dump: Dump): Generator<Uint8Array, void> {
  const out = new ByteSink(CHUNK * 2)
  const line = (record: object): void => out.text(`${JSON.stringify(record)}\n`)
  line({ record: "dump", ...dump.header })
  for (const reader of dump.readers) {
    const { id, name } = reader.info
    line({ record: "map", ...reader.info, details: reader.details, consistency: reader.consistency })
    const walk = reader.walk?.() ?? null
    const open = encoder.encode(`${JSON.stringify({ record: "entry", id, name }).slice(0, -1)},"key":`)
    const entries = writeEntries(out, reader, walk, dump.limit, { first: open, open, close: encoder.encode("}\n") })
    let step = entries.next()
    for (; step.done !== true; step = entries.next()) yield step.value
    const { truncated, written } = step.value
    line({ record: "mapEnd", id, name, entries: written, truncated, problem: problemOf(reader, walk) })
  }
  for (const program of dump.programs) line({ record: "program", ...program })
  for (const problem of dump.problems) line({ record: "problem", problem })
  yield out.take()
}

/** The bytes around an entry: `first` or `open` before its key, `close` after its value. */
interface Frame {
  readonly first: Uint8Array
  readonly open: Uint8Array
  readonly close: Uint8Array
}

const JSON_FRAME: Frame = {
  first: encoder.encode("\n{\"key\":"),
  open: encoder.encode(",\n{\"key\":"),
  close: encoder.encode("}")
}
const VALUE = encoder.encode(",\"value\":")
const CPUS = encoder.encode(",\"cpus\":[")
const NULL = encoder.encode("null")
const COMMA = 0x2c
const CLOSE = 0x5d

/** The hot loop: each entry inside its frame, without allocating for any. */
function* writeEntries(
  out: ByteSink,
  reader: MapReader,
  walk: EntryWalk | null,
  limit: number,
  frame: Frame
): Generator<Uint8Array, { readonly written: number; readonly truncated: boolean }> {
  let written = 0
  if (walk === null) return { written, truncated: false }
  const { cpus, key, value } = reader
  while (walk.next()) {
    if (written === limit) return { written, truncated: true }
    out.raw(written === 0 ? frame.first : frame.open)
    key.json(walk.keyView, walk.keyAt, out, walk.keyLength)
    if (cpus === null) {
      walk.value(0)
      out.raw(VALUE)
      value.json(walk.valueView, walk.valueAt, out, walk.valueLength)
    } else {
      out.raw(CPUS)
      for (let cpu = 0; cpu < cpus; cpu++) {
        if (cpu > 0) out.byte(COMMA)
        if (walk.value(cpu)) value.json(walk.valueView, walk.valueAt, out, walk.valueLength)
        else out.raw(NULL)
      }
      out.byte(CLOSE)
    }
    out.raw(frame.close)
    written++
    if (out.at >= CHUNK) yield out.take()
  }
  return { written, truncated: false }
}
