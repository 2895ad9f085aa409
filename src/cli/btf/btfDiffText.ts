import type { MemberChange, Placed, TypeChange, ValueChange } from "../../btf/c/BtfDiff.ts"
import { plural } from "../../core/Plural.ts"
import { bold, dim, green, red, yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { table } from "../terminal/Table.ts"

/** The change of one type, by its members or values. */
export const changeText = (change: TypeChange): string => {
  const { cut, aliased, members, sizeAfter, sizeBefore, type, values } = change
  const size = sizeBefore === null
    ? green(`new${sizeAfter === 0 ? "" : `, ${plural(sizeAfter ?? 0, "byte")}`}`)
    : sizeAfter === null
    ? red(`gone${sizeBefore === 0 ? "" : `, it had ${plural(sizeBefore, "byte")}`}`)
    : sizeBefore === sizeAfter
    ? sizeAfter === 0 ? "changed" : `${plural(sizeAfter, "byte")}, as before`
    : `${plural(sizeBefore, "byte")}, now ${sizeAfter}`
  const meant = aliased === null ? "" : `  ${yellow("~")} ${retyped(aliased.before, aliased.after)}\n`
  return `${bold(escapeLine(type))}: ${size}\n${meant}${members.map(memberLine).join("")}${
    values.map(valueLine).join("")
  }${cut ? yellow("  only its first members were compared: there are too many\n") : ""}`
}

const retyped = (before: string, after: string): string => `retyped from ${escapeLine(before)} to ${escapeLine(after)}`

const valueLine = ({ after, before, name }: ValueChange): string => {
  const shown = escapeLine(name)
  return before === null
    ? `  ${green(`+ ${shown} = ${after}`)}\n`
    : after === null
    ? `  ${red(`- ${shown} = ${before}`)}\n`
    : `  ${yellow(`~ ${shown}`)}: was ${before}, is ${after}\n`
}

const memberLine = (change: MemberChange): string => {
  const { after, before, member, moved, resized } = change
  const name = escapeLine(member)
  if (before === null || after === null) {
    const line = `${name}: ${described(before ?? after)}`
    return before === null ? `  ${green(`+ ${line}`)}\n` : `  ${red(`- ${line}`)}\n`
  }
  const facts = [
    ...(moved ? [`moved from ${offset(before)} to ${offset(after)}`] : []),
    ...(resized ? [`resized from ${size(before)} to ${size(after)}`] : []),
    ...(change.retyped ? [retyped(before.type, after.type)] : [])
  ]
  return `  ${yellow(`~ ${name}`)}: ${facts.join(", ")}\n`
}

const described = (place: Placed | null): string =>
  place === null ? "" : `${escapeLine(place.type)} at ${offset(place)}, ${size(place)}`

/** Bytes; of a bit-field its byte and the bit in it. */
const offset = ({ bit, bits }: Placed): string => bits === null ? `${bit / 8}` : `${Math.floor(bit / 8)}:${bit % 8}`

const size = ({ bits, size }: Placed): string => bits === null ? plural(size, "byte") : plural(bits, "bit")

/** All that differs between two kernels, a line each. */
export const overview = (before: string, after: string, changes: ReadonlyArray<TypeChange>): string => {
  if (changes.length === 0) return "no difference in structs, unions, enums and typedefs\n"
  const gone = changes.filter(({ sizeAfter }) => sizeAfter === null)
  const fresh = changes.filter(({ sizeBefore }) => sizeBefore === null)
  const changed = changes.filter(({ sizeAfter, sizeBefore }) => sizeAfter !== null && sizeBefore !== null)
  const rows = changed.map(({ cut, aliased, members, sizeAfter, sizeBefore, type, values }) => {
    const counted = (found: number) => found === 0 ? "" : `${found}`
    const count = (which: (change: MemberChange) => boolean) => counted(members.filter(which).length)
    const either = (which: (change: MemberChange | ValueChange) => boolean) =>
      counted(members.filter(which).length + values.filter(which).length)
    return [
      `${escapeLine(type)}${cut ? " (first members)" : ""}`,
      sizeBefore === sizeAfter ? `${sizeAfter}` : `${sizeBefore} → ${sizeAfter}`,
      either(({ before }) => before === null),
      either(({ after }) => after === null),
      count(({ moved }) => moved),
      count(({ resized }) => resized),
      aliased === null ? count(({ retyped }) => retyped) : "1",
      counted(values.filter(({ after, before }) => before !== null && after !== null).length)
    ]
  })
  return [
    ...(rows.length === 0
      ? []
      : [
        table(["CHANGED", "SIZE", "ADDED", "REMOVED", "MOVED", "RESIZED", "RETYPED", "VALUES"], rows, [
          2,
          3,
          4,
          5,
          6,
          7
        ])
      ]),
    names(`only in ${escapeLine(before)}`, gone),
    names(`only in ${escapeLine(after)}`, fresh),
    dim(`${rows.length} changed, ${gone.length} gone, ${fresh.length} new\n`)
  ].filter((part) => part !== "").join("\n")
}

const names = (title: string, changes: ReadonlyArray<TypeChange>): string =>
  changes.length === 0 ? "" : `${bold(title)}\n${changes.map(({ type }) => `  ${escapeLine(type)}\n`).join("")}`
