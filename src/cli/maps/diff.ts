import * as Effect from "effect/Effect"
import { listPrograms } from "../../bpf/guest/programs/ProgramWalk.ts"
import { DUMP_VERSION } from "../../bpf/Report.ts"
import type { Change, EntryWhole, FieldChange } from "../../bpf/report/DiffChange.ts"
import { parseDump } from "../../bpf/report/DiffInput.ts"
import {
  changes,
  type DiffSide,
  isSameBoot,
  secondsBetween,
  sideOfDocument,
  sideOfReaders
} from "../../bpf/report/SnapshotDiff.ts"
import type { Json } from "../../btf/render/RenderedValue.ts"
import { Losses } from "../../core/Losses.ts"
import { readForeignText, startsAsJson } from "../../core/process/ForeignText.ts"
import { formatReason } from "../../core/Reason.ts"
import { openImage } from "../../Ktstr.ts"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import type { SchedPart, SchedSource } from "../sched/schedPart.ts"
import { checkWhole, lossesLine } from "../source/answer.ts"
import type { Loss, Output } from "../source/options.ts"
import { format, Live } from "../source/snapshot.ts"
import { dim, green, red, yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { FileUnreadable } from "../terminal/exit.ts"
import { writePieces } from "../terminal/Output.ts"
import { type Printable, printable } from "../terminal/Printable.ts"
import * as Stages from "../terminal/Stages.ts"

/** Pieces of output of about this many characters. */
const PIECE = 1 << 16

export const diff = (config: Output & Loss & { readonly from: string; readonly to: string }) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    const from = yield* openSide(config.from)
    const to = yield* openSide(config.to)
    const sched = yield* schedOf(from, to)
    const losses = new Losses()
    const text = as === "json" ? jsonText : as === "ndjson" ? ndjsonText : peopleText
    yield* writePieces(pieces(text(from.side, to.side, sched, losses)))
    yield* checkWhole(losses, config)
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

interface Opened {
  readonly side: DiffSide
  /** Undefined of a dump without: of some maps only, or as records. */
  readonly sched: SchedSource | undefined
}

/** The changes of the scheduler where both sides have one, of one boot: tasks and counters of two have nothing in common. */
const schedOf = (from: Opened, to: Opened) =>
  Effect.gen(function*() {
    if (from.sched === undefined || to.sched === undefined || !isSameBoot(from.side, to.side)) return undefined
    // not before it is known that it is needed: its schemas cost as much as reading a small dump
    const { schedPart } = yield* Effect.promise(() => import("../sched/schedPart.ts"))
    return yield* schedPart(from.sched, to.sched)
  })

/** A dump if the file starts as JSON does, else an image of memory. */
const openSide = (path: string) =>
  Effect.gen(function*() {
    const unreadable = (why: string) =>
      new FileUnreadable({
        what: path,
        why,
        hint: "give a dump or a memory image"
      })
    if (yield* Effect.mapError(startsAsJson(path), unreadable)) {
      const document = yield* parseDump(yield* Effect.mapError(readForeignText(path), unreadable), path)
      const sched = document.sched === undefined ? undefined : { json: document.sched, subject: path }
      return { side: sideOfDocument(document), sched }
    }
    const { header, kernel, maps } = yield* openImage(path)
    const readers = yield* Effect.forEach((yield* maps.list).items, maps.reader)
    const programs = yield* Effect.provideService(listPrograms, GuestKernel, kernel)
    return {
      side: sideOfReaders(header, readers, programs.items),
      sched: kernel.memory.running ? undefined : { kernel }
    }
  })

function* pieces(lines: Iterable<string>): Generator<Printable, void> {
  let text = ""
  for (const line of lines) {
    text += line
    if (text.length < PIECE) continue
    yield printable(text)
    text = ""
  }
  yield printable(text)
}

/** The changes; what could not be compared is counted. */
function* counted(from: DiffSide, to: DiffSide, losses: Losses): Generator<Change> {
  for (const change of changes(from, to)) {
    if (change.change === "problem") losses.add(change.problem)
    yield change
  }
}

function* jsonText(from: DiffSide, to: DiffSide, sched: SchedPart | undefined, losses: Losses): Generator<string> {
  const head = {
    schema: "diff",
    version: DUMP_VERSION,
    from: identity(from),
    to: identity(to),
    seconds: secondsBetween(from, to)
  }
  yield `${JSON.stringify(head).slice(0, -1)},"changes":[`
  let separator = "\n"
  for (const change of counted(from, to, losses)) {
    yield `${separator}${JSON.stringify(change)}`
    separator = ",\n"
  }
  const part = sched === undefined
    ? ""
    : `,"sched":${JSON.stringify({ seconds: sched.seconds, changes: sched.changes })}`
  yield `]${part},"losses":${losses.count}}\n`
}

function* ndjsonText(from: DiffSide, to: DiffSide, sched: SchedPart | undefined, losses: Losses): Generator<string> {
  yield `${
    JSON.stringify({ record: "diff", from: identity(from), to: identity(to), seconds: secondsBetween(from, to) })
  }\n`
  for (const change of counted(from, to, losses)) yield `${JSON.stringify({ record: "change", ...change })}\n`
  for (const change of sched?.changes ?? []) yield `${JSON.stringify({ record: "schedChange", ...change })}\n`
  yield `${JSON.stringify({ record: "end", losses: losses.count })}\n`
}

/** The header of a side, without its maps. */
const identity = ({ header: { freeze, kernel, source } }: DiffSide) => ({ source, kernel, freeze })

function* peopleText(from: DiffSide, to: DiffSide, sched: SchedPart | undefined, losses: Losses): Generator<string> {
  const seconds = secondsBetween(from, to)
  if (seconds !== null) yield dim(`${seconds} s from the first to the second\n\n`)
  let count = 0
  let under = ""
  for (const change of counted(from, to, losses)) {
    count++
    const above = titleOf(change)
    if (above !== under && above !== "") yield `${under === "" ? "" : "\n"}${above}\n`
    under = above
    yield* linesOf(change)
  }
  if (sched !== undefined && sched.text !== "") yield `${count === 0 ? "" : "\n"}${sched.text}`
  else if (count === 0) yield "no difference\n"
  yield lossesLine(losses)
}

const titleOf = (change: Change): string =>
  change.change === "problem"
    ? ""
    : `${change.change.startsWith("program") ? "program" : "map"} ${change.id} ${escapeLine(change.name)} (${
      escapeLine(change.type)
    })`

function* linesOf(change: Change): Generator<string> {
  switch (change.change) {
    case "mapAdded":
    case "programAdded":
      return yield green("  + it is new\n")
    case "mapRemoved":
    case "programRemoved":
      return yield red("  - it is gone\n")
    case "entryAdded":
      return yield green(`  + ${entryText(change)}\n`)
    case "entryRemoved":
      return yield red(`  - ${entryText(change)}\n`)
    case "entryChanged":
      yield `  ~ ${shown(change.key)}${bytesText(change.keyBytes)}\n`
      yield* change.fields.map(fieldText)
      if (change.bytes === undefined) return
      return yield `      bytes ${shown(change.bytes.before)} → ${shown(change.bytes.after)}\n`
    case "programChanged":
      return yield* change.fields.map(fieldText)
    case "problem":
      return yield yellow(`problem: ${escapeLine(formatReason(change.problem))}\n`)
  }
}

const entryText = ({ key, keyBytes, value, valueBytes }: EntryWhole): string =>
  `${shown(key)}${bytesText(keyBytes)}: ${shown(value)}${bytesText(valueBytes)}`

/** The bytes that a key's or value's form does not show. */
const bytesText = (bytes: unknown): string => bytes === undefined ? "" : ` (bytes ${shown(bytes)})`

const shown = (json: unknown): string => escapeLine(JSON.stringify(json))

const fieldText = ({ after, before, cpu, delta, path, rate }: FieldChange): string => {
  const who = cpu === null ? "" : cpu === "all" ? "all CPUs " : `CPU ${cpu} `
  const by = delta === null
    ? ""
    : ` (${String(delta).startsWith("-") ? "" : "+"}${delta}${rate === null ? "" : `, ${rateText(rate)}/s`})`
  return `      ${who}${path === "" ? "" : `${escapeLine(path)} `}${shown(before as Json)} → ${
    shown(after as Json)
  }${by}\n`
}

const rateText = (rate: number): string => Math.abs(rate) >= 100 ? rate.toFixed(0) : rate.toPrecision(3)
