import { hex, kvaOffset, kvaPage } from "../../core/Address.ts"
import { corrupted, type Reason, unreadable, within } from "../../core/Reason.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { listNodes } from "../../memory/structs/ListHead.ts"
import { treeNodes } from "../../memory/structs/RbTree.ts"
import { schedLayouts } from "../SchedLayouts.ts"
import { millisSince, type SchedTime } from "../SchedTime.ts"
import type { Int } from "../StructFields.ts"
import type { TaskReader } from "../tasks/Tasks.ts"

/** Bits of `struct scx_dsq_list_node.flags` and `sched_ext_entity.dsq_flags`; include/linux/sched/ext.h, v6.12 to v7.3. */
const ITER_CURSOR = 1
const ON_PRIQ = 1
/** Reasons reported per queue. */
const MOST_PROBLEMS = 16

/**
 * A task in a dispatch queue.
 *
 * @since 0.1.0
 * @category models
 */
export interface QueuedTask {
  readonly address: string
  readonly pid: number
  readonly comm: string
  /** `vtime` of a task that was inserted by its virtual time, else `fifo`. */
  readonly order: "fifo" | "vtime"
  readonly slice: Int
  readonly dsq_vtime: Int
  readonly dsq_seq: Int
  readonly flags: Int
  readonly weight: Int
  /** Milliseconds for which it has been runnable; null where the kernel does not tell. */
  readonly waitingMillis: number | null
}

/**
 * The tasks in a dispatch queue, in the order in which they are dispatched.
 *
 * @since 0.1.0
 * @category models
 */
export interface QueueContents {
  /** Iterators inside it. */
  readonly cursors: number
  readonly tasks: ReadonlyArray<QueuedTask>
  readonly problems: ReadonlyArray<Reason>
}

/** Reads the tasks in dispatch queues. */
export class QueuedTasks {
  readonly #layouts
  readonly #kernel: GuestKernelService
  readonly #reader: TaskReader
  readonly #time: SchedTime & { readonly ticks: bigint }

  constructor(kernel: GuestKernelService, reader: TaskReader, time: SchedTime & { readonly ticks: bigint }) {
    this.#kernel = kernel
    this.#reader = reader
    this.#time = time
    this.#layouts = schedLayouts(kernel.btf)
  }

  /** Those of a queue, each list and tree checked against the other and against the queue's count. */
  of(
    { locked, nr }: { readonly locked: boolean; readonly nr: Int },
    address: bigint,
    tree: bigint
  ): QueueContents {
    const { btf, space } = this.#kernel
    const listAt = this.#layouts.dispatchQ?.at("list") ?? 0
    const { cursors, problems, tasks } = this.#tasks(address, address + BigInt(listAt))
    if (!locked) {
      if (Number(nr) !== tasks.length && problems.length === 0) {
        problems.push(corrupted(`it counts ${nr} tasks, but its list has ${tasks.length}`))
      }
      const byTime = tasks.filter(({ order }) => order === "vtime").length
      const { nodes, problem } = treeNodes(space, btf, tree)
      if (problem !== undefined) problems.push(within("its tree", problem))
      else if (nodes.length !== byTime) {
        problems.push(corrupted(`its tree has ${nodes.length} tasks, its list ${byTime} that are in the tree`))
      }
    }
    return { cursors, tasks, problems: problems.slice(0, MOST_PROBLEMS) }
  }

  /** The tasks in a queue's list; a cursor is a node of its own, which no task is around. */
  #tasks(queue: bigint, head: bigint) {
    const { space } = this.#kernel
    const { dsqNode, entity } = this.#layouts
    const linkAt = this.#reader.at("scx.dsq_list")
    const flagsAt = dsqNode?.at("flags")
    const tasks: Array<QueuedTask> = []
    const problems: Array<Reason> = []
    let cursors = 0
    if (linkAt === undefined || flagsAt === undefined || entity === undefined) return { cursors, problems, tasks }
    const { nodes, problem } = listNodes(space, head)
    if (problem !== undefined) problems.push(within("its list", problem))
    for (const node of nodes) {
      const flags = space.u32(node + BigInt(flagsAt))
      if (flags >= 0 && (flags & ITER_CURSOR) !== 0) {
        cursors++
        continue
      }
      const task = this.#queued(node - BigInt(linkAt), queue, problems)
      if (task !== undefined) tasks.push(task)
    }
    return { cursors, problems, tasks }
  }

  #queued(address: bigint, queue: bigint, problems: Array<Reason>): QueuedTask | undefined {
    const { space } = this.#kernel
    const { entity, task, taskName } = this.#layouts
    if (task === undefined || taskName === undefined || entity === undefined) return undefined
    if (!space.window(kvaPage(address), kvaOffset(address), task.size)) {
      problems.push(unreadable(`task ${hex(address)}: ${space.faultText}`))
      return undefined
    }
    const { comm, pid } = taskName.read(space.view, space.at)
    const scx = entity.read(space.view, space.at)
    const dsqAt = task.at("scx.dsq")
    const dsq = dsqAt === undefined ? queue : space.view.getBigUint64(space.at + dsqAt, true)
    if (dsq !== queue) {
      problems.push(corrupted(`task ${pid} is in its list, but says that it is in the queue at ${hex(dsq)}`))
    }
    return {
      address: hex(address),
      pid: Number(pid),
      comm: comm ?? "",
      order: (Number(scx.dsq_flags) & ON_PRIQ) === 0 ? "fifo" : "vtime",
      slice: scx.slice ?? 0,
      dsq_vtime: scx.dsq_vtime ?? 0,
      dsq_seq: scx.dsq_seq ?? 0,
      flags: scx.flags ?? 0,
      weight: scx.weight ?? 0,
      waitingMillis: scx.runnable_at === undefined ? null : millisSince(this.#time, scx.runnable_at)
    }
  }
}
