/** Tests of schedulers: scenarios and claims as data, runs in a VM, verdicts. The helper for vitest is `ktstr/vitest`. */
export type { Plan, PlanCommand, PlanOp, PlanWorker } from "./agent/Plan.ts"
export {
  type BoundOf,
  Claim,
  claim,
  ClaimMisuse,
  difference,
  type GroupSubjects,
  type MadeClaim,
  type Picked,
  ratio,
  recordClaims,
  type RunSubjects,
  Subject,
  type Unit
} from "./claim/Claim.ts"
export { ExpectedEnd } from "./claim/ExpectedEnd.ts"
export { RunRecord, SchedulerRun } from "./claim/RunRecord.ts"
export { Detail, Outcome, Verdict, verdictOf } from "./claim/Verdict.ts"
export { chooseMode, type ChosenMode, EngineMode, ExactClock, hostModes, type ModeOfHost } from "./engine/EngineMode.ts"
export { fetchQemu } from "./engine/FetchQemu.ts"
export { findExactQemu, findQemus, type QemuFound } from "./engine/FindQemu.ts"
export type { GivenScheduler } from "./run/AssembleRun.ts"
export { executeAndKeep, executeRun } from "./run/ExecuteRun.ts"
export { type PreparedRun, prepareRun, type PrepareRunError, type RunRequest } from "./run/PrepareRun.ts"
export { ProgramInvalid } from "./run/ProgramOfHost.ts"
export { keepRun, makeRunFolder, readRun, type RunFolder, RunFolderError } from "./run/RunFolder.ts"
export { runReport } from "./run/RunReport.ts"
export type { Scheduler } from "./run/SchedulerProgram.ts"
export type { GuestLimits } from "./scenario/GuestLimits.ts"
export { GuestTime } from "./scenario/GuestTime.ts"
export type { PlannedScenario } from "./scenario/PlanScenario.ts"
export {
  cgroup,
  CgroupDef,
  cpus,
  CpuSpec,
  Op,
  op,
  Payload,
  Scenario,
  scenario,
  smoke,
  Step,
  step,
  work,
  type WorkOf
} from "./scenario/Scenario.ts"
export { TOPOLOGY_PRESETS, topologyOf } from "./scenario/TopologyPresets.ts"
export { decodeScenario, Problem, ScenarioInvalid, validateScenario } from "./scenario/ValidateScenario.ts"
export { WorkType } from "./scenario/WorkTypes.ts"
