import type { MemberChange, Placed, TypeChange } from "../../btf/c/BtfDiff.ts"
import { plural } from "../../core/Plural.ts"
import { bold, dim, green, red, yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { table } from "../terminal/Table.ts"

/** The change of one struct, member by member. */
export const changeText = (change: TypeChange): string => {
  const { cut, members, sizeAfter, sizeBefore, type } = change
  const size = sizeBefore === null
    ? green(`new, ${sizeAfter} bytes`)
    : sizeAfter === null
    ? red(`gone, it had ${sizeBefore} bytes`)
    : sizeBefore === sizeAfter
    ? `${sizeAfter} bytes, as before`
    : `${sizeBefore} bytes, now ${sizeAfter}`
  return `${bold(escapeLine(type))}: ${size}\n${members.map(memberLine).join("")}${
    cut ? yellow("  only its first members were compared: there are too many\n") : ""
  }`
}

const memberLine = (change: MemberChange): string => {
  const { after, before, member, moved, resized, retyped } = change
  const name = escapeLine(member)
  if (before === null || after === null) {
    const line = `${name}: ${described(before ?? after)}`
    return before === null ? `  ${green(`+ ${line}`)}\n` : `  ${red(`- ${line}`)}\n`
  }
  const facts = [
    ...(moved ? [`moved from ${offset(before)} to ${offset(after)}`] : []),
    ...(resized ? [`resized from ${size(before)} to ${size(after)}`] : []),
    ...(retyped ? [`retyped from ${escapeLine(before.type)} to ${escapeLine(after.type)}`] : [])
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
  if (changes.length === 0) return "no difference\n"
  const gone = changes.filter(({ sizeAfter }) => sizeAfter === null)
  const fresh = changes.filter(({ sizeBefore }) => sizeBefore === null)
  const changed = changes.filter(({ sizeAfter, sizeBefore }) => sizeAfter !== null && sizeBefore !== null)
  const rows = changed.map(({ cut, members, sizeAfter, sizeBefore, type }) => {
    const count = (which: (change: MemberChange) => boolean) => {
      const found = members.filter(which).length
      return found === 0 ? "" : `${found}`
    }
    return [
      `${escapeLine(type)}${cut ? " (first members)" : ""}`,
      sizeBefore === sizeAfter ? `${sizeAfter}` : `${sizeBefore} → ${sizeAfter}`,
      count((change) => change.before === null),
      count((change) => change.after === null),
      count(({ moved }) => moved),
      count(({ resized }) => resized),
      count(({ retyped }) => retyped)
    ]
  })
  return [
    ...(rows.length === 0
      ? []
      : [table(["CHANGED", "SIZE", "ADDED", "REMOVED", "MOVED", "RESIZED", "RETYPED"], rows, [2, 3, 4, 5, 6])]),
    names(`only in ${escapeLine(before)}`, gone),
    names(`only in ${escapeLine(after)}`, fresh),
    dim(`${rows.length} changed, ${gone.length} gone, ${fresh.length} new\n`)
  ].filter((part) => part !== "").join("\n")
}

const names = (title: string, changes: ReadonlyArray<TypeChange>): string =>
  changes.length === 0 ? "" : `${bold(title)}\n${changes.map(({ type }) => `  ${escapeLine(type)}\n`).join("")}`
