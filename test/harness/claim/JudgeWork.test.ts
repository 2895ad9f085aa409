import { assert, describe, it } from "@effect/vitest"
import { judgeWork } from "../../../src/harness/claim/JudgeWork.ts"
import type { RunRecord } from "../../../src/harness/claim/RunRecord.ts"
import type { Step } from "../../../src/harness/scenario/Scenario.ts"
import { group, made, phase } from "../madeRun.ts"

const judged = (run: Partial<RunRecord>): ReadonlyArray<string> =>
  judgeWork({ ...made, ...run }).map(({ kind, label, observed, outcome }) =>
    `${outcome} ${kind}: ${label}${observed === null ? "" : `: ${observed}`}`
  )

const withSteps = (x: NonNullable<Step["do"]>, y: NonNullable<Step["do"]>): RunRecord["scenario"] => ({
  ...made.scenario,
  steps: [{ name: "x", do: x, hold: "1 second" }, { name: "y", do: y, hold: "1 second" }]
})

/** Two spinners, each on the CPU of its own that `cpus` says, or both on one. */
const spinning = (cpus: string, complete = true, to = 1e9): Partial<RunRecord> => {
  const spinner = { ...group(9, 1e9, 1e6), cpus }
  const worker = spinner.workers[0]
  const groups = { a: { ...spinner, workers: [worker, { ...worker, worker: 1 }] } }
  return {
    scenario: { ...made.scenario, groups: { a: { workers: 2, work: { type: "spin" } } } },
    phases: [{ name: "x", from: 0, to, complete, groups }]
  }
}

describe("the work of a run", () => {
  it("is good where each worker made progress in each phase", () => {
    assert.deepStrictEqual(judged({}), [
      "pass progress: every worker progressed",
      "pass progress: no worker stood still"
    ])
  })

  it("is bad where one did not end a unit, unless it was frozen or stopped in that phase", () => {
    const phases = [phase("x", group(1, 1, 1), group(1, 1, 1)), phase("y", group(1, 1, 1), group(0, 0, 1))]
    const said = "fail progress: every worker progressed: no unit of worker 0 of b in y"
    assert.strictEqual(judged({ phases })[0], said)
    for (const op of ["freeze", "stop"] as const) {
      const resting = withSteps([], [{ op, group: "b" }])
      assert.strictEqual(judged({ phases, scenario: resting })[0], "pass progress: every worker progressed")
      const other = withSteps([], [{ op, group: "a" }])
      assert.strictEqual(judged({ phases, scenario: other })[0], said)
    }
    const thawed = withSteps([{ op: "freeze", group: "b" }], [{ op: "thaw", group: "b" }])
    assert.strictEqual(judged({ phases, scenario: thawed })[0], said)
  })

  it("cannot be judged where no worker was measured", () => {
    assert.strictEqual(
      judged({ phases: [] })[0],
      "inconclusive progress: every worker progressed: no worker was measured"
    )
  })

  it("is bad where a worker stood still for longer than a second and half of the phase", () => {
    const scenario: RunRecord["scenario"] = {
      ...made.scenario,
      groups: { a: { work: { type: "spin" } }, b: { work: { type: "timer", interval: "2 seconds" } } }
    }
    const stood = (a: number, b: number) =>
      judged({ scenario, phases: [phase("x", group(1, 1, a), group(1, 1, b))] })[1]
    assert.strictEqual(stood(1e9, 1e9), "pass progress: no worker stood still")
    assert.strictEqual(stood(1.001e9, 1e9), "fail progress: no worker stood still: worker 0 of a in x, for 1.001 s")
    // a timer sleeps two seconds of its own
    assert.strictEqual(stood(1e9, 3e9), "pass progress: no worker stood still")
    assert.strictEqual(stood(1e9, 3.1e9), "fail progress: no worker stood still: worker 0 of b in x, for 3.100 s")
  })

  it("may be late in a group that the scenario puts behind others, from that step on", () => {
    const phases = [phase("x", group(1, 1, 1), group(1, 1, 1)), phase("y", group(1, 1, 9e9), group(1, 1, 1))]
    const groups: RunRecord["scenario"]["groups"] = { a: { work: { type: "spin" } }, b: { work: { type: "spin" } } }
    const said = (...ops: NonNullable<Step["do"]>) => judged({ phases, scenario: { ...withSteps([], ops), groups } })[1]
    const stood = "fail progress: no worker stood still: worker 0 of a in y, for 9.000 s"
    assert.strictEqual(said(), stood)
    assert.strictEqual(said({ op: "setWeight", group: "b", weight: 1 }), stood)
    for (
      const op of [
        { op: "setWeight", group: "a", weight: 1 },
        { op: "setQuota", group: "a", time: "1 millis" },
        { op: "setPolicy", group: "a", policy: "idle" }
      ] as const
    ) {
      assert.strictEqual(said(op), "pass progress: no worker stood still")
    }
    // it moves into a frozen group
    assert.strictEqual(
      said({ op: "freeze", group: "b" }, { op: "move", group: "a", to: "b" }),
      "pass progress: no worker stood still"
    )
  })

  it("has gaps that mean nothing in an emulated guest, and beside real-time workers", () => {
    const phases = [phase("x", group(1, 1, 9e9), group(1, 1, 1))]
    const scenario: RunRecord["scenario"] = {
      ...made.scenario,
      groups: { a: { work: { type: "spin" } }, b: { work: { type: "spin" }, policy: { fifo: 1 } } }
    }
    for (const run of [{ mode: { ...made.mode, mode: "emulated" as const } }, { scenario }]) {
      assert.deepStrictEqual(judged({ phases, ...run }), ["pass progress: every worker progressed"])
    }
  })

  it("reaches every CPU where there is a runnable worker for each", () => {
    assert.strictEqual(judged(spinning("0-1"))[2], "pass idle CPU: every CPU ran a worker")
    assert.strictEqual(
      judged(spinning("0"))[2],
      "fail idle CPU: every CPU ran a worker: not CPU 1 until the end of x, with a runnable worker for each"
    )
    assert.strictEqual(judged(spinning("0", false))[2], undefined)
    // too short for a scheduler that balances now and then
    assert.strictEqual(judged(spinning("0", true, 0.2e9))[2], undefined)
    const narrowed = spinning("0")
    const scenario = {
      ...narrowed.scenario!,
      groups: { a: { ...narrowed.scenario!.groups["a"], affinity: { list: "0" } } }
    }
    assert.strictEqual(judged({ ...narrowed, scenario: scenario as RunRecord["scenario"] })[2], undefined)
  })
})
