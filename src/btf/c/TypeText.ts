import { plural } from "../../core/Plural.ts"
import type { Btf } from "../Btf.ts"
import type { BtfType, EnumType, StructType } from "../BtfType.ts"
import { attributeText, Budget, declarationOf, oneLine, prototypeLine } from "./CDeclaration.ts"
import { type Hole, type MemberLayout, type StructLayout, structLayout, structTotals } from "./StructLayout.ts"

/** Where names and comments begin, as pahole has it. */
const NAME_COLUMN = 35
const COMMENT_COLUMN = 57

/**
 * A type as C, with offsets and sizes in comments, as `pahole` prints it: bytes from the start, bytes long; for a
 * bit-field `offset: bit size` of the integer that holds it. Structs, unions and enums without a name are written out
 * where they are used. Holes and padding are named. Ends with a newline.
 *
 * @since 0.1.0
 * @category rendering
 */
export const typeText = (btf: Btf, typeId: number): string => {
  const type = btf.type(typeId)
  return type === undefined ? `/* type ${typeId} does not exist */\n` : lines(btf, type).join("\n") + "\n"
}

const lines = (btf: Btf, type: BtfType): ReadonlyArray<string> => {
  const sized = (declaration: string) => {
    const size = btf.sizeOf(type.id)
    return [`${declaration};${size === undefined ? "" : ` /* size: ${size} */`}`]
  }
  switch (type.kind) {
    case "STRUCT":
    case "UNION":
    case "ENUM":
    case "ENUM64":
      return definition(btf, type, `${keywordOf(type)}${type.name === "" ? "" : ` ${type.name}`}`, "")
    case "TYPEDEF": {
      const { base, body, declarator } = declarationOf(btf, type.type, type.name)
      const inner = body === undefined ? undefined : btf.type(body)
      return inner?.kind === "STRUCT" || inner?.kind === "UNION" || inner?.kind === "ENUM" || inner?.kind === "ENUM64"
        ? definition(btf, inner, `typedef ${base}`, ` ${declarator}`)
        : sized(`typedef ${oneLine(btf, type.type, type.name)}`)
    }
    case "FUNC": {
      const prototype = btf.type(type.type)
      return [prototype?.kind === "FUNC_PROTO" ? `${prototypeLine(btf, prototype, type.name)};` : `${type.name}();`]
    }
    case "VAR":
      return sized(`${["static ", "", "extern "][type.linkage] ?? ""}${oneLine(btf, type.type, type.name)}`)
    case "DATASEC": {
      const budget = Budget.ofType()
      return [
        `/* section ${type.name}, size: ${type.size} */`,
        ...type.variables.map(({ offset, size, type: id }) => {
          const variable = btf.type(id)
          const text = variable?.kind === "VAR"
            ? oneLine(btf, variable.type, variable.name, budget)
            : oneLine(btf, id, "", budget)
          return commented(`${text};`, 0, place(offset, size))
        })
      ]
    }
    case "FWD":
      return [`${type.of} ${type.name}; /* only declared here */`]
    case "INT":
      return [`${type.name}; /* size: ${type.size}, ${type.bits} bits, ${type.signed ? "signed" : "unsigned"} */`]
    case "FLOAT":
      return [`${type.name}; /* size: ${type.size} */`]
    case "DECL_TAG":
      return [`${attributeText(type, "btf_decl_tag")} /* of type ${type.type} */`]
    case "UNKNOWN":
      return [
        `/* ${
          type.name === "" ? `type ${type.id}` : type.name
        } is of kind ${type.number}, which this reader does not know */`
      ]
    default:
      return sized(oneLine(btf, type.id))
  }
}

const keywordOf = ({ kind }: BtfType): string => kind === "ENUM64" ? "enum" : kind.toLowerCase()

const definition = (
  btf: Btf,
  type: StructType | EnumType,
  before: string,
  after: string
): ReadonlyArray<string> => {
  if ("values" in type) {
    return [`${before} {`, ...enumerators(type, 1), `}${after}; /* size: ${type.size} */`]
  }
  const structure = structLayout(btf, type)
  return [`${before} {`, ...members(structure, 1), "", ...summary(structure), `}${after};`]
}

const tabs = (depth: number): string => "\t".repeat(depth)

