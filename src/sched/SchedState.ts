import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { absent, type Reason } from "../core/Reason.ts"
import { GuestKernel, type GuestKernelService } from "../memory/GuestKernel.ts"
import { type CpuDomains, readDomains } from "./Domains.ts"
import { type Finding, findings, type Thresholds } from "./Findings.ts"
import { type NumaCounters, readNumaCounters } from "./NumaCounters.ts"
import { type Pressure, readPressure } from "./Pressure.ts"
import { readRunQueues, type RunQueue } from "./RunQueues.ts"
import { schedLayouts } from "./SchedLayouts.ts"
import { readKtime, readTime, type SchedTime } from "./SchedTime.ts"
import { type DispatchQueue, readDispatchQueues } from "./scx/DispatchQueues.ts"
import { readScx, type ScxState } from "./scx/ScxState.ts"
import type { FieldSpecs, StructFields } from "./StructFields.ts"
import { readTasks, type Task, TaskReader } from "./tasks/Tasks.ts"

/**
 * A kernel's scheduler at an instant. A part that cannot be had is its `Reason`; a field that this kernel's structs do not
 * have is left out, and named in `absent`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SchedSnapshot {
  readonly time: SchedTime
  readonly runQueues: ReadonlyArray<RunQueue> | Reason
  readonly scx: ScxState | Reason
  readonly dispatchQueues: ReadonlyArray<DispatchQueue> | Reason
  readonly tasks: ReadonlyArray<Task> | Reason
  readonly domains: ReadonlyArray<CpuDomains>
  readonly numa: ReadonlyArray<NumaCounters> | Reason
  readonly pressure: Pressure | Reason
  readonly findings: ReadonlyArray<Finding>
  /** By struct the members that this kernel's does not have. */
  readonly absent: { readonly [struct: string]: ReadonlyArray<string> }
  /** Parts that could not be read, beyond the reasons in the parts themselves. */
  readonly problems: ReadonlyArray<Reason>
}

/**
 * Read all of a kernel's scheduler state.
 *
 * @since 0.1.0
 * @category reading
 */
export const readSched = (kernel: GuestKernelService, thresholds?: Thresholds): SchedSnapshot => {
  const time = readTime(kernel)
  const reader = TaskReader.of(kernel)
  if (reader === undefined) {
    const none = absent("the kernel's BTF has no struct task_struct with a pid and a name")
    return {
      time: { jiffies: time.jiffies, hz: time.hz },
      runQueues: none,
      scx: none,
      dispatchQueues: none,
      tasks: none,
      domains: [],
      numa: readNumaCounters(kernel),
      pressure: readPressure(kernel),
      findings: [],
      absent: {},
      problems: []
    }
  }
  const runQueues = readRunQueues(kernel, reader)
  const scx = readScx(kernel, time)
  const { problems, tasks } = readTasks(kernel, reader)
  const walk = "kind" in scx ? undefined : readDispatchQueues(kernel, reader, time)
  return {
    time: { jiffies: time.jiffies, hz: time.hz },
    runQueues,
    scx,
    dispatchQueues: walk?.queues ?? absent("this kernel has no sched_ext, which alone has dispatch queues"),
    tasks,
    domains: readDomains(kernel),
    numa: readNumaCounters(kernel),
    pressure: readPressure(kernel),
    findings: findings({
      time,
      ktime: readKtime(kernel, time),
      runQueues: "kind" in runQueues ? [] : runQueues,
      scx: "kind" in scx ? undefined : scx,
      dispatchQueues: walk?.queues ?? [],
      tasks
    }, thresholds),
    absent: lackingMembers(kernel),
    problems: [...problems, ...(walk?.problems ?? [])]
  }
}

const lackingMembers = ({ btf }: GuestKernelService): SchedSnapshot["absent"] => {
  const lacking = new Map<string, Set<string>>()
  const parts: ReadonlyArray<StructFields<FieldSpecs> | undefined> = Object.values({ ...schedLayouts(btf) })
  for (const part of parts) {
    if (part === undefined || part.lacking.length === 0) continue
    const members = lacking.get(part.struct) ?? new Set()
    for (const member of part.lacking) members.add(member)
    lacking.set(part.struct, members)
  }
  return Object.fromEntries([...lacking].map(([struct, members]) => [struct, [...members]]))
}

/**
 * The service behind the tag `SchedState`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SchedStateService {
  readonly read: Effect.Effect<SchedSnapshot>
}

/**
 * Reads the scheduler's state of the kernel it was made for, as often as asked.
 *
 * @since 0.1.0
 * @category services
 */
export class SchedState extends Context.Tag("ktstr/sched/SchedState")<SchedState, SchedStateService>() {
  static readonly layer: Layer.Layer<SchedState, never, GuestKernel> = Layer.effect(
    SchedState,
    Effect.map(GuestKernel, (kernel) => ({
      read: Effect.withSpan(Effect.sync(() => readSched(kernel)), "SchedState.read")
    }))
  )
}
