import type { EntryWalk } from "../../bpf/EntryWalk.ts"
import { holdsMaps, innerMapAt, type InnerMaps } from "../../bpf/InnerMaps.ts"
import type { MapInfo } from "../../bpf/MapInfo.ts"
import { type MapReader, problemOf } from "../../bpf/MapReader.ts"
import type { Header } from "../../bpf/Report.ts"
import type { Dump } from "../../bpf/report/DumpWriter.ts"
import type { Codec } from "../../btf/render/Codec.ts"
import { valueText } from "../../btf/render/ValueText.ts"
import { formatReason, type Reason } from "../../core/Reason.ts"
import { bold, dim, yellow } from "../terminal/Colour.ts"
import { visibleLine } from "../terminal/escapeControls.ts"
import { type Printable, printable } from "../terminal/Printable.ts"
import { duration } from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"

/** Text is handed on in pieces of about this many characters. */
const PIECE = 1 << 16

const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`

/** One line: which kernel, how it stood still. */
export const headerText = ({ freeze, kernel, source }: Header): string => {
  const facts = [
    `kernel ${bold(visibleLine(kernel.release))}`,
    plural(kernel.possibleCpus, "possible CPU"),
    ...(kernel.pageTableLevels === null ? [] : [`${kernel.pageTableLevels}-level paging`]),
    ...(kernel.kaslrOffset === null ? [] : [`KASLR ${kernel.kaslrOffset}`]),
    source.kind === "vm" ? source.engine : source.kind === "image" ? visibleLine(source.path) : "this host, running",
    ...(freeze === null ? [] : [`frozen in ${duration(freeze.millis)}`])
  ]
  return `${facts.join(" · ")}\n\n`
}

/** The maps as aligned columns. */
export const mapTable = (maps: ReadonlyArray<MapInfo>): string =>
  maps.length === 0 ? "no maps\n" : table(
    ["ID", "NAME", "TYPE", "KEY", "VALUE", "MAX ENTRIES", "FLAGS"],
    maps.map((map) => [
      String(map.id),
      visibleLine(map.name),
      visibleLine(map.type),
      `${map.keySize} B`,
      `${map.valueSize} B`,
      String(map.maxEntries),
      map.flags === 0 ? "" : `0x${map.flags.toString(16)}`
    ]),
    [0, 3, 4, 5]
  )

export const problemLines = (problems: ReadonlyArray<Reason>): string =>
  problems.map((problem) => `${yellow(`problem: ${visibleLine(formatReason(problem))}`)}\n`).join("")

/** A dump for people, piece by piece. */
export function* dumpText(dump: Dump): Generator<Printable, void> {
  let text = headerText(dump.header)
  for (const reader of dump.readers) {
    for (const part of mapText(reader, dump)) {
      text += part
      if (text.length < PIECE) continue
      yield printable(text)
      text = ""
    }
  }
  if (dump.programs.length > 0) {
    const rows = dump.programs.map(({ id, name, type }) => [String(id), visibleLine(name), visibleLine(type)])
    text += `${bold("programs")}\n${table(["ID", "NAME", "TYPE"], rows, [0])}`
  }
  yield printable(text + problemLines(dump.problems))
}

function* mapText(reader: MapReader, { inner, limit }: Pick<Dump, "inner" | "limit">): Generator<string, void> {
  const { info } = reader
  yield `${bold(`#${info.id} ${visibleLine(info.name)}`)}  ${visibleLine(info.type)}  `
  yield dim(
    `key ${info.keySize} B · value ${info.valueSize} B · at most ${info.maxEntries} ${
      info.maxEntries === 1 ? "entry" : "entries"
    }\n`
  )
  if (reader.details !== null) {
    const facts = Object.entries(reader.details).map(([name, value]) =>
      `${name} ${visibleLine(typeof value === "object" ? JSON.stringify(value) : String(value))}`
    )
    yield dim(`  ${facts.join(" · ")}\n`)
  }
  yield* entriesText(reader, 2, { limit, inner: holdsMaps(info) ? inner : undefined })
  yield "\n"
}

/** A map's entries, `indent` columns in, and what is wrong with them. */
function* entriesText(
  reader: MapReader,
  indent: number,
  { inner, limit }: { readonly limit: number; readonly inner?: InnerMaps | undefined }
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
    const key = valueText(reader.key.tree(walk.keyView, walk.keyAt, { length: walk.keyLength }), {
      indent,
      column: indent
    })
    const keyBytes = hidden(reader.key, walk.keyView, walk.keyAt, walk.keyLength)
    yield `${margin}${key}${keyBytes}:`
    const column = key.length - key.lastIndexOf("\n") + indent + 1
    if (inner !== undefined) yield* innerText(walk, inner, indent + 4, limit)
    else if (cpus === null) {
      walk.value(0)
      const bytes = hidden(reader.value, walk.valueView, walk.valueAt, walk.valueLength)
      const value = reader.value.tree(walk.valueView, walk.valueAt, { length: walk.valueLength })
      yield ` ${valueText(value, { indent, column })}${bytes}\n`
    } else {
      yield "\n"
      for (let cpu = 0; cpu < cpus; cpu++) {
        const label = `CPU ${cpu}:`
        const there = walk.value(cpu)
        const bytes = there ? hidden(reader.value, walk.valueView, walk.valueAt, walk.valueLength) : ""
        const value = there
          ? valueText(reader.value.tree(walk.valueView, walk.valueAt), {
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
  if (truncated) yield dim(`${margin}only the first ${shown} are shown; --limit N shows more\n`)
  if (problem !== null) yield `${margin}${yellow(visibleLine(formatReason(problem)))}\n`
  if (walk !== null && shown === 0 && problem === null && !truncated) yield dim(`${margin}empty\n`)
}

/** The bytes of a key or value whose form does not show all of them. */
const hidden = ({ hides }: Codec, view: DataView, at: number, length: number): string =>
  hides !== null && hides(view, at)
    ? dim(` (bytes ${Buffer.from(view.buffer, view.byteOffset + at, length).toString("hex")})`)
    : ""

/** The map that an entry of a map of maps holds, with its entries. */
function* innerText(walk: EntryWalk, inner: InnerMaps, indent: number, limit: number): Generator<string, void> {
  const { id, problem, reader } = innerMapAt(walk, inner)
  if (reader === null) return yield ` #${id}  ${yellow(problem === null ? "" : formatReason(problem))}\n`
  yield ` #${id} ${visibleLine(reader.info.name)}  ${visibleLine(reader.info.type)}\n`
  yield* entriesText(reader, indent, { limit })
}
