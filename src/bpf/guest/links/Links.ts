import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { GuestKernel } from "../../../memory/GuestKernel.ts"
import type { Link } from "../../Link.ts"
import type { BpfUnreadable, Listing } from "../../MapAccessor.ts"
import { ProgramWalk } from "../programs/ProgramWalk.ts"
import { DirectAttachments } from "./DirectAttachments.ts"
import { LinkReader } from "./LinkReader.ts"
import { LinkWalk } from "./LinkWalk.ts"

/**
 * Every link of a kernel that stands still, in the order of ids, then what is attached without a link.
 *
 * @since 0.1.0
 * @category reading
 */
export const listLinks: Effect.Effect<Listing<Link>, BpfUnreadable, GuestKernel> = Effect.flatMap(
  GuestKernel,
  (kernel) =>
    Either.map(ProgramWalk.make(kernel), (programs) => {
      const reader = new LinkReader(kernel, programs)
      const links = new LinkWalk(reader).list()
      const direct = new DirectAttachments(reader).list()
      return { items: [...links.items, ...direct.items], problems: [...links.problems, ...direct.problems] }
    })
)
