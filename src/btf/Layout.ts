import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Btf } from "./Btf.ts"
import type { StructType } from "./BtfType.ts"
import { memoizeByBtf } from "./MemoizeByBtf.ts"

/**
 * A kernel that keeps things elsewhere than the caller expects: a struct or a member is not in its BTF.
 *
 * @since 0.1.0
 * @category errors
 */
export class LayoutError extends Schema.TaggedError<LayoutError>("ktstr/LayoutError")("LayoutError", {
  subject: Schema.String,
  struct: Schema.String,
  /** The member that no struct of this name has; undefined if no struct has this name. */
  member: Schema.UndefinedOr(Schema.String),
  /** How many structs of this name there are. */
  candidates: Schema.Int
}) {
  /** The missing struct or member, without the subject. */
  get reason() {
    const { candidates, member, struct } = this
    return member === undefined
      ? `no struct ${struct}: this kernel was built without what uses it, or names it differently`
      : `struct ${struct} has no member ${member}${candidates > 1 ? ` in any of its ${candidates} forms` : ""}`
        + ": this kernel is older or newer than ktstr knows, or was built without it"
  }
  override get message() {
    return `${this.subject}: ${this.reason}`
  }
}

/** A struct, enum or member that a reader needs and this kernel does not have. A `LayoutError` is one. */
export type MissingMember = Pick<LayoutError, "struct" | "member" | "reason">

/**
 * Where a struct keeps some of its members. `at` has byte offsets from the start of the struct, `sizeOf` bytes,
 * `typeOf` type ids, each by the name that was asked for; those of optional members may be undefined.
 *
 * @since 0.1.0
 * @category models
 */
export interface Layout<Required extends string, Optional extends string = never> {
  readonly struct: string
  readonly typeId: number
  /** In bytes. */
  readonly size: number
  /** Every name that was asked for, found or not. */
  readonly fields: ReadonlyArray<Required | Optional>
  readonly at: OfMembers<Required, Optional>
  readonly typeOf: OfMembers<Required, Optional>
  readonly sizeOf: OfMembers<Required, Optional>
  /** Of members that are bit-fields: offset from the start of the struct and width, in bits. `at` rounds down. */
  readonly bits: { readonly [F in Required | Optional]?: { readonly offset: number; readonly size: number } }
  /** Of members that are arrays: how many elements, and the bytes of one. */
  readonly arrays: { readonly [F in Required | Optional]?: { readonly count: number; readonly size: number } }
  /** Of members that were found by another name: that name. */
  readonly called: { readonly [F in Required | Optional]?: string }
}

/**
 * Optional members; of an array within the array, all are there or none.
 *
 * @since 0.1.0
 * @category models
 */
export type OptionalFields<Field extends string> = ReadonlyArray<Field | ReadonlyArray<Field>>

/**
 * By a field's name the one that it has in other kernels, tried where no member has the first.
 *
 * @since 0.1.0
 * @category models
 */
export type OtherNames<Field extends string> = { readonly [F in Field]?: string }

/**
 * A value for each required member, and one or `undefined` for each optional member.
 *
 * @since 0.1.0
 * @category models
 */
export type OfMembers<Required extends string, Optional extends string> =
  & { readonly [F in Required]: number }
  & { readonly [F in Optional]: number | undefined }

/**
 * The layout of the struct (or union, or typedef of one) of this name. A field is a member's name, also one inside
 * anonymous members, or a path through members that are structs: `"idr_rt.xa_head"`. Of several structs with the name
 * the largest that has all of `required` is taken. A required field that is missing by its name and by its other name
 * is a `LayoutError`.
 *
 * @since 0.1.0
 * @category reading
 */
export const layout = <const Required extends string, const Optional extends string = never>(
  btf: Btf,
  struct: string,
  required: ReadonlyArray<Required>,
  optional: OptionalFields<Optional> = [],
  otherNames: OtherNames<NoInfer<Required | Optional>> = {}
): Either.Either<Layout<Required, Optional>, LayoutError> => {
  const forms = btf.idsByName(struct).flatMap((id) => structOf(btf, id) ?? [])
  const largestFirst = forms.sort((a, b) => b.size - a.size)
  // The error names what the largest lacks.
  let missing: string | undefined
  for (const form of largestFirst) {
    const found = resolve(btf, struct, form, required, optional, otherNames)
    if (typeof found !== "string") return Either.right(found)
    missing ??= found
  }
  return Either.left(
    new LayoutError({ subject: btf.subject, struct, member: missing, candidates: forms.length })
  )
}

/**
 * The layout of a struct that was found by following types, such as `Layout.typeOf` of a member.
 *
 * @since 0.1.0
 * @category reading
 */
export const layoutOf = <const Required extends string, const Optional extends string = never>(
  btf: Btf,
  typeId: number,
  required: ReadonlyArray<Required>,
  optional: OptionalFields<Optional> = [],
  otherNames: OtherNames<NoInfer<Required | Optional>> = {}
): Either.Either<Layout<Required, Optional>, LayoutError> => {
  const form = structOf(btf, typeId)
  const struct = form?.name || `of type ${typeId}`
  const found = form === undefined ? undefined : resolve(btf, struct, form, required, optional, otherNames)
  if (found !== undefined && typeof found !== "string") return Either.right(found)
  const candidates = form === undefined ? 0 : 1
  return Either.left(new LayoutError({ subject: btf.subject, struct, member: found, candidates }))
}

