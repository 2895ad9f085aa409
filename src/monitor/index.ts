/** A guest that is watched while it runs: what failed, and all that was read of it then. */
export { type LogLine } from "../host/KernelLog.ts"
export { type StuckTask, stuckTask, waitingLongest } from "./Explain.ts"
export { FailedCpu, Failure, FailureDocument, FailureLog } from "./Failure.ts"
export {
  type CapturedFailure,
  captureFailure,
  degradedFailure,
  readFailureLog,
  sealFailure,
  type StoppedGuest
} from "./FailureDump.ts"
export { failurePage } from "./FailurePage.ts"
export { awaitFailure } from "./FailureWatch.ts"
export { type LogPart, readKernelRing } from "./KernelRing.ts"
export * as Monitor from "./Monitor.ts"
export type { MonitorError, MonitorOptions, NotSampled, RuleBroken } from "./Monitor.ts"
export { oldestRunnable, readFrozen, readRunning } from "./ReadSampled.ts"
export { defaultRules, type Rule, RuleJudge, type RuleVerdict } from "./Rules.ts"
export { type OldestTask, type Sample, type Sampled, sampleOf, type SamplePart, type SampleProblem } from "./Sample.ts"
