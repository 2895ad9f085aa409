import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Btf } from "../../btf/Btf.ts"
import type { GroupParts, OffsetGroup } from "../../btf/OffsetGroup.ts"
import { offsetGroups } from "../../btf/offsets/offsetGroups.ts"
import { bold, dim } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import { table } from "../terminal/Table.ts"
import { btfOf, type BtfSource } from "./btf.ts"

/** Bytes, from the start of the struct. `called` is the member's name where this kernel has another for the field. */
const Field = Schema.Struct({ offset: Schema.Int, size: Schema.Int, called: Schema.optional(Schema.String) })
const Struct = Schema.Struct({
  size: Schema.Int,
  /** A field that this kernel does not have is null. */
  fields: Schema.Record({ key: Schema.String, value: Schema.NullOr(Field) })
})
const Group = Schema.Union(
  Schema.Struct({
    group: Schema.String,
    present: Schema.Literal(true),
    /** By the struct's name. */
    structs: Schema.Record({ key: Schema.String, value: Struct }),
    /** By the enum's name, the numbers that index the arrays among the fields. */
    enums: Schema.Record({ key: Schema.String, value: Schema.Record({ key: Schema.String, value: Schema.Int }) })
  }),
  Schema.Struct({
    group: Schema.String,
    present: Schema.Literal(false),
    struct: Schema.String,
    /** Null if no struct has this name. */
    member: Schema.NullOr(Schema.String),
    reason: Schema.String
  })
)

/** The document of `btf offsets --json`. */
export const OffsetsReport = Schema.Struct({ subject: Schema.String, groups: Schema.Array(Group) })
export type OffsetsReport = typeof OffsetsReport.Type

/**
 * The groups of these names, all if there are none, as this BTF has them; `UsageError` for an unknown name.
 */
export const offsetsReport = (btf: Btf, names: ReadonlyArray<string>): Either.Either<OffsetsReport, UsageError> => {
  const unknown = names.find((name) => !offsetGroups.some((group) => group.name === name))
  if (unknown !== undefined) {
    const known = offsetGroups.map((group) => group.name).join(", ")
    return Either.left(
      new UsageError({ problem: `--group ${unknown}: no such group; the groups are ${known}` })
    )
  }
  const asked = offsetGroups.filter((group) => names.length === 0 || names.includes(group.name))
  return Either.right({ subject: btf.subject, groups: asked.map((group) => groupReport(group, btf)) })
}

const groupReport = ({ name, resolve }: OffsetGroup<GroupParts>, btf: Btf): typeof Group.Type =>
  Either.match(resolve(btf), {
    onLeft: ({ member, reason, struct }) => ({
      group: name,
      present: false,
      struct,
      member: member ?? null,
      reason: reason.text
    }),
    onRight: (parts) => {
      const structs: Array<readonly [string, typeof Struct.Type]> = []
      const enums: Array<readonly [string, { readonly [name: string]: number }]> = []
      for (const part of Object.values(parts)) {
        if (part === undefined) continue
        if ("enum" in part) {
          enums.push([part.enum, part.valueOf])
          continue
        }
        const fields = part.fields.map((field): [string, typeof Field.Type | null] => {
          const { at: { [field]: offset }, called: { [field]: called }, sizeOf: { [field]: size } } = part
          if (offset === undefined || size === undefined) return [field, null]
          return [field, called === undefined ? { offset, size } : { offset, size, called }]
        })
        structs.push([part.struct, { size: part.size, fields: Object.fromEntries(fields) }])
      }
      return { group: name, present: true, structs: Object.fromEntries(structs), enums: Object.fromEntries(enums) }
    }
  })

/** Which groups there are and why others are not; with `fields` all that they hold. */
export const offsetsText = ({ groups, subject }: OffsetsReport, fields: boolean): string => {
  const about = new Map(offsetGroups.map((group) => [group.name, group.about]))
  const head = `${bold(escapeLine(subject))}\n`
  if (!fields) {
    const rows = groups.map((group) => [
      group.group,
      group.present ? "present" : "absent",
      group.present ? about.get(group.group) ?? "" : escapeLine(group.reason)
    ])
    const present = groups.filter((group) => group.present).length
    return `${head}${
      table(["GROUP", "HERE", ""], rows)
    }${present} of ${groups.length} groups; --group NAME shows fields\n`
  }
  return head + groups.map((group) => {
    const title = `\n${bold(group.group)}  ${dim(about.get(group.group) ?? "")}\n`
    if (!group.present) return `${title}absent: ${escapeLine(group.reason)}\n`
    const rows = Object.entries(group.structs).flatMap(([struct, { fields, size }]) => [
      [escapeLine(struct), "", "", String(size)],
      ...Object.entries(fields).map(([name, field]) =>
        field === null
          ? ["", name, "absent", ""]
          : [
            "",
            field.called === undefined ? name : `${name} (${field.called})`,
            String(field.offset),
            String(field.size)
          ]
      )
    ])
    const numbers = Object.entries(group.enums).flatMap(([name, values]) => [
      [escapeLine(name), "", "", ""],
      ...Object.entries(values).map(([name, value]) => ["", name, String(value), ""])
    ])
    return title + table(["STRUCT", "FIELD", "OFFSET", "SIZE"], rows, [2, 3])
      + (numbers.length === 0 ? "" : table(["ENUM", "NAME", "VALUE", ""], numbers, [2, 3]))
  }).join("")
}

/** `ktstr btf offsets`: print the offset groups of a kernel, without `group` a line each, else the fields of these. */
export const offsets = Effect.fn("cli.btfOffsets")(
  function*(config: BtfSource & { readonly json: boolean; readonly group: ReadonlyArray<string> }) {
    const report = yield* offsetsReport(yield* btfOf(config), config.group)
    yield* writeText(
      config.json
        ? `${yield* Schema.encode(Schema.parseJson(OffsetsReport))(report)}\n`
        : offsetsText(report, config.group.length > 0)
    )
  }
)
