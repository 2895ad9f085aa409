import type { Btf } from "../Btf.ts"
import type { StructType } from "../BtfType.ts"
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
 * The change of a struct or union; without a size on one side, it does not exist there.
 *
 * @since 0.1.0
 * @category models
 */
export interface TypeChange {
  /** `struct task_struct` */
  readonly type: string
  readonly sizeBefore: number | null
  readonly sizeAfter: number | null
  readonly members: ReadonlyArray<MemberChange>
  /** Only the first members were compared, because there are too many, or they are too deep in one another. */
  readonly cut: boolean
}

/**
 * The differences between the structs and unions called `name` on the two sides; none if they are alike. Where several
 * have the name, those that are alike on both sides are set aside, then the largest is compared with the largest and so
 * on.
 *
 * @since 0.1.0
 * @category comparing
 */
export const diffTypes = (before: Btf, after: Btf, types: {
  readonly before: ReadonlyArray<StructType>
  readonly after: ReadonlyArray<StructType>
}): ReadonlyArray<TypeChange> =>
  compare(
    formsOf(before, types.before, Budget.ofAll(before)),
    formsOf(after, types.after, Budget.ofAll(after))
  )

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
 * All named structs and unions that differ, by name; those of a base, which are the kernel's and not the module's, are left out.
 *
 * @since 0.1.0
 * @category comparing
 */
export const diffAll = (before: Btf, after: Btf): ReadonlyArray<TypeChange> => {
  const [old, new_] = [named(before), named(after)]
  const [was, is] = [Budget.ofAll(before), Budget.ofAll(after)]
  return [...new Set([...old.keys(), ...new_.keys()])].toSorted().flatMap((name) =>
    compare(formsOf(before, old.get(name) ?? [], was), formsOf(after, new_.get(name) ?? [], is))
  )
}

const named = (btf: Btf): ReadonlyMap<string, ReadonlyArray<StructType>> => {
  const types = new Map<string, Array<StructType>>()
  for (let id = btf.firstId; id < btf.endId; id++) {
    const type = btf.type(id)
    if (type?.kind !== "STRUCT" && type?.kind !== "UNION" || type.name === "") continue
    const key = titleOf(type)
    const same = types.get(key)
    if (same === undefined) types.set(key, [type])
    else same.push(type)
  }
  return types
}

const titleOf = ({ kind, name }: StructType): string => `${kind.toLowerCase()} ${name}`

interface Form {
  readonly title: string
  readonly size: number
  readonly members: ReadonlyMap<string, Placed>
  /** Members are missing, so nothing is known to be its equal. */
  readonly cut: boolean
  /** All of the above: equal forms have equal texts. */
  readonly text: string
}

/** Largest first. */
const formsOf = (btf: Btf, types: ReadonlyArray<StructType>, budget: Budget): ReadonlyArray<Form> =>
  types.map((type): Form => {
    const members = new MemberNames()
    const cut = collect(btf, structLayout(btf, type, budget), "", members, budget)
    const title = titleOf(type)
    const { places } = members
    return { title, size: type.size, members: places, cut, text: JSON.stringify([title, type.size, [...places]]) }
  }).sort((a, b) => b.size - a.size)

/** Places of members by their paths. */
class MemberNames {
  readonly places = new Map<string, Placed>()
  /** How often a path was taken: only blobs that no compiler made have one twice. */
  private readonly copies = new Map<string, number>()

  add(path: string, placed: Placed): void {
    let free = path
    while (this.places.has(free)) {
      const copy = (this.copies.get(path) ?? 1) + 1
      this.copies.set(path, copy)
      free = `${path}#${copy}`
    }
    this.places.set(free, placed)
  }
}

/**
 * Members of an unnamed struct are compared one by one, whether the member has a name or not; behind a pointer or in an
 * array, as a type. Gives whether some are missing.
 */
const collect = (btf: Btf, layout: StructLayout, prefix: string, into: MemberNames, budget: Budget): boolean => {
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

const change = (before: Form | undefined, after: Form | undefined): TypeChange => ({
  type: (before ?? after)?.title ?? "",
  sizeBefore: before?.size ?? null,
  sizeAfter: after?.size ?? null,
  members: before === undefined || after === undefined ? [] : memberChanges(before.members, after.members),
  cut: before?.cut === true || after?.cut === true
})

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
