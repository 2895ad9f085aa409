import * as Schema from "effect/Schema"
import type { Btf } from "../../btf/Btf.ts"
import { type EnumType, Kind, type KindName } from "../../btf/BtfType.ts"
import { oneLine } from "../../btf/c/CDeclaration.ts"
import { type StructLayout, structLayout, structTotals } from "../../btf/c/StructLayout.ts"
import { typeText } from "../../btf/c/TypeText.ts"

/** A name of an enum; its value in decimal digits where JSON numbers are too small. */
const Value = Schema.Struct({ name: Schema.String, value: Schema.Union(Schema.Int, Schema.String) })

interface Member {
  readonly name: string
  readonly type: string
  readonly offset: number
  readonly size: number
  readonly bits: { readonly offset: number; readonly size: number } | null
  readonly hole: { readonly bytes: number; readonly bits: number }
  readonly members: ReadonlyArray<Member> | null
  readonly values: ReadonlyArray<typeof Value.Type> | null
}

const Member: Schema.Schema<Member> = Schema.Struct({
  name: Schema.String.annotations({ description: "empty where C has none" }),
  type: Schema.String.annotations({ description: "as C writes it" }),
  offset: Schema.Int.annotations({ description: "bytes from the start of the whole type" }),
  size: Schema.Int.annotations({ description: "bytes; of a bit-field, of the integer that holds it" }),
  bits: Schema.NullOr(Schema.Struct({ offset: Schema.Int, size: Schema.Int })).annotations({
    description: "of a bit-field: where it begins in its integer, and its width"
  }),
  hole: Schema.Struct({ bytes: Schema.Int, bits: Schema.Int }).annotations({
    description: "the unused space before it"
  }),
  members: Schema.NullOr(Schema.Array(Schema.suspend(() => Member))).annotations({
    description: "of a struct or union without a name"
  }),
  values: Schema.NullOr(Schema.Array(Value)).annotations({ description: "of an enum without a name" })
}).annotations({ identifier: "Member" })

const ShownType = Schema.Struct({
  id: Schema.Int,
  kind: Schema.Literal(...(Object.keys(Kind) as Array<KindName>), "UNKNOWN"),
  name: Schema.String,
  /** In bytes. */
  size: Schema.NullOr(Schema.Int),
  members: Schema.NullOr(Schema.Array(Member)),
  values: Schema.NullOr(Schema.Array(Value)),
  /** Counted up as pahole does; of a struct or union. */
  sums: Schema.NullOr(Schema.Record({ key: Schema.String, value: Schema.Int })),
  c: Schema.String.annotations({ description: "the type as C, as it is printed for people" })
})

/** The document of `btf show --json`. */
export const BtfTypes = Schema.Struct({ subject: Schema.String, types: Schema.Array(ShownType) })

/** The document of `btf header --json`; lengths in bytes, offsets from the header's end. */
export const BtfHeaderReport = Schema.Struct({
  subject: Schema.String,
  bytes: Schema.Int,
  magic: Schema.Int,
  version: Schema.Int,
  flags: Schema.Int,
  headerLength: Schema.Int,
  typeOffset: Schema.Int,
  typeLength: Schema.Int,
  stringOffset: Schema.Int,
  stringLength: Schema.Int,
  layoutOffset: Schema.NullOr(Schema.Int),
  layoutLength: Schema.NullOr(Schema.Int),
  types: Schema.Struct({ first: Schema.Int, count: Schema.Int }),
  kinds: Schema.Record({ key: Schema.String, value: Schema.Int }),
  base: Schema.NullOr(Schema.Struct({ subject: Schema.String, types: Schema.Int }))
})

const MemberPlace = Schema.NullOr(Schema.Struct({
  bit: Schema.Int.annotations({ description: "from the start of the struct, in bits" }),
  size: Schema.Int,
  bits: Schema.NullOr(Schema.Int).annotations({ description: "the width of a bit-field" }),
  type: Schema.String
}))

/** The document of `btf diff --json`: the structs, unions, enums and typedefs that differ, with the members or values that do. */
export const BtfDifference = Schema.Struct({
  before: Schema.String,
  after: Schema.String,
  types: Schema.Array(Schema.Struct({
    type: Schema.String,
    sizeBefore: Schema.NullOr(Schema.Int).annotations({ description: "null: it is new" }),
    sizeAfter: Schema.NullOr(Schema.Int).annotations({ description: "null: it is gone" }),
    members: Schema.Array(Schema.Struct({
      member: Schema.String,
      before: MemberPlace,
      after: MemberPlace,
      moved: Schema.Boolean,
      resized: Schema.Boolean,
      retyped: Schema.Boolean
    })),
    values: Schema.Array(Schema.Struct({
      name: Schema.String,
      before: Schema.NullOr(Schema.String).annotations({ description: "in decimal digits; null: the name is new" }),
      after: Schema.NullOr(Schema.String).annotations({ description: "null: it is gone" })
    })),
    aliased: Schema.NullOr(Schema.Struct({ before: Schema.String, after: Schema.String })).annotations({
      description: "of a typedef: its type as C writes it, where that differs"
    }),
    cut: Schema.Boolean.annotations({ description: "only the first members were compared: there are too many" })
  }))
})

/** One type for `BtfTypes`. */
export const shownType = (btf: Btf, id: number): typeof ShownType.Type | undefined => {
  const type = btf.type(id)
  if (type === undefined) return undefined
  // A typedef of a struct, union or enum without a name shows what is in it, as its C text does.
  const target = type.kind === "TYPEDEF" ? btf.type(type.type) : type
  const body = target === type || target !== undefined && "name" in target && target.name === "" ? target : undefined
  const structure = body?.kind === "STRUCT" || body?.kind === "UNION" ? structLayout(btf, body) : undefined
  return {
    id,
    kind: type.kind,
    name: "name" in type ? type.name : "",
    size: btf.sizeOf(id) ?? null,
    members: structure === undefined ? null : membersOf(btf, structure),
    values: body?.kind === "ENUM" || body?.kind === "ENUM64" ? valuesOf(body) : null,
    sums: structure === undefined ? null : structTotals(structure),
    c: typeText(btf, id)
  }
}

const membersOf = (btf: Btf, { members }: StructLayout): ReadonlyArray<Member> =>
  members.map(({ bits, body, hole, name, offset, size, typeId }) => ({
    name,
    type: oneLine(btf, typeId),
    offset,
    size,
    bits: bits ?? null,
    hole,
    members: body !== undefined && "members" in body ? membersOf(btf, body) : null,
    values: body !== undefined && "values" in body ? valuesOf(body) : null
  }))

const valuesOf = ({ values }: EnumType): ReadonlyArray<typeof Value.Type> =>
  values.map(({ name, value }) => ({ name, value: typeof value === "bigint" ? `${value}` : value }))
