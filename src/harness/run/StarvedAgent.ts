import * as Effect from "effect/Effect"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import { readKtime, readTime } from "../../sched/SchedTime.ts"
import type { Mailbox } from "../agent/Mailbox.ts"

/** By the host's clock: runs that end before are not looked at, which costs a search for the kernel in the guest's memory. */
const FIRST_LOOK = "20 seconds"
const LOOK = "2 seconds"

/**
 * Waits until the agent has had no CPU for `longest` ns of the guest's clock, and gives its last sign of life. Nothing is
 * above it but other tasks of FIFO 99, or a kernel that does not schedule. Where the kernel's clock cannot be read it waits
 * for ever.
 */
export const agentStarved = (memory: GuestMemory, mailbox: Mailbox, longest: number): Effect.Effect<string> =>
  Effect.gen(function*() {
    yield* Effect.sleep(FIRST_LOOK)
    const kernel = yield* GuestKernel.fromMemory(memory, "memory of the running guest")
    for (;;) {
      kernel.space.flush()
      const beat = mailbox.state.heartbeatNs
      const now = readKtime(kernel, readTime(kernel))
      if (now !== null && now - beat > longest) {
        return `no CPU ran it for ${((now - beat) / 1e9).toFixed(1)} s of the guest`
      }
      yield* Effect.sleep(LOOK)
    }
  }).pipe(Effect.catchAll(() => Effect.never))
