import { ByteSink, literal } from "../../btf/render/ByteSink.ts"
import { escapedJson } from "../../core/EscapeText.ts"
import { Losses, lossesIn } from "../../core/Losses.ts"
import type { Reason } from "../../core/Reason.ts"
import type { EntryWalk, PlacedWalk } from "../EntryWalk.ts"
import { holdsMaps, innerMapAt, type InnerMaps } from "../InnerMaps.ts"
import { type MapReader, problemOf } from "../MapReader.ts"
import type { Header, ProgramInfo } from "../Report.ts"
import { EntryJson, type Frame } from "./EntryJson.ts"
import { PartsAhead, splitOf } from "./WalkParts.ts"
import type { SecondThread } from "./WalkThread.ts"

/**
 * The contents of a dump. `limit` bounds the entries of each map.
 *
 * @since 0.1.0
 * @category models
 */
export interface Dump {
  readonly header: Header
  readonly readers: Iterable<MapReader>
  readonly programs: ReadonlyArray<ProgramInfo>
  readonly problems: ReadonlyArray<Reason>
  /**
   * The scheduler's state, which only the document has: a `SchedSnapshot` of `ktstr/sched`. What of it could not be read is a
   * loss; a queue that was just being changed, and disagrees with itself, is none.
   */
  readonly sched?: object | undefined
  readonly limit: number
  /** With the values of maps of maps go these maps' entries; not given: the ids alone. */
  readonly inner?: InnerMaps | undefined
  /** Told of each map how many entries were written, after the last. */
  readonly onMap?: ((reader: MapReader, entries: number) => void) | undefined
  /** Writes parts of large maps meanwhile; the pieces are the same bytes. */
  readonly second?: Pick<SecondThread, "share" | "shares"> | undefined
  /** Counts, while the dump is written, the parts that could not be read whole. */
  readonly losses?: Losses | undefined
}

/** Output is handed on in pieces of about this many bytes. */
const CHUNK = 1 << 18

/**
 * The `--json` document as UTF-8, piece by piece; a piece is borrowed until the next is asked for. However many entries
 * a map has, memory stays flat.
 *
 * @since 0.1.0
 * @category rendering
 */
export function* jsonDocument(dump: Dump): Generator<Uint8Array, void> {
  const out = new ByteSink(CHUNK * 2)
  const { losses = new Losses() } = dump
  out.text(`${escapedJson(dump.header).slice(0, -1)},"maps":[`)
  let separator = "\n"
  for (const reader of dump.readers) {
    const fields = { ...reader.info, details: reader.details, consistency: reader.consistency }
    out.text(`${separator}${escapedJson(fields).slice(0, -1)},"entries":[`)
    separator = ",\n"
    const walk = reader.walk?.() ?? null
    const { truncated, written } = yield* writeEntries(out, reader, walk, { ...dump, losses }, JSON_FRAME)
    dump.onMap?.(reader, written)
    const problem = noted(problemOf(reader, walk), reader, losses)
    out.text(`],${escapedJson({ truncated, problem }).slice(1)}`)
  }
  for (const problem of dump.problems) losses.add(problem)
  out.text(`],\n"programs":${escapedJson(dump.programs)},"problems":${escapedJson(dump.problems)}`)
  if (dump.sched !== undefined) {
    losses.include(lossesIn(dump.sched, ({ kind }) => kind !== "corrupted"))
    out.text(`,\n"sched":${escapedJson(dump.sched)}`)
  }
  out.text(`,\n"losses":${losses.count}}\n`)
  yield out.take()
}

/**
 * The `--ndjson` records (`DumpRecord`), one a line, as UTF-8 in borrowed pieces.
 *
 * @since 0.1.0
 * @category rendering
 */
export function* ndjsonRecords(dump: Dump): Generator<Uint8Array, void> {
  const out = new ByteSink(CHUNK * 2)
  const { losses = new Losses() } = dump
  const line = (record: object): void => out.text(`${escapedJson(record)}\n`)
  line({ record: "dump", ...dump.header })
  for (const reader of dump.readers) {
    const { id, name } = reader.info
    line({ record: "map", ...reader.info, details: reader.details, consistency: reader.consistency })
    const walk = reader.walk?.() ?? null
    const open = literal(`${escapedJson({ record: "entry", id, name }).slice(0, -1)},"key":`)
    const frame = { first: open, open, close: literal("}\n") }
    const { truncated, written } = yield* writeEntries(out, reader, walk, { ...dump, losses }, frame)
    dump.onMap?.(reader, written)
    const problem = noted(problemOf(reader, walk), reader, losses)
    line({ record: "mapEnd", id, name, entries: written, truncated, problem })
  }
  for (const program of dump.programs) line({ record: "program", ...program })
  for (const problem of dump.problems) {
    losses.add(problem)
    line({ record: "problem", problem })
  }
  line({ record: "end", losses: losses.count })
  yield out.take()
}

