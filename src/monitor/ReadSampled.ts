import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { listNodes } from "../memory/structs/ListHead.ts"
import { waitingMillis } from "../sched/Findings.ts"
import { readRunQueues } from "../sched/RunQueues.ts"
import { schedLayouts } from "../sched/SchedLayouts.ts"
import { readSched } from "../sched/SchedState.ts"
import { readTime, type SchedTime } from "../sched/SchedTime.ts"
import { readDispatchQueues } from "../sched/scx/DispatchQueues.ts"
import { readScxBase } from "../sched/scx/ScxState.ts"
import { TaskReader } from "../sched/tasks/Tasks.ts"
import type { OldestTask, Sampled } from "./Sample.ts"

/** Times that a torn reading is tried again at once; the next sample comes soon. */
const TRIES = 3

/**
 * The parts of a scheduler's state that samples are made of, from the memory of a kernel that runs. Undefined when each of
 * some tries was torn: a run queue could not be read or was not its CPU's, time went back, or another scheduler had come
 * meanwhile. Counts and lists of one queue may still be of different instants, so they are not compared.
 *
 * @since 0.1.0
 * @category reading
 */
export const readRunning = (kernel: GuestKernelService): Sampled | undefined => {
  for (let tries = 0; tries < TRIES; tries++) {
    const sampled = readOnce(kernel)
    if (sampled !== undefined) return sampled
  }
  return undefined
}

/**
 * The same parts of a kernel that stands still, with what looks wrong.
 *
 * @since 0.1.0
 * @category reading
 */
export const readFrozen = (kernel: GuestKernelService): Sampled => {
  const reader = TaskReader.of(kernel)
  const sched = readSched(kernel)
  return { ...sched, oldest: reader === undefined ? null : oldestRunnable(kernel, reader, readTime(kernel)) }
}

const readOnce = (kernel: GuestKernelService): Sampled | undefined => {
  kernel.space.flush()
  const reader = TaskReader.of(kernel)
  if (reader === undefined) return undefined
  const time = readTime(kernel)
  const scheduler = rootAddress(kernel)
  const runQueues = readRunQueues(kernel, reader)
  const scx = readScxBase(kernel, time)
  const queues = "kind" in scx ? undefined : readDispatchQueues(kernel, reader, time).queues
  const oldest = "kind" in scx ? null : oldestRunnable(kernel, reader, time)
  const torn = !("kind" in runQueues) &&
    runQueues.some(({ curr, online, problem }) => problem !== undefined || (online && curr === undefined))
  if (torn || rootAddress(kernel) !== scheduler || readTime(kernel).ticks < time.ticks) return undefined
  return {
    time: { hz: time.hz, jiffies: time.jiffies },
    runQueues,
    scx,
    dispatchQueues: queues ?? [],
    findings: [],
    oldest
  }
}

const rootAddress = ({ space, symbols }: GuestKernelService): bigint | undefined => {
  const at = symbols.address("scx_root") ?? symbols.address("scx_ops") // a name, before v6.16
  return at === undefined ? undefined : space.u64(at)
}

/**
 * The task of sched_ext that has been runnable for longest without running, wherever it waits: in a queue or with the BPF
 * scheduler. Null where none waits, or the kernel does not tell.
 * @see `struct scx_rq.runnable_list`, v6.12 to v7.3
 *
 * @since 0.1.0
 * @category reading
 */
export const oldestRunnable = (
  { btf, perCpuOffsets, space, symbols }: GuestKernelService,
  reader: TaskReader,
  time: SchedTime & { readonly ticks: bigint }
): OldestTask | null => {
  const queues = symbols.address("runqueues")
  const headAt = schedLayouts(btf).rq?.at("scx.runnable_list")
  const linkAt = reader.at("scx.runnable_node")
  if (queues === undefined || headAt === undefined || linkAt === undefined) return null
  let oldest: OldestTask | null = null
  for (const [cpu, offset] of perCpuOffsets.entries()) {
    if (offset === undefined) continue
    const { nodes } = listNodes(space, BigInt.asUintN(64, queues + offset + BigInt(headAt)))
    for (const node of nodes) {
      const task = reader.read(node - BigInt(linkAt))
      const millis = "kind" in task ? undefined : waitingMillis(time, task)
      if ("kind" in task || millis === undefined || millis <= (oldest?.millis ?? -1)) continue
      oldest = { pid: task.pid, comm: task.comm, millis, cpu }
    }
  }
  return oldest
}
