import * as Either from "effect/Either"
import { hex, kvaOffset, kvaPage } from "../../core/Address.ts"
import { corrupted, type Reason, unreadable, within } from "../../core/Reason.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { listNodes } from "../../memory/structs/ListHead.ts"
import { treeNodes } from "../../memory/structs/RbTree.ts"
import { rhashtableLayout, rhashtableNodes } from "../../memory/structs/Rhashtable.ts"
import { enumValues } from "../EnumValues.ts"
import { schedLayouts } from "../SchedLayouts.ts"
import { millisSince, type SchedTime } from "../SchedTime.ts"
import type { Int } from "../StructFields.ts"
import type { TaskReader } from "../tasks/Tasks.ts"
import { schedulerAddresses } from "./ScxState.ts"

type Kernel = GuestKernelService

/** Bits of `struct scx_dsq_list_node.flags` and `sched_ext_entity.dsq_flags`; include/linux/sched/ext.h, v6.12 to v7.3. */
const ITER_CURSOR = 1
const ON_PRIQ = 1
const LOCKED = 0xff
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
 * A dispatch queue: `tasks` are in the order in which they are dispatched.
 *
 * @since 0.1.0
 * @category models
 */
export interface DispatchQueue {
  readonly kind: "local" | "global" | "bypass" | "reject" | "rescue" | "user"
  readonly address: string
  /** The queue's own id; built-in queues share theirs, their place is `cpu` or `node`. */
  readonly id: Int
  /** The id's name in the kernel's enum, without prefix; user queues have none. */
  readonly name?: string
  readonly cpu?: number
  readonly node?: number
  /** The scheduler that it belongs to, by address. */
  readonly sched?: string
  readonly nr: Int
  readonly seq: Int
  readonly locked: boolean
  /** Iterators inside it. */
  readonly cursors: number
  readonly tasks: ReadonlyArray<QueuedTask>
  readonly problems: ReadonlyArray<Reason>
}

type Origin = Pick<DispatchQueue, "kind" | "cpu" | "node" | "sched">

/**
 * All dispatch queues, and what kept others from being found.
 *
 * @since 0.1.0
 * @category reading
 */
export const readDispatchQueues = (
  kernel: Kernel,
  reader: TaskReader,
  time: SchedTime & { readonly ticks: bigint }
): { readonly queues: ReadonlyArray<DispatchQueue>; readonly problems: ReadonlyArray<Reason> } => {
  const walk = new DispatchQueueWalk(kernel, reader, time)
  walk.ofCpus()
  if (schedLayouts(kernel.btf).sched === undefined) walk.ofVariables()
  else walk.ofSchedulers()
  return walk
}

class DispatchQueueWalk {
  readonly queues: Array<DispatchQueue> = []
  readonly problems: Array<Reason> = []
  readonly #seen = new Set<bigint>()
  readonly #layouts
  readonly #kernel: Kernel
  readonly #reader: TaskReader
  readonly #time: SchedTime & { readonly ticks: bigint }

  constructor(kernel: Kernel, reader: TaskReader, time: SchedTime & { readonly ticks: bigint }) {
    this.#kernel = kernel
    this.#reader = reader
    this.#time = time
    this.#layouts = schedLayouts(kernel.btf)
  }

  /** Those that are part of run queues. */
  ofCpus(): void {
    const { perCpuOffsets, symbols } = this.#kernel
    const queues = symbols.address("runqueues")
    if (queues === undefined) return
    const parts = [
      ["scx.local_dsq", "local"],
      ["scx.bypass_dsq", "bypass"],
      ["scx.reject_dsq", "reject"],
      ["scx.rescue.dsq", "rescue"]
    ] as const
    for (const [cpu, offset] of perCpuOffsets.entries()) {
      if (offset === undefined) continue
      for (const [path, kind] of parts) {
        const at = this.#layouts.rq?.at(path)
        if (at !== undefined) this.#read(BigInt.asUintN(64, queues + offset) + BigInt(at), { kind, cpu })
      }
    }
  }

  /** v6.12 to v6.15: `dsq_hash` and `global_dsqs`, an array of pointers, one a node. */
  ofVariables(): void {
    const { space, symbols } = this.#kernel
    const globals = symbols.address("global_dsqs")
    const table = globals === undefined ? undefined : space.u64(globals)
    if (table !== undefined && table !== 0n) this.#nodes(table, 0, undefined)
    const hash = symbols.address("dsq_hash")
    if (hash !== undefined) this.#users(hash, undefined)
  }

