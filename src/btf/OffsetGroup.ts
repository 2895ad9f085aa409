import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { YieldWrap } from "effect/Utils"
import { Reason, unsupported } from "../core/Reason.ts"
import type { Btf } from "./Btf.ts"
import type { Enumeration } from "./Enumeration.ts"
import type { Layout, MissingMember } from "./Layout.ts"

/**
 * A kernel whose BTF does not describe what a group needs: it was built without it, or keeps it elsewhere.
 *
 * @since 0.1.0
 * @category errors
 */
export class GroupMissing extends Schema.TaggedError<GroupMissing>("ktstr/GroupMissing")("GroupMissing", {
  subject: Schema.String,
  group: Schema.String,
  /** The struct (or enum) that is missing, or that lacks `member`. */
  struct: Schema.String,
  member: Schema.UndefinedOr(Schema.String),
  /** Of kind `unsupported`; its text names the struct and the member. */
  reason: Reason
}) {
  override get message() {
    return `${this.subject}: no ${this.group} offsets: ${this.reason.text}`
  }
}

/**
 * Layouts of structs, and numbers of enums, by the names that readers use. One that is undefined is optional.
 *
 * @since 0.1.0
 * @category models
 */
export interface GroupParts {
  readonly [part: string]: Layout<never, string> | Enumeration<string> | undefined
}

/**
 * Structs that one reader of kernel memory needs together: it gets all of them or none.
 *
 * Where a layout belongs: one that a single file reads is a constant beside its reader; one that two files read, or
 * that `btf offsets` shows, is a group under `offsets`.
 *
 * @since 0.1.0
 * @category models
 */
export interface OffsetGroup<Parts extends GroupParts> {
  readonly name: string
  /** The data that can be read with it, for people. */
  readonly about: string
  /** Asks for structs and members; never for the kernel's version. */
  readonly resolve: (btf: Btf) => Either.Either<Parts, GroupMissing>
}

/** A group by the generator that finds its parts: what `yield*` meets missing first is the reason that it has none. */
export const offsetGroup = <Parts extends GroupParts>(
  name: string,
  about: string,
  resolve: (btf: Btf) => Generator<YieldWrap<Either.Either<unknown, MissingMember>>, Parts, never>
): OffsetGroup<Parts> => ({
  name,
  about,
  resolve: (btf) =>
    Either.gen(() => resolve(btf)).pipe(
      Either.mapLeft(({ member, reason, struct }) =>
        new GroupMissing({ subject: btf.subject, group: name, struct, member, reason: unsupported(reason) })
      )
    )
})

/** Are these fields, where they are there at all, arrays of at least `least` elements of `size` bytes? */
export const checkArrays = <Required extends string, Optional extends string>(
  { arrays, at, struct }: Layout<Required, Optional>,
  fields: ReadonlyArray<NoInfer<Required | Optional>>,
  least: number,
  size: number
): Either.Either<void, MissingMember> => {
  for (const member of fields) {
    const array = arrays[member]
    if (at[member] === undefined || (array !== undefined && array.count >= least && array.size === size)) continue
    const found = array === undefined ? "no array" : `an array of ${array.count} × ${array.size} bytes`
    return Either.left({
      struct,
      member,
      reason: `struct ${struct} member ${member} is ${found}, not of ${least} × ${size} bytes or more: `
        + "this kernel is newer than ktstr knows"
    })
  }
  return Either.void
}
