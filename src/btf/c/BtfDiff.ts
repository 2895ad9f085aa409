import type { Btf } from "../Btf.ts"
import type { BtfType, EnumType, ReferenceType, StructType } from "../BtfType.ts"
import { Budget, oneLine } from "./CDeclaration.ts"
import { type MemberLayout, type StructLayout, structLayout } from "./StructLayout.ts"

/**
 * Where a member is, of how many bytes (a bit-field: bits), and what C calls its type.
 *
 * @since 0.1.0
 * @category models
 */
export interface Placed {
  /** From the start of the struct, in bits. */
  readonly bit: number
  readonly size: number
  readonly bits: number | null
  readonly type: string
}

/**
 * The change of one member, named by its path: `name`, or `named.inner` inside a struct without a name.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemberChange {
  readonly member: string
  /** Null: the member is new. */
  readonly before: Placed | null
  /** Null: it is gone. */
  readonly after: Placed | null
  readonly moved: boolean
  readonly resized: boolean
  readonly retyped: boolean
}

/**
 * The change of one name of an enum; its values are decimal numbers.
 *
 * @since 0.1.0
 * @category models
 */
export interface ValueChange {
  readonly name: string
  /** Null: the name is new. */
  readonly before: string | null
  /** Null: it is gone. */
  readonly after: string | null
}

/**
 * The types that are compared.
 *
 * @since 0.1.0
 * @category models
 */
export type ComparedType = StructType | EnumType | (ReferenceType & { readonly kind: "TYPEDEF" })

/**
 * Whether a type is one that is compared: a struct, union, enum or typedef.
 *
 * @since 0.1.0
 * @category comparing
 */
export const isCompared = (type: BtfType | undefined): type is ComparedType =>
  type !== undefined && COMPARED.includes(type.kind)

const COMPARED: ReadonlyArray<BtfType["kind"]> = ["STRUCT", "UNION", "ENUM", "ENUM64", "TYPEDEF"]

/**
 * The change of a type; without a size on one side, it does not exist there. Of a typedef of a struct, union or enum without a
 * name, the change is in the members or values.
 *
 * @since 0.1.0
 * @category models
 */
export interface TypeChange {
  /** `struct task_struct`, `enum pid_type`, `typedef pid_t` */
  readonly type: string
  /** 0: the type has none, as that of a function. */
  readonly sizeBefore: number | null
  readonly sizeAfter: number | null
  readonly members: ReadonlyArray<MemberChange>
  readonly values: ReadonlyArray<ValueChange>
  /** A typedef's type, as C writes it; null: it is the same, or this is not a typedef. */
  readonly aliased: { readonly before: string; readonly after: string } | null
  /** Only the first members were compared, because there are too many, or they are too deep in one another. */
  readonly cut: boolean
}

/**
 * The differences between types on the two sides; none if they are alike. Types are compared with those of their sort and name.
 * Where several have it, those that are alike on both sides are set aside, then the largest is compared with the largest
 * and so on.
 *
 * @since 0.1.0
 * @category comparing
 */
export const diffTypes = (before: Btf, after: Btf, types: {
  readonly before: ReadonlyArray<ComparedType>
  readonly after: ReadonlyArray<ComparedType>
}): ReadonlyArray<TypeChange> => {
  const [old, new_] = [byTitle(types.before), byTitle(types.after)]
  const [was, is] = [Budget.ofAll(before), Budget.ofAll(after)]
  return [...new Set([...old.keys(), ...new_.keys()])].toSorted().flatMap((title) =>
    compare(formsOf(before, old.get(title) ?? [], was), formsOf(after, new_.get(title) ?? [], is))
  )
}

const compare = (before: ReadonlyArray<Form>, after: ReadonlyArray<Form>): ReadonlyArray<TypeChange> => {
  const changed = withoutTwins(before, after)
  const rest = withoutTwins(after, before)
  return Array.from(
    { length: Math.max(changed.length, rest.length) },
    (_, index) => change(changed[index], rest[index])
  )
}

/** The forms that have no equal one among the others; each of the others is the equal of one. */
const withoutTwins = (forms: ReadonlyArray<Form>, others: ReadonlyArray<Form>): ReadonlyArray<Form> => {
  const twins = new Map<string, number>()
  for (const { cut, text } of others) if (!cut) twins.set(text, (twins.get(text) ?? 0) + 1)
  return forms.filter(({ cut, text }) => {
    const left = cut ? 0 : twins.get(text) ?? 0
    if (left > 0) twins.set(text, left - 1)
    return left === 0
  })
}

/**
 * All named structs, unions, enums and typedefs that differ, by name; those of a base, which are the kernel's and not the module's,
 * are left out.
 *
 * @since 0.1.0
 * @category comparing
 */
export const diffAll = (before: Btf, after: Btf): ReadonlyArray<TypeChange> =>
  diffTypes(before, after, { before: named(before), after: named(after) })

const named = (btf: Btf): ReadonlyArray<ComparedType> => {
  const types: Array<ComparedType> = []
  for (let id = btf.firstId; id < btf.endId; id++) {
    const type = btf.type(id)
    if (isCompared(type) && type.name !== "") types.push(type)
  }
  return types
}

