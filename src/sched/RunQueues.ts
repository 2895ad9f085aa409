import { hex, kvaOffset, kvaPage } from "../core/Address.ts"
import { absent, type Reason, unreadable } from "../core/Reason.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { type CpuTimes, readCpuTimes } from "./CpuTimes.ts"
import { enumValues, flagNames } from "./EnumValues.ts"
import {
  type CFS_RQ,
  type DL_RQ,
  type RQ,
  type RQ_STATS,
  type RT_RQ,
  schedLayouts,
  type SCX_RQ
} from "./SchedLayouts.ts"
import { readTimerLateness } from "./SchedTime.ts"
import { type Int, intOf, type Values } from "./StructFields.ts"
import type { TaskReader, TaskRef } from "./tasks/Tasks.ts"

/** `_Q_LOCKED_MASK`, include/asm-generic/qspinlock_types.h, v6.12. */
const LOCKED = 0xff

/**
 * A CPU's run queue: numbers by the names of `struct rq` and of its parts. Times are nanoseconds of the scheduler's clock,
 * `next_balance` is jiffies.
 *
 * @since 0.1.0
 * @category models
 */
export interface RunQueue extends Omit<Values<typeof RQ>, "online" | "cpu"> {
  readonly cpu: number
  readonly address: string
  readonly online: boolean
  /** Whether the queue's lock was held at the instant: then its counts and lists may differ by one. */
  readonly locked?: boolean
  readonly curr?: TaskRef
  readonly idle?: TaskRef
  readonly stop?: TaskRef
  /** With CONFIG_SCHED_PROXY_EXEC the task whose scheduling context is used; else `curr`. */
  readonly donor?: TaskRef
  /** How long `curr` has had the CPU, by `clock`, which does not advance on an idle CPU. */
  readonly currNanos?: Int
  /** For how long its next timer has been due, negative of one to come; that of a CPU with interrupts off stays due. */
  readonly timerLateNanos?: Int
  readonly cfs?: Values<typeof CFS_RQ>
  readonly rt?: Values<typeof RT_RQ>
  readonly dl?: Values<typeof DL_RQ>
  readonly scx?: Omit<Values<typeof SCX_RQ>, "flags"> & { readonly flags?: ReadonlyArray<string> }
  readonly stats?: Values<typeof RQ_STATS>
  readonly times?: CpuTimes
  readonly problem?: Reason
}

/**
 * A CPU's run queue in readings that come again and again: what it runs, and its counters.
 *
 * @since 0.1.0
 * @category models
 */
export interface RunQueueBase
  extends Pick<RunQueue, "cpu" | "address" | "online" | "nr_running" | "nr_switches" | "clock" | "curr" | "problem">
{}

type ReadRunQueue<A> = (kernel: GuestKernelService, reader: TaskReader, address: bigint, cpu: number) => A

const ofEachCpu = <A>(
  kernel: GuestKernelService,
  reader: TaskReader,
  read: ReadRunQueue<A>
): ReadonlyArray<A> | Reason => {
  const { perCpuOffsets, symbols } = kernel
  const queues = symbols.address("runqueues")
  if (queues === undefined) return absent("run queues: the kernel's symbols lack runqueues (CONFIG_KALLSYMS_ALL)")
  if (schedLayouts(kernel.btf).rq === undefined) return absent("run queues: the kernel's BTF has no struct rq")
  return perCpuOffsets.flatMap((offset, cpu) =>
    offset === undefined ? [] : [read(kernel, reader, BigInt.asUintN(64, queues + offset), cpu)]
  )
}

const readBase: ReadRunQueue<RunQueueBase> = ({ btf, space }, reader, address, cpu) => {
  const { rq, rqBase } = schedLayouts(btf)
  const where = { cpu, address: hex(address) }
  const currAt = rq?.at("curr")
  if (rq === undefined || rqBase === undefined || !space.window(kvaPage(address), kvaOffset(address), rq.size)) {
    return { ...where, online: false, problem: unreadable(`the run queue of CPU ${cpu}: ${space.faultText}`) }
  }
  const { cpu: ownCpu, online, ...fields } = rqBase.read(space.view, space.at)
  const curr = currAt === undefined ? undefined : reader.ref(space.view.getBigUint64(space.at + currAt, true))
  return {
    ...where,
    online: online === undefined ? true : online !== 0,
    ...fields,
    ...(curr === undefined ? {} : { curr }),
    ...(ownCpu === undefined || ownCpu === cpu
      ? {}
      : { problem: unreadable(`the run queue of CPU ${cpu} at ${hex(address)} calls itself CPU ${ownCpu}`) })
  }
}

