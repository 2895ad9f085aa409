import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Json } from "../../btf/render/RenderedValue.ts"
import { corrupted, type Reason, truncated, unsupported, within } from "../../core/Reason.ts"
import { type MapReader, problemOf } from "../MapReader.ts"
import { isTurnDue, pause } from "../Pause.ts"
import { DumpDocument, type Header } from "../Report.ts"
import type { Change } from "./DiffChange.ts"
import { changedFields } from "./DiffFields.ts"
import { changedEntry, isChanged, wholeEntry } from "./EntryChange.ts"
import { type EntryTexts, entryTexts, identityOf } from "./EntryJson.ts"

/**
 * One map of a side of a diff.
 *
 * @since 0.1.0
 * @category models
 */
export interface DiffMap {
  readonly id: number
  readonly name: string
  readonly type: string
  /** The entries in the order of the walk, anew at each call. */
  readonly entries: () => Iterable<EntryTexts>
  /** After `entries` has ended: why entries, or parts of them, are missing, or null. */
  readonly missing: () => Reason | null
}

/**
 * One side of a comparison: a dump that was kept, or a kernel that stands still.
 *
 * @since 0.1.0
 * @category models
 */
export interface DiffSide {
  readonly header: Header
  readonly maps: ReadonlyArray<DiffMap>
  /** With whatever else is known of each, counters for instance. */
  readonly programs: ReadonlyArray<{ readonly id: number; readonly name: string; readonly type: string }>
}

/**
 * A file that is not a dump: `why` says where it broke.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotADump extends Schema.TaggedError<NotADump>("ktstr/NotADump")("NotADump", {
  subject: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `${this.subject} is not a dump: ${this.why}; make one with ktstr dump --json`
  }
}

/** Changes at once, and entries between two looks at the clock. */
const BATCH = 256
const STEP = 256

const CUT = truncated("a limit cut its entries off")

/**
 * One side of a diff, from the document of `ktstr dump --json`.
 *
 * @since 0.1.0
 * @category comparing
 */
export const sideOfDocument = (document: DumpDocument): DiffSide => ({
  header: document,
  maps: document.maps.map(({ entries, id, name, problem, truncated, type }) => ({
    id,
    name,
    type,
    *entries() {
      for (const entry of entries) {
        const perCpu = "cpus" in entry
        const bytes = perCpu ? entry.cpuBytes : entry.valueBytes
        yield {
          key: JSON.stringify(entry.key),
          keyBytes: entry.keyBytes === undefined ? null : JSON.stringify(entry.keyBytes),
          value: JSON.stringify(perCpu ? entry.cpus : entry.value),
          valueBytes: bytes === undefined ? null : JSON.stringify(bytes),
          perCpu
        }
      }
    },
    missing: () => problem ?? (truncated ? CUT : null)
  })),
  programs: document.programs
})

/**
 * A kernel that stands still, read while it is compared.
 *
 * @since 0.1.0
 * @category comparing
 */
export const sideOfReaders = (
  header: Header,
  readers: ReadonlyArray<MapReader>,
  programs: DiffSide["programs"]
): DiffSide => ({
  header,
  maps: readers.map((reader) => {
    const { id, name, type } = reader.info
    let problem: () => Reason | null = () => problemOf(reader, null)
    return {
      id,
      name,
      type,
      *entries() {
        const walk = reader.walk?.() ?? null
        problem = () => problemOf(reader, walk)
        yield* entryTexts(reader, walk)
      },
      missing: () => problem()
    }
  }),
  programs
})

type HasHeader = Pick<DiffSide, "header">

/** Do both come from the same boot, as far as their headers say? */
export const isSameBoot = ({ header: { kernel: a } }: HasHeader, { header: { kernel: b } }: HasHeader): boolean =>
  a.release === b.release && a.kaslrOffset === b.kaslrOffset && (a.boot ?? b.boot) === (b.boot ?? a.boot)

/**
 * Seconds from one side to the other; null if a side does not say when its kernel was frozen, or if they come from
 * different boots.
 *
 * @since 0.1.0
 * @category comparing
 */
export const secondsBetween = (from: DiffSide, to: DiffSide): number | null =>
  from.header.freeze === null || to.header.freeze === null || !isSameBoot(from, to)
    ? null
    : (Date.parse(to.header.freeze.at) - Date.parse(from.header.freeze.at)) / 1000

/**
 * The differences, map by map in the order of ids, then programs. Of the first side, one map's entries are kept in
 * memory at a time, as text; the second side's are streamed.
 *
 * @since 0.1.0
 * @category comparing
 */
export const diffSnapshots = (from: DiffSide, to: DiffSide): Stream.Stream<Change> =>
  Stream.suspend(() => {
    const steps = changesAndPauses(from, to)
    const batch = Effect.suspend(() => {
      const found: Array<Change> = []
      for (let step = steps.next(); step.done !== true; step = steps.next()) {
        if (step.value !== null) found.push(step.value)
        if (found.length === BATCH || isTurnDue()) return Effect.as(pause, Chunk.unsafeFromArray(found))
      }
      return found.length === 0 ? Effect.fail(Option.none<never>()) : Effect.succeed(Chunk.unsafeFromArray(found))
    })
    return Stream.repeatEffectChunkOption(batch)
  })

