import { errnoName } from "../../core/Errors.ts"
import type { PlanOp } from "../agent/Plan.ts"
import type { OpCode } from "../agent/Protocol.ts"
import type { AgentRecord } from "../agent/Records.ts"
import type { RunRecord } from "../claim/RunRecord.ts"
import type { PlannedScenario } from "../scenario/PlanScenario.ts"

type OpRecord = Extract<AgentRecord, { readonly kind: "op" }>

/** Operations whose subject is a worker, or a payload. */
const ON_WORKERS: ReadonlyArray<OpCode> = ["spawn", "stop", "move", "affinity", "nice", "policy"]
const ON_PAYLOADS: ReadonlyArray<OpCode> = ["run", "wait", "kill"]
/** include/uapi/asm-generic/errno.h, v6.12 */
const ETIMEDOUT = 110

/** The subject of an operation, by the scenario's names. */
const subjectOf = ({ others, subject }: OpRecord, { a, code }: PlanOp, planned: PlannedScenario): string => {
  if (ON_WORKERS.includes(code)) {
    const group = planned.groups.find(({ count, first }) => subject >= first && subject < first + count)?.name
    return group === undefined
      ? ""
      : ` of worker ${subject} of ${group}${others === 0 ? "" : ` and ${others} other${others === 1 ? "" : "s"}`}`
  }
  const name = ON_PAYLOADS.includes(code)
    ? planned.payloads.find(({ command }) => command === a)?.name
    : code.startsWith("cgroup")
    ? planned.groups.at(a ?? 0)?.name
    : undefined
  return name === undefined ? "" : ` of ${name}`
}

/** The wait of each operation that has one. */
const AWAITED: Partial<Record<OpCode, string>> = {
  spawn: "it did not begin to work",
  stop: "it was killed and did not end",
  wait: "it did not end",
  kill: "it did not end when it was asked to, and was killed",
  detach: "it did not end when it was asked to, and was killed"
}

/** A task's state, and what to make of it: fs/proc/array.c `task_state_array`, v6.12. */
const stateOf = (state: string | undefined): string => {
  switch (state) {
    case undefined:
      return ""
    case "R":
      return "; it is runnable (R), so the scheduler gives it no CPU"
    case "D":
      return "; it waits in the kernel (D) for what may need another task to run"
    case "T":
    case "t":
      return `; it is stopped (${state})`
    case "Z":
      return "; it has ended (Z), and the agent did not get to see it"
    default:
      return `; it sleeps (${state})`
  }
}

/** Why an operation waited in vain: for what, how long, and how the one that it waited for stands. */
const whyOf = ({ atNs, error, state }: OpRecord, { code }: PlanOp, before: number): string | null => {
  const awaited = error === ETIMEDOUT ? AWAITED[code] : undefined
  return awaited === undefined ? null : `${awaited} within ${((atNs - before) / 1e9).toFixed(1)} s${stateOf(state)}`
}

/** The operations that failed, in words. */
export const failedOperations = (
  records: ReadonlyArray<AgentRecord>,
  planned: PlannedScenario
): RunRecord["operations"] => {
  const all = records.filter((record): record is OpRecord => record.kind === "op")
  return all.flatMap((record, index) => {
    if (record.error === 0) return []
    const op: PlanOp = planned.plan.ops[record.op] ?? { code: "hold", step: 0 }
    const texts = [op.b, op.c].filter((word) => typeof word === "string" && word.trim() !== "")
    const where = op.step === 0 ? "" : ` in ${planned.steps[op.step - 1]}`
    return [{
      op: record.op,
      what: `${[op.code, ...texts].join(" ")}${subjectOf(record, op, planned)}${where}`,
      error: errnoName(record.error),
      why: whyOf(record, op, index === 0 ? 0 : all[index - 1].atNs)
    }]
  })
}
