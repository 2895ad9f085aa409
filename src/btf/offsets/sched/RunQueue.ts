import * as Either from "effect/Either"
import type { Btf } from "../../Btf.ts"
import { type Layout, layout, type LayoutError, layoutOf } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/** Members that tell the scheduler's `struct rq` from those of drivers. */
const OWN = ["nr_running", "clock"] as const

/**
 * Members of the scheduler's `struct rq`; where one is missing, the error is about this `rq` and not about a driver's.
 */
export const rqLayout = <const Field extends string>(
  btf: Btf,
  fields: ReadonlyArray<Field>
): Either.Either<Layout<Field>, LayoutError> =>
  Either.flatMap(layout(btf, "rq", OWN), ({ typeId }) => layoutOf(btf, typeId, fields))

/**
 * A CPU's run queue, on kernels with and without sched_ext. With `scxRunQueueOffsets` the ktstr crate's
 * `KernelOffsets`.
 * @see kernel/sched/sched.h `struct rq`, v6.1 to v7.3
 */
export const runQueueOffsets = offsetGroup("run-queue", "run queues: how many tasks, and the clock", function*(btf) {
  return { rq: yield* layout(btf, "rq", OWN) }
})

/**
 * sched_ext's part of a CPU's run queue. `scxRq` and `dispatchQ` are the types of `rq.scx` and of its `local_dsq`,
 * whatever they are called. `rq.at.scx` plus `scxRq.at.flags` is the flags' place in the run queue.
 * @see kernel/sched/sched.h `struct scx_rq`; include/linux/sched/ext.h `struct scx_dispatch_q`; v6.12 and newer, with
 * CONFIG_SCHED_CLASS_EXT
 */
export const scxRunQueueOffsets = offsetGroup(
  "scx-run-queue",
  "sched_ext's part of run queues, local queues",
  function*(btf) {
    const rq = yield* rqLayout(btf, ["scx"])
    const scxRq = yield* layoutOf(btf, rq.typeOf.scx, ["nr_running", "local_dsq", "flags"])
    const dispatchQ = yield* layoutOf(btf, scxRq.typeOf.local_dsq, ["nr"])
    return { rq, scxRq, dispatchQ }
  }
)