const byTitle = (types: ReadonlyArray<ComparedType>): ReadonlyMap<string, ReadonlyArray<ComparedType>> => {
  const groups = new Map<string, Array<ComparedType>>()
  for (const type of types) {
    const title = titleOf(type)
    const same = groups.get(title)
    if (same === undefined) groups.set(title, [type])
    else same.push(type)
  }
  return groups
}

const titleOf = ({ kind, name }: ComparedType): string => `${kind === "ENUM64" ? "enum" : kind.toLowerCase()} ${name}`

interface Form {
  readonly title: string
  readonly size: number
  readonly members: ReadonlyMap<string, Placed>
  readonly values: ReadonlyMap<string, string>
  readonly aliased: string | null
  /** Members or values are missing, so nothing is known to be its equal. */
  readonly cut: boolean
  /** All of the above: equal forms have equal texts. */
  readonly text: string
}

/** Largest first. */
const formsOf = (btf: Btf, types: ReadonlyArray<ComparedType>, budget: Budget): ReadonlyArray<Form> =>
  types.map((type): Form => {
    const [title, size] = [titleOf(type), btf.sizeOf(type.id) ?? 0]
    const target = type.kind === "TYPEDEF" ? btf.type(type.type) : undefined
    const unnamed = isCompared(target) && target.name === "" ? target : undefined
    const body = unnamed ?? type
    const members = new Places<Placed>()
    const values = new Places<string>()
    const cut = "members" in body
      ? collect(btf, structLayout(btf, body, budget), "", members, budget)
      : "values" in body && collectValues(body, values, budget)
    const aliased = body.kind === "TYPEDEF" ? oneLine(btf, body.type, "", budget) : null
    const text = JSON.stringify([title, size, [...members.byName], [...values.byName], aliased])
    return { title, size, members: members.byName, values: values.byName, aliased, cut, text }
  }).sort((a, b) => b.size - a.size)

/** Gives whether some are missing. */
const collectValues = ({ values }: EnumType, into: Places<string>, budget: Budget): boolean => {
  for (const { name, value } of values) {
    if (!budget.spend(name.length + 8)) return true
    into.add(name, `${value}`)
  }
  return false
}

/** Places of members, or values, by their names. */
class Places<A> {
  readonly byName = new Map<string, A>()
  /** How often a name was taken: only blobs that no compiler made have one twice. */
  private readonly copies = new Map<string, number>()

  add(name: string, place: A): void {
    let free = name
    while (this.byName.has(free)) {
      const copy = (this.copies.get(name) ?? 1) + 1
      this.copies.set(name, copy)
      free = `${name}#${copy}`
    }
    this.byName.set(free, place)
  }
}

/**
 * Members of an unnamed struct are compared one by one, whether the member has a name or not; behind a pointer or in an
 * array, as a type. Gives whether some are missing.
 */
const collect = (btf: Btf, layout: StructLayout, prefix: string, into: Places<Placed>, budget: Budget): boolean => {
  let { cut } = layout
  for (const member of layout.members) {
    const { body, declaration, name } = member
    if (body !== undefined && "members" in body && declaration.declarator === name) {
      if (collect(btf, body, name === "" ? prefix : `${prefix}${name}.`, into, budget)) cut = true
    } else {
      into.add(prefix + name, placedOf(btf, member, budget))
    }
  }
  return cut
}

const placedOf = (btf: Btf, { bits, offset, size, typeId }: MemberLayout, budget: Budget): Placed => ({
  bit: offset * 8 + (bits?.offset ?? 0),
  size,
  bits: bits?.size ?? null,
  type: oneLine(btf, typeId, "", budget)
})

const change = (before: Form | undefined, after: Form | undefined): TypeChange => {
  const both = before !== undefined && after !== undefined
  const [was, is] = [before?.aliased ?? null, after?.aliased ?? null]
  return {
    type: (before ?? after)?.title ?? "",
    sizeBefore: before?.size ?? null,
    sizeAfter: after?.size ?? null,
    members: both ? memberChanges(before.members, after.members) : [],
    values: both ? valueChanges(before.values, after.values) : [],
    aliased: was === null || is === null || was === is ? null : { before: was, after: is },
    cut: before?.cut === true || after?.cut === true
  }
}

const valueChanges = (
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>
): ReadonlyArray<ValueChange> =>
  [...new Set([...before.keys(), ...after.keys()])].map((name): ValueChange => (
    { name, before: before.get(name) ?? null, after: after.get(name) ?? null }
  )).filter(({ after, before }) => before !== after)

const memberChanges = (
  before: ReadonlyMap<string, Placed>,
  after: ReadonlyMap<string, Placed>
): ReadonlyArray<MemberChange> => {
  const changes = [...before].map(([member, was]): MemberChange => {
    const is = after.get(member)
    return {
      member,
      before: was,
      after: is ?? null,
      moved: is !== undefined && is.bit !== was.bit,
      resized: is !== undefined && (is.size !== was.size || is.bits !== was.bits),
      retyped: is !== undefined && is.type !== was.type
    }
  }).filter(({ after, moved, resized, retyped }) => after === null || moved || resized || retyped)
  const added = [...after].filter(([member]) => !before.has(member)).map(([member, is]): MemberChange => ({
    member,
    before: null,
    after: is,
    moved: false,
    resized: false,
    retyped: false
  }))
  return [...changes, ...added]
}