/** A map's problem, counted if it is a loss. */
const noted = (problem: Reason | null, { info }: MapReader, losses: Losses | undefined): Reason | null => {
  losses?.add(problem, `map ${info.id} ${info.name}: `)
  return problem
}

const JSON_FRAME: Frame = {
  first: literal("\n{\"key\":"),
  open: literal(",\n{\"key\":"),
  close: literal("}")
}
/** Without line breaks: an NDJSON record is one line. */
const INNER_FRAME: Frame = {
  first: literal("{\"key\":"),
  open: literal(",{\"key\":"),
  close: JSON_FRAME.close
}
const VALUE = literal(",\"value\":")

/** How far a map was written. */
interface Written {
  readonly written: number
  readonly truncated: boolean
}

/** All entries of a map, each inside its frame. */
function* writeEntries(
  out: ByteSink,
  reader: MapReader,
  walk: EntryWalk | null,
  dump: Pick<Dump, "inner" | "limit" | "losses" | "second">,
  frame: Frame
): Generator<Uint8Array, Written> {
  if (walk === null) return { written: 0, truncated: false }
  const json = new EntryJson(reader)
  const { limit, second } = dump
  const split = second && splitOf(reader, walk, json, frame, limit, second.shares)
  if (split === undefined) return yield* writeWalked(out, reader, walk, json, dump, frame)
  const ahead = new PartsAhead(split, json)
  second?.share(split.task)
  try {
    return yield* writeParts(out, reader, split.walk, json, dump, frame, ahead)
  } finally {
    ahead.stop()
  }
}

/** The hot loop: entries from where a walk stands until it ends. `written` were written before. */
function* writeWalked(
  out: ByteSink,
  reader: MapReader,
  walk: EntryWalk,
  json: EntryJson,
  { inner, limit, losses }: Pick<Dump, "inner" | "limit" | "losses">,
  frame: Frame,
  written = 0
): Generator<Uint8Array, Written> {
  const held = holdsMaps(reader.info) ? inner : undefined
  out.problems = walk.problems
  while (walk.next()) {
    if (written === limit) return { written, truncated: true }
    const open = written === 0 ? frame.first : frame.open
    if (held === undefined) json.writeEntry(walk, out, open, frame.close)
    else {
      json.openEntry(walk, out, open)
      out.literal(VALUE)
      yield* writeInnerMap(out, walk, held, { limit, losses })
      out.problems = walk.problems
      out.literal(frame.close)
    }
    written++
    if (out.at >= CHUNK) yield out.take()
  }
  return { written, truncated: false }
}

/**
 * The same part by part, some of which were written ahead, by this thread or the other one. Those count only where this walk
 * would have done the same; else, and where a part is not there yet, this walk writes it: it never waits.
 */
function* writeParts(
  out: ByteSink,
  reader: MapReader,
  walk: PlacedWalk,
  json: EntryJson,
  dump: Pick<Dump, "inner" | "limit" | "losses">,
  frame: Frame,
  ahead: PartsAhead
): Generator<Uint8Array, Written> {
  let written = 0
  for (let part = 0; part < ahead.count && walk.place < walk.places; part++) {
    while (!ahead.isSettled(part) && ahead.writeNext());
    const [from, to] = ahead.places(part)
    const done = walk.place === from && written > 0 ? ahead.find(part) : undefined
    if (done !== undefined && written + done.entries <= dump.limit && walk.skip(to, done.entries)) {
      if (out.at > 0) yield out.take()
      yield done.bytes
      written += done.entries
    } else {
      walk.narrow(walk.place, to)
      const here = yield* writeWalked(out, reader, walk, json, dump, frame, written)
      if (here.truncated) return here
      written = here.written
    }
    ahead.pass(part + 1)
  }
  return { written, truncated: false }
}

/** The map that an entry of a map of maps holds, with its entries. */
function* writeInnerMap(
  out: ByteSink,
  walk: EntryWalk,
  inner: InnerMaps,
  { limit, losses }: Pick<Dump, "limit" | "losses">
): Generator<Uint8Array, void> {
  const { id, problem, reader } = innerMapAt(walk, inner)
  if (reader === null) {
    losses?.add(problem, `map ${id}: `)
    return out.text(escapedJson({ id, entries: [], truncated: false, problem }))
  }
  const { name, type } = reader.info
  out.text(`${escapedJson({ id, name, type }).slice(0, -1)},"entries":[`)
  const entries = reader.walk?.() ?? null
  const { truncated } = yield* writeEntries(out, reader, entries, { limit }, INNER_FRAME)
  out.text(`],${escapedJson({ truncated, problem: noted(problemOf(reader, entries), reader, losses) }).slice(1)}`)
}
