/** A frozen kernel's scheduler: run queues, dispatch queues, tasks, domains and sched_ext, from its memory alone. */
export type { CpuTimes } from "./CpuTimes.ts"
export { type CpuDomains, readDomains, type SchedDomain } from "./Domains.ts"
export { defaultThresholds, type Finding, findings, type Seen, type Thresholds } from "./Findings.ts"
export { type NumaCounters, readNumaCounters } from "./NumaCounters.ts"
export { type Pressure, readPressure, type Stall } from "./Pressure.ts"
export { readRunQueues, readRunQueuesBase, type RunQueue, type RunQueueBase } from "./RunQueues.ts"
export { SchedChange, SchedFieldChange } from "./SchedChange.ts"
export { diffSched, guestSeconds } from "./SchedDiff.ts"
export { decodeSched, SchedDocument } from "./SchedDocument.ts"
export { readSched, type SchedSnapshot, SchedState, type SchedStateService } from "./SchedState.ts"
export { readTime, type SchedTime } from "./SchedTime.ts"
export {
  type DispatchQueue,
  type DispatchQueueBase,
  readDispatchQueues,
  readDispatchQueuesBase
} from "./scx/DispatchQueues.ts"
export type { QueueContents, QueuedTask } from "./scx/QueuedTasks.ts"
export { raiseWatchdogs, type ShortWatchdog, shortWatchdogs } from "./scx/RaiseWatchdogs.ts"
export type { ExitInfo } from "./scx/ScxExitInfo.ts"
export type { OpsProgram } from "./scx/ScxOps.ts"
export {
  type LastExit,
  readScx,
  readScxBase,
  type Scheduler,
  type SchedulerBase,
  type ScxBase,
  type ScxEvents,
  type ScxState
} from "./scx/ScxState.ts"
export type { FieldSpec, FieldSpecs, Int, Values } from "./StructFields.ts"
export { readTasks, type RunnableTask, type Task, type TaskEntity, TaskReader, type TaskRef } from "./tasks/Tasks.ts"
