import * as Either from "effect/Either"
import type { Btf } from "./Btf.ts"
import type { MissingMember, OtherNames } from "./Layout.ts"

/**
 * The numbers that an enum of the kernel gives to some of its names; they index the arrays of a group.
 *
 * @since 0.1.0
 * @category models
 */
export interface Enumeration<Name extends string> {
  readonly enum: string
  readonly valueOf: { readonly [N in Name]: number }
}

/** The numbers of `names` in the enum called `name`; a kernel may know a name by its other one. */
export const enumeration = <const Name extends string>(
  btf: Btf,
  name: string,
  names: ReadonlyArray<Name>,
  otherNames: OtherNames<NoInfer<Name>> = {}
): Either.Either<Enumeration<Name>, MissingMember> => {
  let member: string | undefined
  for (const id of btf.idsByName(name)) {
    const type = btf.type(id)
    if (type?.kind !== "ENUM") continue
    const known = new Map(type.values.map(({ name, value }) => [name, Number(value)]))
    const found = names.map((wanted) => [wanted, known.get(wanted) ?? known.get(otherNames[wanted] ?? "")] as const)
    const missing = found.find(([, value]) => value === undefined)
    if (missing === undefined) {
      return Either.right({ enum: name, valueOf: Object.fromEntries(found) as Enumeration<Name>["valueOf"] })
    }
    member ??= missing[0]
  }
  const what = member === undefined ? `no enum ${name}` : `enum ${name} has no ${member}`
  return Either.left({ struct: name, member, reason: `${what}: this kernel was built without what uses it` })
}
