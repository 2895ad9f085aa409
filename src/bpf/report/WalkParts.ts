import { ByteSink, type Literal } from "../../btf/render/ByteSink.ts"
import type { EntryWalk, PlacedWalk } from "../EntryWalk.ts"
import type { MapReader } from "../MapReader.ts"
import { type CodecData, codecData } from "./CodecData.ts"
import type { EntryJson, Frame } from "./EntryJson.ts"

/**
 * How two threads share a map.
 *
 * @since 0.1.0
 * @category models
 */
export interface Shares {
  /** Maps of fewer entries are written by one thread: they are done before a second one is up to speed. */
  readonly least: number
  /** Bytes of JSON that a part has, or so. */
  readonly partBytes: number
}

export const SHARES: Shares = { least: 100_000, partBytes: 1 << 18 }
/** A part that has more than this many times the bytes that were expected is left to the map's own walk. */
const ROOM = 2
/** Parts that each thread may have written ahead. */
const SLOTS = 8
/** Places that are looked at to estimate how many entries a map has: as many stretches of as many places. */
const STRETCHES = 16
const STRETCH = 64
/** … and as many bytes of JSON at most, or so. */
const MOST_LOOKED = 1 << 22
/** Entries between two looks at whether the other thread shall stop. */
const LOOKS = 64

/** Words that both threads read and write. */
const TAKEN = 0 // parts that were taken by either
const PASSED = 1 // parts that were written out, or need not be
const STOP = 2 // 1: no more parts
const FIRST_SLOT = 3
/** Of each slot of the other thread: the part that is in it, its bytes (-1: it is for the map's own walk), its entries. */
const PART = 0
const BYTES = 1
const ENTRIES = 2
const SLOT_WORDS = 3

/** A map's parts, as both threads see them: plain data. */
export interface SharedParts {
  readonly words: Int32Array
  /** The slots of the second thread, and the bytes of each. */
  readonly bytes: Uint8Array
  readonly slotBytes: number
  readonly count: number
  /** How many places a part has; the last may have fewer. */
  readonly partPlaces: number
  readonly places: number
  readonly open: Literal
  readonly close: Literal
}

/** A map as the second thread is told of it: plain data. */
export interface WalkTask {
  /** The map's name. */
  readonly name: string
  /** `MapReader.elsewhere` */
  readonly walk: object
  readonly cpus: number | null
  readonly key: CodecData
  readonly value: CodecData
  readonly parts: SharedParts
}

const placesOf = ({ partPlaces, places }: SharedParts, part: number): readonly [from: number, to: number] => [
  part * partPlaces,
  Math.min((part + 1) * partPlaces, places)
]

/** Take the next part, if it is among the next `ahead` ones; else -1. */
const takePart = ({ count, words }: SharedParts, ahead: number): number => {
  for (;;) {
    const part = Atomics.load(words, TAKEN)
    if (part >= count || part >= Atomics.load(words, PASSED) + ahead) return -1
    if (Atomics.compareExchange(words, TAKEN, part, part + 1) === part) return part
  }
}

/** Write a part into a sink; gives its entries, or -1 where it is for the map's own walk to write: it found a problem, say. */
const writePart = (parts: SharedParts, part: number, walk: PlacedWalk, json: EntryJson, out: ByteSink): number => {
  const [from, to] = placesOf(parts, part)
  const { close, open, slotBytes, words } = parts
  const problems = walk.problems.total
  let entries = 0
  walk.narrow(from, to, 0)
  out.problems = walk.problems
  while (walk.next()) {
    json.writeEntry(walk, out, open, close)
    if (out.at > slotBytes || (++entries % LOOKS === 0 && Atomics.load(words, STOP) === 1)) return -1
  }
  return walk.problems.total === problems && walk.place === to ? entries : -1
}

/** The second thread's work on one map, until all parts are taken or it is to stop. */
export const writePartsAhead = (parts: SharedParts, walk: PlacedWalk, json: EntryJson): void => {
  const { bytes, slotBytes, words } = parts
  const out = new ByteSink(0)
  let slot = 0 // the one with the oldest part: they are used in turn
  for (;;) {
    const passed = Atomics.load(words, PASSED) // first: `stop` changes it last, so a thread that stops does not wait for it
    if (Atomics.load(words, STOP) === 1 || Atomics.load(words, TAKEN) >= parts.count) return
    const at = FIRST_SLOT + slot * SLOT_WORDS
    const part = words[at + PART] < passed ? takePart(parts, SLOTS * 2) : -1
    if (part < 0) {
      Atomics.wait(words, PASSED, passed)
      continue
    }
    const room = bytes.subarray(slot * slotBytes, (slot + 1) * slotBytes)
    out.into(room)
    const entries = writePart(parts, part, walk, json, out)
    words[at + ENTRIES] = entries
    words[at + BYTES] = entries >= 0 && out.bytes === room ? out.at : -1
    Atomics.store(words, at + PART, part)
    slot = (slot + 1) % SLOTS
  }
}

/** A part that was written ahead; its bytes are borrowed until it is passed. */
interface DonePart {
  readonly bytes: Uint8Array
  readonly entries: number
}

/** The parts of a map that are written ahead, seen from the thread that writes the dump. */
export class PartsAhead {
  readonly count: number
  private readonly parts: SharedParts
  private readonly walk: PlacedWalk
  /** Parts that this thread wrote while the other one was at an earlier part. */
  private readonly own = new Map<number, DonePart & { readonly out: ByteSink } | undefined>()
  private readonly sinks: Array<ByteSink> = []

  constructor(split: Split, private readonly json: EntryJson) {
    this.parts = split.task.parts
    this.count = this.parts.count
    this.walk = split.ahead
  }

