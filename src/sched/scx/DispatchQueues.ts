import * as Either from "effect/Either"
import type { Mutable } from "effect/Types"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { hex, kvaOffset, kvaPage } from "../../core/Address.ts"
import { type Reason, unreadable, within } from "../../core/Reason.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { rhashtableLayout, rhashtableNodes } from "../../memory/structs/Rhashtable.ts"
import { enumValues } from "../EnumValues.ts"
import { schedLayouts } from "../SchedLayouts.ts"
import type { SchedTime } from "../SchedTime.ts"
import type { Int } from "../StructFields.ts"
import type { TaskReader } from "../tasks/Tasks.ts"
import { type QueueContents, QueuedTasks } from "./QueuedTasks.ts"
import { schedulerAddresses } from "./ScxState.ts"

type Kernel = GuestKernelService

const LOCKED = 0xff

/**
 * A dispatch queue in readings that come again and again: how long it is, not who is in it.
 *
 * @since 0.1.0
 * @category models
 */
export interface DispatchQueueBase {
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
}

/**
 * A dispatch queue, with the tasks in it.
 *
 * @since 0.1.0
 * @category models
 */
export interface DispatchQueue extends DispatchQueueBase, QueueContents {}

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
  const queued = new QueuedTasks(kernel, reader, time)
  return walked(
    new DispatchQueueWalk(kernel, (base, address, tree) => ({ ...base, ...queued.of(base, address, tree) }))
  )
}

/**
 * The same without the tasks in them, for readings that come again and again.
 *
 * @since 0.1.0
 * @category reading
 */
export const readDispatchQueuesBase = (
  kernel: Kernel
): { readonly queues: ReadonlyArray<DispatchQueueBase>; readonly problems: ReadonlyArray<Reason> } =>
  walked(new DispatchQueueWalk(kernel, (base) => base))

const walked = <Queue>(walk: DispatchQueueWalk<Queue>): DispatchQueueWalk<Queue> => {
  walk.ofCpus()
  if (walk.layouts.sched === undefined) walk.ofVariables()
  else walk.ofSchedulers()
  return walk
}

/** Names of the built-in queues by id. */
const builtInNames = memoizeByBtf((btf): ReadonlyMap<bigint, string> =>
  new Map([...enumValues(btf, "scx_dsq_id_flags")].map(([id, name]) => [id, name.replace(/^SCX_DSQ_/, "")]))
)

class DispatchQueueWalk<Queue> {
  readonly queues: Array<Queue> = []
  readonly problems: Array<Reason> = []
  readonly #seen = new Set<bigint>()
  readonly layouts
  readonly #kernel: Kernel
  readonly #queue: (base: DispatchQueueBase, address: bigint, tree: bigint) => Queue

  /** @param queue what is kept of a queue, given its address and the topmost node of its tree */
  constructor(kernel: Kernel, queue: (base: DispatchQueueBase, address: bigint, tree: bigint) => Queue) {
    this.#kernel = kernel
    this.#queue = queue
    this.layouts = schedLayouts(kernel.btf)
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
        const at = this.layouts.rq?.at(path)
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
    const { pnode, sched } = this.layouts
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
    const at = this.layouts.pcpu?.at("bypass_dsq")
    if (at === undefined || pointer === 0n) return
    for (const [cpu, offset] of this.#kernel.perCpuOffsets.entries()) {
      const address = offset === undefined ? undefined : this.#kernel.perCpu(pointer + BigInt(at), cpu)
      if (address !== undefined) this.#read(address, { kind: "bypass", cpu, sched: hex(sched) })
    }
  }

  #users(table: bigint, sched: bigint | undefined): void {
    const { btf, space } = this.#kernel
    const layout = rhashtableLayout(btf)
    const at = this.layouts.dispatchQ?.at("hash_node")
    if (Either.isLeft(layout) || at === undefined) return
    const { nodes, problem } = rhashtableNodes(space, layout.right, table)
    if (problem !== undefined) this.problems.push(within(`the table of queues at ${hex(table)}`, problem))
    for (const node of nodes) {
      this.#read(node - BigInt(at), { kind: "user", ...(sched === undefined ? {} : { sched: hex(sched) }) })
    }
  }

  #read(address: bigint, origin: Origin): void {
    const { btf, space } = this.#kernel
    const { dispatchQ } = this.layouts
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
    const name = origin.kind === "user" ? undefined : builtInNames(btf).get(number)
    // Set one by one: spreading costs more than all the rest, and there are ten queues a CPU.
    const base: Mutable<DispatchQueueBase> = { kind: origin.kind, address: hex(address), id, nr, seq, locked }
    if (name !== undefined) base.name = name
    if (origin.cpu !== undefined) base.cpu = origin.cpu
    if (origin.node !== undefined) base.node = origin.node
    if (origin.sched !== undefined) base.sched = origin.sched
    this.queues.push(this.#queue(base, address, tree))
  }
}