/** `diffSnapshots` for plain code. */
export function* changes(from: DiffSide, to: DiffSide): Generator<Change, void> {
  for (const step of changesAndPauses(from, to)) if (step !== null) yield step
}

/** `changes`, with a null after some entries that were compared: equal sides go long without a change. */
function* changesAndPauses(from: DiffSide, to: DiffSide): Generator<Change | null, void> {
  const seconds = secondsBetween(from, to)
  const sameBoot = isSameBoot(from, to)
  if (!sameBoot) {
    const [a, b] = [from, to].map(({ header: { kernel: { boot, release } } }) =>
      `${release}${boot ? ` (${boot})` : ""}`
    )
    yield {
      change: "problem",
      problem: unsupported(
        `the two come from different boots (${a}, ${b}): comparing by name and type, since ids differ`
      )
    }
  }
  for (const [old, now] of paired(from.maps, to.maps, sameBoot)) {
    if (old !== undefined && now !== undefined) yield* mapChanges(old, now, seconds)
    else yield { change: old === undefined ? "mapAdded" : "mapRemoved", ...named((old ?? now)!) }
  }
  for (const [old, now] of paired(from.programs, to.programs, sameBoot)) {
    if (old === undefined || now === undefined) {
      yield { change: old === undefined ? "programAdded" : "programRemoved", ...named((old ?? now)!) }
    } else {
      const fields = changedFields(plain(old, now), plain(now, old), seconds)
      if (fields.length > 0) yield { change: "programChanged", ...named(now), fields }
    }
  }
}

interface Named {
  readonly id: number
  readonly name: string
  readonly type: string
}

const named = ({ id, name, type }: Named): Named => ({ id, name, type })

/** The fields of a program that both sides have. */
const plain = (program: object, other: object): Json =>
  JSON.parse(JSON.stringify(Object.fromEntries(Object.entries(program).filter(([name]) => name in other))))

/**
 * Pairs with the same id, name and type, by ascending id. Between different boots ids do not count: the first of a
 * name and type is paired with the other side's first, and so on.
 */
function* paired<A extends Named>(
  from: ReadonlyArray<A>,
  to: ReadonlyArray<A>,
  sameBoot: boolean
): Generator<readonly [A | undefined, A | undefined]> {
  const keyed = (side: ReadonlyArray<A>): ReadonlyMap<string, A> => {
    const found = new Map<string, A>()
    const counts = new Map<string, number>()
    for (const each of side.toSorted((a, b) => a.id - b.id)) {
      const name = JSON.stringify([each.name, each.type])
      const nth = counts.get(name) ?? 0
      counts.set(name, nth + 1)
      found.set(`${sameBoot ? each.id : nth} ${name}`, each)
    }
    return found
  }
  const earlier = keyed(from)
  const later = keyed(to)
  const pairs = [
    ...Array.from(earlier, ([key, each]) => [each, later.get(key)] as const),
    ...Array.from(later).flatMap(([key, each]) => earlier.has(key) ? [] : [[undefined, each] as const])
  ]
  yield* pairs.sort((a, b) => (a[1] ?? a[0])!.id - (b[1] ?? b[0])!.id)
}

function* mapChanges(from: DiffMap, to: DiffMap, seconds: number | null): Generator<Change | null> {
  const map = named(to)
  /** By identity; null: the second side has it too. */
  const before = new Map<string, EntryTexts | null>()
  let twice = 0
  let compared = 0
  for (const entry of from.entries()) {
    const key = identityOf(entry)
    if (before.has(key)) twice++
    else before.set(key, entry)
    if (++compared % STEP === 0) yield null
  }
  for (const entry of to.entries()) {
    if (++compared % STEP === 0) yield null
    const key = identityOf(entry)
    const old = before.get(key)
    if (old === undefined) {
      yield { change: "entryAdded", ...map, ...wholeEntry(entry) }
      continue
    }
    before.set(key, null)
    if (old === null) twice++
    else if (isChanged(old, entry)) yield { change: "entryChanged", ...map, ...changedEntry(old, entry, seconds) }
  }
  for (const entry of before.values()) {
    if (entry !== null) yield { change: "entryRemoved", ...map, ...wholeEntry(entry) }
  }
  for (const [side, { missing }] of [["first", from], ["second", to]] as const) {
    const why = missing()
    if (why !== null) yield { change: "problem", problem: within(`map ${map.id} (${map.name}) of the ${side}`, why) }
  }
  if (twice > 0) {
    yield {
      change: "problem",
      problem: corrupted(`map ${map.id} (${map.name}): entries that repeat a key: ${twice}`)
    }
  }
}
