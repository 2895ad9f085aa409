import type { EntryWalk } from "../../bpf/EntryWalk.ts"
import { holdsMaps, innerMapAt, type InnerMaps } from "../../bpf/InnerMaps.ts"
import type { MapInfo } from "../../bpf/MapInfo.ts"
import { countedTree, type MapReader, problemOf } from "../../bpf/MapReader.ts"
import type { Header } from "../../bpf/Report.ts"
import type { Dump } from "../../bpf/report/DumpWriter.ts"
import type { Codec } from "../../btf/render/Codec.ts"
import { valueText } from "../../btf/render/ValueText.ts"
import { Losses } from "../../core/Losses.ts"
import { plural } from "../../core/Plural.ts"
import { formatReason } from "../../core/Reason.ts"
import { lossesLine, problemLines } from "../source/answer.ts"
import { bold, dim, yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { type Printable, printable } from "../terminal/Printable.ts"
import { duration } from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"

/** Text is handed on in pieces of about this many characters. */
const PIECE = 1 << 16

/** One line: which kernel, how it stood still. */
export const headerText = ({ freeze, kernel, source }: Header): string => {
  const facts = [
    `kernel ${bold(escapeLine(kernel.release))}`,
    plural(kernel.possibleCpus, "possible CPU"),
    ...(kernel.pageTableLevels === null ? [] : [`${kernel.pageTableLevels}-level paging`]),
    ...(kernel.kaslrOffset === null ? [] : [`KASLR ${escapeLine(kernel.kaslrOffset)}`]),
    sourceText(source, freeze),
    ...(freeze === null ? [] : [`frozen in ${duration(freeze.millis)}`])
  ]
  return `${facts.join(" · ")}\n\n`
}

const sourceText = (source: Header["source"], freeze: Header["freeze"]): string => {
  switch (source.kind) {
    case "vm":
      return escapeLine(source.engine)
    case "image":
      return escapeLine(source.path)
    case "qemu":
      return `QEMU${source.pid === null ? ` at ${escapeLine(source.qemu)}` : `, process ${source.pid}`}${
        freeze === null ? ", running" : ""
      }`
    case "live":
      return "this host, running"
  }
}

/** The maps as aligned columns. */
export const mapTable = (maps: ReadonlyArray<MapInfo>): string =>
  maps.length === 0 ? "no maps\n" : table(
    ["ID", "NAME", "TYPE", "KEY", "VALUE", "MAX ENTRIES", "FLAGS"],
    maps.map((map) => [
      String(map.id),
      escapeLine(map.name),
      escapeLine(map.type),
      `${map.keySize} B`,
      `${map.valueSize} B`,
      String(map.maxEntries),
      map.flags === 0 ? "" : `0x${map.flags.toString(16)}`
    ]),
    [0, 3, 4, 5]
  )

/** How much of a map is shown, and where losses are counted. */
type Shown = Pick<Dump, "inner" | "limit" | "losses">

/** A dump for people, piece by piece. */
export function* dumpText(dump: Dump): Generator<Printable, void> {
  const { losses = new Losses() } = dump
  let text = headerText(dump.header)
  for (const reader of dump.readers) {
    for (const part of mapText(reader, { ...dump, losses })) {
      text += part
      if (text.length < PIECE) continue
      yield printable(text)
      text = ""
    }
  }
  if (dump.programs.length > 0) {
    const rows = dump.programs.map(({ id, name, type }) => [String(id), escapeLine(name), escapeLine(type)])
    text += `${bold("programs")}\n${table(["ID", "NAME", "TYPE"], rows, [0])}`
  }
  for (const problem of dump.problems) losses.add(problem)
  yield printable(text + problemLines(dump.problems) + lossesLine(losses))
}

function* mapText(reader: MapReader, { inner, limit, losses }: Shown): Generator<string, void> {
  const { info } = reader
  yield `${bold(`#${info.id} ${escapeLine(info.name)}`)}  ${escapeLine(info.type)}  `
  yield dim(
    `key ${info.keySize} B · value ${info.valueSize} B · at most ${info.maxEntries} ${
      info.maxEntries === 1 ? "entry" : "entries"
    }\n`
  )
  if (reader.details !== null) {
    const facts = Object.entries(reader.details).map(([name, value]) =>
      `${name} ${escapeLine(typeof value === "object" ? JSON.stringify(value) : String(value))}`
    )
    yield dim(`  ${facts.join(" · ")}\n`)
  }
  yield* entriesText(reader, 2, { limit, losses, inner: holdsMaps(info) ? inner : undefined })
  yield "\n"
}

/** A map's entries, `indent` columns in, and what is wrong with them. */
function* entriesText(
  reader: MapReader,
  indent: number,
  { inner, limit, losses }: Shown
): Generator<string, void> {
  const { cpus } = reader
  const margin = " ".repeat(indent)
  const walk = reader.walk?.() ?? null
  let shown = 0
  let truncated = false
  while (walk?.next() === true) {
    if (shown === limit) {
      truncated = true
      break
    }
    const key = valueText(countedTree(reader.key, walk, walk.keyView, walk.keyAt, walk.keyLength), {
      indent,
      column: indent
    })
    const keyBytes = hidden(reader.key, walk.keyView, walk.keyAt, walk.keyLength)
    yield `${margin}${key}${keyBytes}:`
    const column = key.length - key.lastIndexOf("\n") + indent + 1
    if (inner !== undefined) yield* innerText(walk, inner, indent + 4, { limit, losses })
    else if (cpus === null) {
      walk.value(0)
      const bytes = hidden(reader.value, walk.valueView, walk.valueAt, walk.valueLength)
      const value = countedTree(reader.value, walk, walk.valueView, walk.valueAt, walk.valueLength)
      yield ` ${valueText(value, { indent, column })}${bytes}\n`
    } else {
      yield "\n"
      for (let cpu = 0; cpu < cpus; cpu++) {
        const label = `CPU ${cpu}:`
        const there = walk.value(cpu)
        const bytes = there ? hidden(reader.value, walk.valueView, walk.valueAt, walk.valueLength) : ""
        const value = there
          ? valueText(countedTree(reader.value, walk, walk.valueView, walk.valueAt, walk.valueLength), {
            indent: indent + 2,
            column: indent + 3 + label.length
          })
          : "unreadable"
        yield `${margin}  ${dim(label)} ${value}${bytes}\n`
      }
    }
    shown++
  }
  const problem = problemOf(reader, walk)
  losses?.add(problem, `map ${reader.info.id} ${reader.info.name}: `)
  if (truncated) yield dim(`${margin}only the first ${shown} are shown; --limit N shows more\n`)
  if (problem !== null) yield `${margin}${yellow(escapeLine(formatReason(problem)))}\n`
  if (walk !== null && shown === 0 && problem === null && !truncated) yield dim(`${margin}empty\n`)
}

/** The bytes of a key or value whose form does not show all of them. */
const hidden = ({ hides }: Codec, view: DataView, at: number, length: number): string =>
  hides !== null && hides(view, at)
    ? dim(` (bytes ${Buffer.from(view.buffer, view.byteOffset + at, length).toString("hex")})`)
    : ""

/** The map that an entry of a map of maps holds, with its entries. */
function* innerText(walk: EntryWalk, inner: InnerMaps, indent: number, shown: Shown): Generator<string, void> {
  const { id, problem, reader } = innerMapAt(walk, inner)
  if (reader === null) {
    shown.losses?.add(problem, `map ${id}: `)
    return yield ` #${id}  ${yellow(problem === null ? "" : escapeLine(formatReason(problem)))}\n`
  }
  yield ` #${id} ${escapeLine(reader.info.name)}  ${escapeLine(reader.info.type)}\n`
  yield* entriesText(reader, indent, shown)
}