  ofSchedulers(): void {
    const { space } = this.#kernel
    const { pnode, sched } = this.#layouts
    for (const address of schedulerAddresses(this.#kernel, this.problems)) {
      const pointerOf = (path: string): bigint => {
        const at = sched?.at(path)
        return at === undefined ? 0n : space.u64(address + BigInt(at)) ?? 0n
      }
      const globals = pointerOf("global_dsqs")
      if (globals !== 0n) this.#nodes(globals, 0, address)
      const nodes = pointerOf("pnode")
      if (nodes !== 0n) this.#nodes(nodes, pnode?.at("global_dsq") ?? 0, address)
      this.#bypass(pointerOf("pcpu"), address)
      const hash = sched?.at("dsq_hash")
      if (hash !== undefined) this.#users(address + BigInt(hash), address)
    }
  }

  /** One global queue a node, behind an array of pointers. Nodes that are not possible have none. */
  #nodes(table: bigint, within: number, sched: bigint | undefined): void {
    const { space, symbols } = this.#kernel
    const ids = symbols.address("nr_node_ids")
    const count = ids === undefined ? 1 : Math.min(Math.max(space.u32(ids), 1), 1024)
    for (let node = 0; node < count; node++) {
      const pointer = space.u64(table + BigInt(node * 8))
      if (pointer === undefined) return void this.problems.push(unreadable(`global queues: ${space.faultText}`))
      if (pointer === 0n) continue
      this.#read(pointer + BigInt(within), {
        kind: "global",
        node,
        ...(sched === undefined ? {} : { sched: hex(sched) })
      })
    }
  }

  /** v7.1: a scheduler's own, one a CPU. */
  #bypass(pointer: bigint, sched: bigint): void {
    const at = this.#layouts.pcpu?.at("bypass_dsq")
    if (at === undefined || pointer === 0n) return
    for (const [cpu, offset] of this.#kernel.perCpuOffsets.entries()) {
      const address = offset === undefined ? undefined : this.#kernel.perCpu(pointer + BigInt(at), cpu)
      if (address !== undefined) this.#read(address, { kind: "bypass", cpu, sched: hex(sched) })
    }
  }

  #users(table: bigint, sched: bigint | undefined): void {
    const { btf, space } = this.#kernel
    const layout = rhashtableLayout(btf)
    const at = this.#layouts.dispatchQ?.at("hash_node")
    if (Either.isLeft(layout) || at === undefined) return
    const { nodes, problem } = rhashtableNodes(space, layout.right, table)
    if (problem !== undefined) this.problems.push(within(`the table of queues at ${hex(table)}`, problem))
    for (const node of nodes) {
      this.#read(node - BigInt(at), { kind: "user", ...(sched === undefined ? {} : { sched: hex(sched) }) })
    }
  }

  #read(address: bigint, origin: Origin): void {
    const { btf, space } = this.#kernel
    const { dispatchQ } = this.#layouts
    if (dispatchQ === undefined || this.#seen.has(address)) return
    this.#seen.add(address)
    if (!space.window(kvaPage(address), kvaOffset(address), dispatchQ.size)) {
      return void this.problems.push(unreadable(`the ${origin.kind} queue at ${hex(address)}: ${space.faultText}`))
    }
    const { at, view } = space // until the next look at anything else
    const { nr = 0, seq = 0 } = dispatchQ.read(view, at)
    const lockAt = dispatchQ.at("lock")
    const locked = lockAt !== undefined && (view.getUint32(at + lockAt, true) & LOCKED) !== 0
    const priqAt = dispatchQ.at("priq")
    const tree = priqAt === undefined ? 0n : view.getBigUint64(at + priqAt, true)
    const number = view.getBigUint64(at + (dispatchQ.at("id") ?? 0), true)
    const id = number <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(number) : String(number)
    const name = enumValues(btf, "scx_dsq_id_flags").get(number)?.replace(/^SCX_DSQ_/, "")
    const { cursors, problems, tasks } = this.#tasks(address, address + BigInt(dispatchQ.at("list") ?? 0))
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
    this.queues.push({
      ...origin,
      address: hex(address),
      id,
      ...(name === undefined || origin.kind === "user" ? {} : { name }),
      nr,
      seq,
      locked,
      cursors,
      tasks,
      problems: problems.slice(0, MOST_PROBLEMS)
    })
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