  /** The first place of a part, and the one behind its last. */
  places(part: number): readonly [from: number, to: number] {
    return placesOf(this.parts, part)
  }

  /** Is a part written ahead, or for the map's own walk to write? That takes it where nobody has. */
  isSettled(part: number): boolean {
    if (this.own.has(part) || this.slotOf(part) >= 0) return true
    return Atomics.compareExchange(this.parts.words, TAKEN, part, part + 1) === part
  }

  /** Write one of the next parts, as long as there is one that nobody has taken, and room for it. */
  writeNext(): boolean {
    const { own, parts, sinks } = this
    const part = own.size < SLOTS ? takePart(parts, SLOTS * 2) : -1
    if (part < 0) return false
    const out = sinks.pop() ?? new ByteSink(parts.slotBytes)
    const entries = writePart(parts, part, this.walk, this.json, out)
    own.set(part, entries < 0 ? undefined : { bytes: out.take(), entries, out })
    if (entries < 0) this.keep(out)
    return true
  }

  /** A part that was written ahead and is to be used; undefined where the map's own walk has to write it. */
  find(part: number): DonePart | undefined {
    const { own, parts: { bytes, slotBytes, words } } = this
    const at = this.slotOf(part)
    if (at < 0) return own.get(part)
    const start = (at - FIRST_SLOT) / SLOT_WORDS * slotBytes
    return words[at + BYTES] < 0
      ? undefined
      : { bytes: bytes.subarray(start, start + words[at + BYTES]), entries: words[at + ENTRIES] }
  }

  private slotOf(part: number): number {
    const { words } = this.parts
    for (let at = FIRST_SLOT; at < words.length; at += SLOT_WORDS) {
      if (Atomics.load(words, at + PART) === part) return at
    }
    return -1
  }

  /** The parts before this one are written out. */
  pass(part: number): void {
    const { own, parts: { words } } = this
    const used = own.get(part - 1)
    own.delete(part - 1)
    if (used !== undefined) this.keep(used.out)
    Atomics.store(words, PASSED, part)
    Atomics.notify(words, PASSED)
  }

  /** Use a sink again, but not one that a huge entry has made grow. */
  private keep(out: ByteSink): void {
    out.take()
    if (out.bytes.length <= this.parts.slotBytes * 2) this.sinks.push(out)
  }

  /** No part is wanted any more. */
  stop(): void {
    const { words } = this.parts
    Atomics.store(words, STOP, 1)
    this.pass(this.count) // a thread that is about to wait sees another number
  }
}

/** A map whose entries two threads write. */
export interface Split {
  readonly task: WalkTask
  /** The map's own walk. */
  readonly walk: PlacedWalk
  /** This thread's walk over parts that it writes ahead. */
  readonly ahead: PlacedWalk
}

/** Whether a map may have enough entries for a second thread. */
export const isLarge = ({ elsewhere, info }: MapReader, { least }: Shares): boolean =>
  elsewhere !== undefined && info.maxEntries >= least

const isPlaced = (walk: EntryWalk): walk is PlacedWalk => "narrow" in walk

/** How many entries a map has and how many bytes of JSON they take, judged by some of its places. */
const estimate = (walk: PlacedWalk, json: EntryJson, { close, open }: Frame): { entries: number; bytes: number } => {
  const out = new ByteSink()
  const { places } = walk
  const step = Math.max(Math.floor(places / STRETCHES), STRETCH)
  let entries = 0
  let bytes = 0
  let looked = 0
  for (let from = 0; from < places && bytes < MOST_LOOKED; from += step) {
    const to = Math.min(from + STRETCH, places)
    walk.narrow(from, to, 0)
    for (let met = 0; met < STRETCH * 4 && bytes < MOST_LOOKED && walk.next(); met++) {
      json.writeEntry(walk, out, open, close)
      bytes += out.take().length
      entries++
    }
    looked += to - from
  }
  return { entries: entries / looked * places, bytes: bytes / looked * places }
}

/** How two threads share a map; undefined where one writes it: it has too few entries, or another thread cannot read it. */
export const splitOf = (
  reader: MapReader,
  walk: EntryWalk,
  json: EntryJson,
  frame: Frame,
  limit: number,
  shares: Shares
): Split | undefined => {
  const { least, partBytes } = shares
  if (!isLarge(reader, shares) || limit < least || !isPlaced(walk)) return undefined
  const [data, key, value] = [reader.elsewhere?.(), codecData(reader.key), codecData(reader.value)]
  const ahead = reader.walk?.()
  if (data === undefined || key === undefined || value === undefined || ahead === undefined || !isPlaced(ahead)) {
    return undefined
  }
  const { places } = walk
  const { bytes, entries } = estimate(ahead, json, frame)
  if (!(entries >= least && bytes > partBytes && bytes / entries <= partBytes)) return undefined
  const partPlaces = Math.max(1, Math.floor(places / (bytes / partBytes)))
  const count = Math.ceil(places / partPlaces)
  const words = new Int32Array(new SharedArrayBuffer((FIRST_SLOT + SLOTS * SLOT_WORDS) * 4))
  for (let at = FIRST_SLOT; at < words.length; at += SLOT_WORDS) words[at + PART] = -1
  const parts = {
    words,
    bytes: new Uint8Array(new SharedArrayBuffer(SLOTS * partBytes * ROOM)),
    slotBytes: partBytes * ROOM,
    count,
    partPlaces,
    places,
    open: frame.open,
    close: frame.close
  }
  return { task: { name: reader.info.name, walk: data, cpus: reader.cpus, key, value, parts }, walk, ahead }
}