const enumerators = (type: EnumType, depth: number): ReadonlyArray<string> => {
  const width = Math.max(0, ...type.values.slice(0, 1000).map(({ name }) => name.length))
  return type.values.map(({ name, value }) => `${tabs(depth)}${name.padEnd(width)} = ${value},`)
}

const members = (structure: StructLayout, depth: number): ReadonlyArray<string> => {
  const text: Array<string> = []
  const note = (...notes: ReadonlyArray<string>) => {
    if (notes.length > 0) text.push("", ...notes.map((line) => `${tabs(depth)}/* XXX ${line} */`), "")
  }
  for (const member of structure.members) {
    note(...holeNotes(member.hole, "hole"))
    const [left, right] = columns(member)
    const where = member.bits === undefined
      ? place(member.offset, member.size)
      : `${String(member.offset).padStart(5)}:${String(member.bits.offset).padStart(2)} ${
        String(member.size).padStart(2)
      }`
    if (member.body === undefined) {
      const declaration = right === ""
        ? left
        : `${left.padEnd(NAME_COLUMN - 1 - depth * 8)} ${right}`
      text.push(commented(`${tabs(depth)}${declaration};`, depth * 7, where))
    } else {
      text.push(`${tabs(depth)}${member.declaration.base} {`)
      // One after the other, so that no depth of them fills the stack.
      for (
        const line of "members" in member.body
          ? members(member.body, depth + 1)
          : enumerators(member.body, depth + 1)
      ) {
        text.push(line)
      }
      const declarator = `${member.declaration.declarator}${width(member)}`
      text.push(commented(`${tabs(depth)}}${declarator === "" ? "" : ` ${declarator}`};`, depth * 7, where))
    }
    if (member.padding > 0) note(`last struct has ${plural(member.padding, "byte")} of padding`)
  }
  if (structure.cut) {
    note(`${plural(structure.type.members.length - structure.members.length, "more member")}, left out`)
  }
  return text
}

const holeNotes = ({ bits, bytes }: Hole, what: string): ReadonlyArray<string> => [
  ...(bits > 0 ? [`${plural(bits, "bit")} ${what}`] : []),
  ...(bytes > 0 ? [`${plural(bytes, "byte")} ${what}`] : [])
]

/** The stars go with the type, so that names line up. */
const columns = (member: MemberLayout): readonly [left: string, right: string] => {
  const { base, declarator } = member.declaration
  const stars = /^(?: ?\*(?: ?(?:const|volatile|restrict)\b)*)+/.exec(declarator)?.[0] ?? ""
  const right = `${declarator.slice(stars.length).trimStart()}${width(member)}`
  return [stars === "" ? base : `${base} ${stars}`, right]
}

const width = ({ bits }: MemberLayout): string => bits === undefined ? "" : `:${bits.size}`

const place = (offset: number, size: number): string => `${String(offset).padStart(5)} ${String(size).padStart(5)}`

/** `wider`: how much wider than its characters the text is, for its tabs. */
const commented = (text: string, wider: number, comment: string): string =>
  `${text.padEnd(COMMENT_COLUMN - 1 - wider)} /* ${comment} */`

const summary = (structure: StructLayout): ReadonlyArray<string> => {
  const sums = structTotals(structure)
  const holes = sums.holes + sums.bitHoles > 0
  const facts = [
    `size: ${structure.type.size}, members: ${sums.members}`,
    ...(holes && sums.memberBytes > 0
      ? [
        `sum members: ${sums.memberBytes}`
        + (sums.holes > 0 ? `, holes: ${sums.holes}, sum holes: ${sums.holeBytes}` : "")
      ]
      : []),
    ...(holes && sums.bitFieldBits > 0
      ? [
        `sum bitfield members: ${sums.bitFieldBits} bits`
        + (sums.bitHoles > 0 ? `, bit holes: ${sums.bitHoles}, sum bit holes: ${sums.bitHoleBits} bits` : "")
      ]
      : []),
    ...(sums.padding > 0 ? [`padding: ${sums.padding}`] : []),
    ...(sums.paddings > 0 ? [`paddings: ${sums.paddings}, sum paddings: ${sums.paddingBytes}`] : []),
    ...(sums.bitPadding > 0 ? [`bit_padding: ${sums.bitPadding} bits`] : [])
  ]
  return facts.map((fact) => `\t/* ${fact} */`)
}