/**
 * Every possible CPU's run queue.
 *
 * @since 0.1.0
 * @category reading
 */
export const readRunQueues = (kernel: GuestKernelService, reader: TaskReader): ReadonlyArray<RunQueue> | Reason =>
  ofEachCpu(kernel, reader, readWhole)

/**
 * The same without what takes most of the time, for readings that come again and again.
 *
 * @since 0.1.0
 * @category reading
 */
export const readRunQueuesBase = (
  kernel: GuestKernelService,
  reader: TaskReader
): ReadonlyArray<RunQueueBase> | Reason => ofEachCpu(kernel, reader, readBase)

const readWhole: ReadRunQueue<RunQueue> = (kernel, reader, address, cpu) => {
  const { btf, space } = kernel
  const { cfs, dl, rq, rqStats, rt, scxRq } = schedLayouts(btf)
  const base = readBase(kernel, reader, address, cpu)
  if (rq === undefined || !space.window(kvaPage(address), kvaOffset(address), rq.size)) return base
  const { at, view } = space // until the next look at anything else
  const { cpu: _, online: _online, ...fields } = rq.read(view, at)
  const pointerOf = (path: string): bigint | undefined => {
    const offset = rq.at(path)
    return offset === undefined ? undefined : view.getBigUint64(at + offset, true)
  }
  const [curr, idle, stop, donor] = [pointerOf("curr"), pointerOf("idle"), pointerOf("stop"), pointerOf("donor")]
  const lockAt = rq.at("__lock")
  const locked = lockAt === undefined ? {} : { locked: (view.getUint32(at + lockAt, true) & LOCKED) !== 0 }
  const parts = {
    ...(cfs === undefined ? {} : { cfs: cfs.read(view, at) }),
    ...(rt === undefined ? {} : { rt: rt.read(view, at) }),
    ...(dl === undefined ? {} : { dl: dl.read(view, at) }),
    ...(scxRq === undefined ? {} : { scx: scxPart(kernel, scxRq.read(view, at)) }),
    ...(rqStats === undefined ? {} : { stats: rqStats.read(view, at) })
  }
  // from here on other memory is looked at
  const ref = (name: string, pointer: bigint | undefined) => {
    const task = pointer === undefined ? undefined : reader.ref(pointer)
    return task === undefined ? {} : { [name]: task }
  }
  const since = curr === undefined ? undefined : lastArrival(kernel, curr)
  const ran = since === undefined || since === 0n || fields.clock === undefined
    ? undefined
    : intOf(BigInt(fields.clock) - since)
  const late = readTimerLateness(kernel, cpu)
  return {
    ...base,
    ...fields,
    ...locked,
    ...ref("idle", idle),
    ...ref("stop", stop),
    ...(donor === curr ? {} : ref("donor", donor)),
    ...(ran === undefined ? {} : { currNanos: ran }),
    ...(late === undefined ? {} : { timerLateNanos: late }),
    ...parts,
    ...readCpuTimes(kernel, cpu)
  }
}

const scxPart = ({ btf }: GuestKernelService, { flags, ...rest }: Values<typeof SCX_RQ>) => ({
  ...rest,
  ...(flags === undefined ? {} : { flags: flagNames(enumValues(btf, "scx_rq_flags"), "SCX_RQ_", BigInt(flags)) })
})

const lastArrival = ({ btf, space }: GuestKernelService, task: bigint): bigint | undefined => {
  const at = schedLayouts(btf).task?.at("sched_info.last_arrival")
  return at === undefined ? undefined : space.u64(task + BigInt(at))
}
