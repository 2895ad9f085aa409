import { absent, corrupted, type Reason, within } from "../core/Reason.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { listNodes } from "../memory/structs/ListHead.ts"
import { findings, waitingMillis } from "../sched/Findings.ts"
import { readRunQueues, readRunQueuesBase } from "../sched/RunQueues.ts"
import { schedLayouts } from "../sched/SchedLayouts.ts"
import { readKtime, readTime, type SchedTime } from "../sched/SchedTime.ts"
import { readDispatchQueues, readDispatchQueuesBase } from "../sched/scx/DispatchQueues.ts"
import { readScxBase } from "../sched/scx/ScxState.ts"
import { readTasks, TaskReader } from "../sched/tasks/Tasks.ts"
import type { OldestTask, Sampled, SamplePart, SampleProblem } from "./Sample.ts"

/** Times that a torn reading is tried again at once; the next sample comes soon. */
const TRIES = 3

/** Problems of one part that a sample tells, the first ones. */
const MOST_PROBLEMS = 4

/**
 * The parts of a scheduler's state that samples are made of, from the memory of a kernel that runs. A reason when each of
 * some tries was torn: a run queue could not be read or was not its CPU's, time went back, or another scheduler had come
 * meanwhile; `absent` where this kernel cannot be sampled at all. Counts and lists of one queue may still be of different
 * instants, so they are not compared.
 *
 * @since 0.1.0
 * @category reading
 */
export const readRunning = (kernel: GuestKernelService): Sampled | Reason => {
  const reader = TaskReader.of(kernel)
  if (reader === undefined) return NO_TASKS
  let torn: Reason | undefined
  for (let tries = 0; tries < TRIES; tries++) {
    const sampled = readOnce(kernel, reader)
    if (!("kind" in sampled)) return sampled
    torn = sampled
  }
  return torn ?? NO_TASKS
}

/**
 * The same parts of a kernel that stands still, with what looks wrong.
 *
 * @since 0.1.0
 * @category reading
 */
export const readFrozen = (kernel: GuestKernelService): Sampled | Reason => {
  const reader = TaskReader.of(kernel)
  if (reader === undefined) return NO_TASKS
  const time = readTime(kernel)
  const runQueues = readRunQueues(kernel, reader)
  const scx = readScxBase(kernel, time)
  const walk = "kind" in scx ? undefined : readDispatchQueues(kernel, reader, time)
  const sampled = sampledOf(kernel, reader, time, { runQueues, scx, walk })
  const { problems, tasks } = readTasks(kernel, reader)
  return {
    ...sampled,
    findings: findings({
      time,
      ktime: readKtime(kernel, time),
      runQueues: "kind" in runQueues ? [] : runQueues,
      scx: "kind" in scx ? undefined : scx,
      dispatchQueues: walk?.queues ?? [],
      tasks
    }),
    problems: [
      ...sampled.problems,
      ...of("tasks", problems),
      // the counts and lists of a queue are of one instant here
      ...of("queues", walk?.queues.flatMap((queue) => queue.problems) ?? [])
    ]
  }
}

const NO_TASKS = absent("the kernel's BTF has no struct task_struct with a pid and a name")

const of = (part: SamplePart, reasons: ReadonlyArray<Reason>): ReadonlyArray<SampleProblem> =>
  reasons.slice(0, MOST_PROBLEMS).map((reason) => ({ part, ...reason }))

const sampledOf = (
  kernel: GuestKernelService,
  reader: TaskReader,
  time: SchedTime & { readonly ticks: bigint },
  { runQueues, scx, walk }: Pick<Sampled, "runQueues" | "scx"> & {
    readonly walk: ReturnType<typeof readDispatchQueuesBase> | undefined
  }
): Sampled => {
  const oldest = "kind" in scx ? { task: null, problem: scx } : oldestRunnable(kernel, reader, time)
  return {
    time: { hz: time.hz, jiffies: time.jiffies },
    runQueues,
    scx,
    dispatchQueues: walk?.queues ?? absent("this kernel has no sched_ext, which alone has dispatch queues"),
    findings: [],
    oldest: oldest.task,
    problems: [
      ...of("cpus", "kind" in runQueues ? [runQueues] : runQueues.flatMap(({ problem }) => problem ?? [])),
      ...of("scheduler", "kind" in scx ? [scx] : scx.problems),
      ...of("queues", walk?.problems ?? []),
      ...of("oldest", oldest.problem === undefined || "kind" in scx ? [] : [oldest.problem])
    ]
  }
}

const readOnce = (kernel: GuestKernelService, reader: TaskReader): Sampled | Reason => {
  kernel.space.flush()
  const time = readTime(kernel)
  const scheduler = rootAddress(kernel)
  const scx = readScxBase(kernel, time)
  const sampled = sampledOf(kernel, reader, time, {
    runQueues: readRunQueuesBase(kernel, reader),
    scx,
    walk: "kind" in scx ? undefined : readDispatchQueuesBase(kernel)
  })
  for (const { cpu, curr, online, problem } of "kind" in sampled.runQueues ? [] : sampled.runQueues) {
    if (problem !== undefined) return problem
    if (online && curr === undefined) return corrupted(`the run queue of CPU ${cpu} has no current task`)
  }
  if (rootAddress(kernel) !== scheduler) return corrupted("the scheduler changed while it was read")
  return readTime(kernel).ticks < time.ticks ? corrupted("the kernel's time went back while it was read") : sampled
}

const rootAddress = ({ space, symbols }: GuestKernelService): bigint | undefined => {
  const at = symbols.address("scx_root") ?? symbols.address("scx_ops") // a name, before v6.16
  return at === undefined ? undefined : space.u64(at)
}

/**
 * The task of sched_ext that has been runnable for longest without running, wherever it waits: in a queue or with the BPF
 * scheduler; null where none waits. With a problem there may be one that has waited for longer.
 * @see `struct scx_rq.runnable_list`, v6.12 to v7.3
 *
 * @since 0.1.0
 * @category reading
 */
export const oldestRunnable = (
  { btf, perCpuOffsets, space, symbols }: GuestKernelService,
  reader: TaskReader,
  time: SchedTime & { readonly ticks: bigint }
): { readonly task: OldestTask | null; readonly problem: Reason | undefined } => {
  const queues = symbols.address("runqueues")
  const headAt = schedLayouts(btf).rq?.at("scx.runnable_list")
  const linkAt = reader.at("scx.runnable_node")
  if (queues === undefined || headAt === undefined || linkAt === undefined || time.hz === null) {
    return { task: null, problem: absent("how long tasks have been runnable: this kernel does not tell") }
  }
  let oldest: OldestTask | null = null
  let incomplete: Reason | undefined
  for (const [cpu, offset] of perCpuOffsets.entries()) {
    if (offset === undefined) continue
    const { nodes, problem } = listNodes(space, BigInt.asUintN(64, queues + offset + BigInt(headAt)))
    if (problem !== undefined) incomplete = within(`the runnable tasks of CPU ${cpu}`, problem)
    for (const node of nodes) {
      const task = reader.runnable(node - BigInt(linkAt))
      if ("kind" in task) incomplete = within(`a runnable task of CPU ${cpu}`, task)
      const millis = "kind" in task ? undefined : waitingMillis(time, task)
      if ("kind" in task || millis === undefined || millis <= (oldest?.millis ?? -1)) continue
      oldest = { pid: task.pid, comm: task.comm, millis, cpu }
    }
  }
  return { task: oldest, problem: incomplete }
}