const structOf = (btf: Btf, typeId: number): StructType | undefined => {
  const type = btf.type(btf.peel(typeId))
  return type?.kind === "STRUCT" || type?.kind === "UNION" ? type : undefined
}

interface MemberPlace {
  /** From the start of the struct, in bits. */
  readonly bitOffset: number
  readonly bitSize: number
  readonly type: number
}

interface ResolvedField {
  /** The path that led to the member. */
  readonly name: string
  readonly place: MemberPlace
  readonly size: number
}

/** The layout, or the first required field that is missing. */
const resolve = <Required extends string, Optional extends string>(
  btf: Btf,
  struct: string,
  form: StructType,
  required: ReadonlyArray<Required>,
  optional: OptionalFields<Optional>,
  otherNames: OtherNames<Required | Optional>
): Layout<Required, Optional> | string => {
  const at = table<number>()
  const typeOf = table<number>()
  const sizeOf = table<number>()
  const bits = table<{ readonly offset: number; readonly size: number }>()
  const arrays = table<{ readonly count: number; readonly size: number }>()
  const called = table<string>()
  const find = (field: Required | Optional): ResolvedField | undefined => {
    for (const name of [field, otherNames[field]]) {
      const place = name === undefined ? undefined : follow(btf, form, name.split("."))
      const size = place === undefined ? undefined : btf.sizeOf(place.type)
      if (name === undefined || place === undefined || size === undefined) continue
      const bits = place.bitOffset + (place.bitSize > 0 ? place.bitSize : size * 8)
      if (bits <= form.size * 8) return { name, place, size } // a member outside its struct would be read from another
    }
    return undefined
  }
  const put = (field: string, { name, place, size }: ResolvedField): void => {
    const { offset, size: width } = bitField(btf, place)
    at[field] = Math.floor(offset / 8)
    typeOf[field] = place.type
    sizeOf[field] = width > 0 ? Math.ceil((offset % 8 + width) / 8) : size
    if (width > 0) bits[field] = { offset, size: width }
    const array = btf.type(btf.peel(place.type))
    if (array?.kind === "ARRAY") arrays[field] = { count: array.count, size: btf.sizeOf(array.type) ?? 0 }
    if (name !== field) called[field] = name
  }
  for (const field of required) {
    const found = find(field)
    if (found === undefined) return field
    put(field, found)
  }
  const sets = optional.map((entry): ReadonlyArray<Optional> => typeof entry === "string" ? [entry] : entry)
  for (const together of sets) {
    const found = together.flatMap((field) => find(field) ?? [])
    if (found.length === together.length) together.forEach((field, index) => put(field, found[index]))
  }
  return {
    struct,
    typeId: form.id,
    size: form.size,
    fields: [...required, ...sets.flat()],
    at: at as OfMembers<Required, Optional>,
    typeOf: typeOf as OfMembers<Required, Optional>,
    sizeOf: sizeOf as OfMembers<Required, Optional>,
    bits: bits as Layout<Required, Optional>["bits"],
    arrays: arrays as Layout<Required, Optional>["arrays"],
    called: called as Layout<Required, Optional>["called"]
  }
}

/** Without a prototype: the kernel has members called `constructor`. */
const table = <A>(): Record<string, A> => Object.create(null)

/** A width of 0 means that it is not a bit-field. Old blobs mark a bit-field in the INT itself. */
const bitField = (btf: Btf, { bitOffset, bitSize, type }: MemberPlace): { offset: number; size: number } => {
  const int = bitSize === 0 ? btf.type(btf.peel(type)) : undefined
  return int?.kind === "INT" && int.bits !== int.size * 8
    ? { offset: bitOffset + int.bitOffset, size: int.bits }
    : { offset: bitOffset, size: bitSize }
}

const follow = (btf: Btf, form: StructType, path: ReadonlyArray<string>): MemberPlace | undefined => {
  let place: MemberPlace = { bitOffset: 0, bitSize: 0, type: form.id }
  for (const name of path) {
    const within = structOf(btf, place.type)
    const found = within === undefined || name === "" ? undefined : membersOf(btf, within).get(name)
    if (found === undefined) return undefined
    place = { ...found, bitOffset: place.bitOffset + found.bitOffset }
  }
  return place
}

/** By a struct's id its members by name: a struct of two hundred members is asked for dozens. */
const memberTables = memoizeByBtf(() => new Map<number, ReadonlyMap<string, MemberPlace>>())

/** A struct's members by name, those of anonymous members too; of two with one name the first. */
const membersOf = (btf: Btf, form: StructType): ReadonlyMap<string, MemberPlace> => {
  const before = memberTables(btf).get(form.id)
  if (before !== undefined) return before
  const found = new Map<string, MemberPlace>()
  addMembers(btf, form, 0, found, new Set())
  memberTables(btf).set(form.id, found)
  return found
}

/** `seen` keeps a hostile blob from leading in circles. */
const addMembers = (
  btf: Btf,
  form: StructType,
  start: number,
  found: Map<string, MemberPlace>,
  seen: Set<number>
): void => {
  if (seen.size > 256) return
  seen.add(form.id)
  for (const { bitOffset, bitSize, name, type } of form.members) {
    if (name !== "") {
      if (!found.has(name)) found.set(name, { bitOffset: start + bitOffset, bitSize, type })
      continue
    }
    const inner = structOf(btf, type)
    if (inner !== undefined && !seen.has(inner.id)) addMembers(btf, inner, start + bitOffset, found, seen)
  }
}
