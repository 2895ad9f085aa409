import { errnoName } from "../../../core/Errors.ts"
import { type Reason, unreadable } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { Errno } from "./BpfAbi.ts"
import type { BpfCalls, ObjectKind } from "./BpfCalls.ts"

/** The objects of a kind, in the order of ids, and a reason for each that the kernel would not open. */
export interface Discovered<A> {
  readonly items: ReadonlyArray<A>
  readonly problems: ReadonlyArray<Reason>
  /** Minus the errno that ended the listing itself, else 0. */
  readonly failed: number
}

/**
 * Every object of a kind. `look` gets a file descriptor of each: an item that it returns is listed, text is a problem,
 * undefined skips the object. With `keep` the descriptor stays open and is the caller's. Objects that vanish meanwhile are
 * skipped.
 */
export const discover = <A>(
  calls: BpfCalls,
  kind: ObjectKind,
  look: (fd: number, id: number) => { readonly item: A; readonly keep: boolean } | string | undefined
): Discovered<A> => {
  const items: Array<A> = []
  const problems = new WalkProblems()
  for (let id = 0;;) {
    const step = calls.nextId(kind, id)
    if (step < 0) return { items, problems: problems.list, failed: step === -Errno.ENOENT ? 0 : step }
    id = calls.answer
    const fd = calls.open(kind, id)
    if (fd < 0) {
      if (fd !== -Errno.ENOENT) {
        problems.add(unreadable(`${kind} ${id}: the kernel would not open it: ${errnoName(-fd)}`))
      }
      continue
    }
    let keep = false
    try {
      const found = look(fd, id)
      if (typeof found === "string") problems.add(unreadable(`${kind} ${id}: ${found}`))
      else if (found !== undefined) {
        items.push(found.item)
        keep = found.keep
      }
    } finally {
      if (!keep) calls.close(fd)
    }
  }
}
