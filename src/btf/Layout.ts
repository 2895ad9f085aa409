import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Btf } from "./Btf.ts"
import type { StructType } from "./BtfType.ts"

/** A kernel that keeps things elsewhere than the caller expects: a struct or a member is not in its BTF. */
export class LayoutError extends Schema.TaggedError<LayoutError>("ktstr/LayoutError")("LayoutError", {
  subject: Schema.String,
  struct: Schema.String,
  /** The member that no struct of this name has; undefined when there is no such struct. */
  member: Schema.UndefinedOr(Schema.String),
  /** How many structs of this name there are. */
  candidates: Schema.Int
}) {
  override get message() {
    const { candidates, member, struct, subject } = this
    return member === undefined
      ? `${subject}: no struct ${struct}: this kernel was built without what uses it, or names it differently`
      : `${subject}: struct ${struct} has no member ${member}${
        candidates > 1 ? ` in any of its ${candidates} forms` : ""
      }`
        + ": this kernel is older or newer than ktstr knows, or was built without it"
  }
}

/**
 * Where a struct keeps some of its members. `at` has byte offsets from the start of the struct, `sizeOf` bytes, `typeOf`
 * type ids, each by the name that was asked for; those of optional members may be undefined.
 */
export interface Layout<Required extends string, Optional extends string = never> {
  readonly struct: string
  readonly typeId: number
  /** In bytes. */
  readonly size: number
  readonly at: OfMembers<Required, Optional>
  readonly typeOf: OfMembers<Required, Optional>
  readonly sizeOf: OfMembers<Required, Optional>
  /** Of members that are bit-fields: offset from the start of the struct and width, in bits. `at` rounds down. */
  readonly bits: { readonly [F in Required | Optional]?: { readonly offset: number; readonly size: number } }
}
type OfMembers<Required extends string, Optional extends string> =
  & { readonly [F in Required]: number }
  & { readonly [F in Optional]: number | undefined }

/**
 * The layout of the struct (or union, or typedef of one) of this name. A field is a member's name, also one inside
 * anonymous members, or a path through members that are structs: `"idr_rt.xa_head"`. Of several structs with the name
 * the largest that has all of `required` is taken.
 */
export const layout = <const Required extends string, const Optional extends string = never>(
  btf: Btf,
  struct: string,
  required: ReadonlyArray<Required>,
  optional: ReadonlyArray<Optional> = []
): Either.Either<Layout<Required, Optional>, LayoutError> => {
  const forms = btf.idsByName(struct).flatMap((id) => structOf(btf, id) ?? [])
  const largestFirst = forms.sort((a, b) => b.size - a.size)
  // The error names what the largest lacks.
  let missing: string | undefined
  for (const form of largestFirst) {
    const found = resolve(btf, struct, form, required, optional)
    if (typeof found !== "string") return Either.right(found)
    missing ??= found
  }
  return Either.left(
    new LayoutError({ subject: btf.subject, struct, member: missing, candidates: forms.length })
  )
}

/** The layout of a struct that was found by following types, such as `Layout.typeOf` of a member. */
export const layoutOf = <const Required extends string, const Optional extends string = never>(
  btf: Btf,
  typeId: number,
  required: ReadonlyArray<Required>,
  optional: ReadonlyArray<Optional> = []
): Either.Either<Layout<Required, Optional>, LayoutError> => {
  const form = structOf(btf, typeId)
  const struct = form?.name || `of type ${typeId}`
  const found = form === undefined ? undefined : resolve(btf, struct, form, required, optional)
  if (found !== undefined && typeof found !== "string") return Either.right(found)
  const candidates = form === undefined ? 0 : 1
  return Either.left(new LayoutError({ subject: btf.subject, struct, member: found, candidates }))
}

const structOf = (btf: Btf, typeId: number): StructType | undefined => {
  const type = btf.type(btf.peel(typeId))
  return type?.kind === "STRUCT" || type?.kind === "UNION" ? type : undefined
}

interface Place {
  /** From the start of the struct, in bits. */
  readonly bitOffset: number
  readonly bitSize: number
  readonly type: number
}

/** The layout, or the first required field that is missing. */
const resolve = <Required extends string, Optional extends string>(
  btf: Btf,
  struct: string,
  form: StructType,
  required: ReadonlyArray<Required>,
  optional: ReadonlyArray<Optional>
): Layout<Required, Optional> | string => {
  const at = table<number>()
  const typeOf = table<number>()
  const sizeOf = table<number>()
  const bits = table<{ readonly offset: number; readonly size: number }>()
  const place = (path: string): boolean => {
    const found = follow(btf, form, path.split("."))
    const size = found === undefined ? undefined : btf.sizeOf(found.type)
    if (found === undefined || size === undefined) return false
    const { offset, size: width } = bitField(btf, found)
    at[path] = Math.floor(offset / 8)
    typeOf[path] = found.type
    sizeOf[path] = width > 0 ? Math.ceil((offset % 8 + width) / 8) : size
    if (width > 0) bits[path] = { offset, size: width }
    return true
  }
  for (const path of required) if (!place(path)) return path
  for (const path of optional) place(path)
  return {
    struct,
    typeId: form.id,
    size: form.size,
    at: at as OfMembers<Required, Optional>,
    typeOf: typeOf as OfMembers<Required, Optional>,
    sizeOf: sizeOf as OfMembers<Required, Optional>,
    bits: bits as Layout<Required, Optional>["bits"]
  }
}

/** Without a prototype: the kernel has members called `constructor`. */
const table = <A>(): Record<string, A> => Object.create(null)

/** A width of 0 is no bit-field. Old blobs say in the INT itself that it is one. */
const bitField = (btf: Btf, { bitOffset, bitSize, type }: Place): { offset: number; size: number } => {
  const int = bitSize === 0 ? btf.type(btf.peel(type)) : undefined
  return int?.kind === "INT" && int.bits !== int.size * 8
    ? { offset: bitOffset + int.bitOffset, size: int.bits }
    : { offset: bitOffset, size: bitSize }
}

const follow = (btf: Btf, form: StructType, path: ReadonlyArray<string>): Place | undefined => {
  let place: Place = { bitOffset: 0, bitSize: 0, type: form.id }
  for (const name of path) {
    const within = structOf(btf, place.type)
    const found = within === undefined ? undefined : memberOf(btf, within, name, new Set())
    if (found === undefined) return undefined
    place = { ...found, bitOffset: place.bitOffset + found.bitOffset }
  }
  return place
}

/** A member by name, also of anonymous members. `seen` keeps a hostile blob from leading in circles. */
const memberOf = (btf: Btf, form: StructType, name: string, seen: Set<number>): Place | undefined => {
  if (name === "" || seen.size > 256) return undefined
  seen.add(form.id)
  for (const member of form.members) {
    if (member.name === name) return member
    const inner = member.name === "" ? structOf(btf, member.type) : undefined
    if (inner === undefined || seen.has(inner.id)) continue
    const found = memberOf(btf, inner, name, seen)
    if (found !== undefined) return { ...found, bitOffset: member.bitOffset + found.bitOffset }
  }
  return undefined
}
