import { assert, describe, it } from "@effect/vitest"
import { judgeRun } from "../../../src/harness/claim/JudgeRun.ts"
import type { RunRecord, SchedulerRun } from "../../../src/harness/claim/RunRecord.ts"
import type { Step } from "../../../src/harness/scenario/Scenario.ts"
import { made } from "../madeRun.ts"

/** The outcome and what did not pass, of a run whose scheduler did that. */
const judged = (did: Partial<SchedulerRun>, run: Partial<RunRecord> = {}): ReadonlyArray<string> => {
  const { details, outcome } = judgeRun({ ...made, ...run, scheduler: { ...made.scheduler!, ...did } })
  return [
    outcome,
    ...details.filter((one) => one.outcome !== "pass").map(({ kind, label, observed }) =>
      observed === null ? `${kind}: ${label}` : `${kind}: ${label}: ${observed}`
    )
  ]
}

const DIED = { attached: "died", attach: null, switchAll: null, cpu: null, atEnd: false } as const
const WITH_STATUS_1 = 1 << 8
const BY_SIGNAL_6 = 6

const EXIT = { atMicros: 5e6, scheduler: "s", stack: [], stackIsWatchdogs: false }
const STALL = {
  ...EXIT,
  kind: "stall" as const,
  reason: "runnable task stall",
  message: "spin[77] failed to run for 3.1s",
  stalled: { comm: "spin", pid: 77, millis: 3100 }
}
const ERROR = { ...EXIT, kind: "error" as const, reason: "scx_bpf_error", message: "no such queue", stalled: null }
const HOTPLUG = {
  ...EXIT,
  kind: "normal" as const,
  reason: "unregistered from the main kernel",
  message: null,
  stalled: null
}

/** A scheduler's deeds, and all that is said of it. */
const TOLD: ReadonlyArray<readonly [string, Partial<SchedulerRun>, ReadonlyArray<string>]> = [
  ["stays", {}, ["pass"]],
  ["dies before it attaches", { ...DIED, status: WITH_STATUS_1, log: ["no memory", " "] }, [
    "fail",
    "scheduler died: s died before it attached: ended with status 1, and last said: no memory"
  ]],
  [
    "is refused by the verifier",
    {
      ...DIED,
      status: WITH_STATUS_1,
      log: [
        "prog 's_enqueue': failed to load: -13",
        "R4 invalid mem access 'scalar'",
        "processed 5 insns (limit 1000000)"
      ]
    },
    ["fail", "scheduler refused: the kernel refused s: the verifier says: R4 invalid mem access 'scalar'"]
  ],
  [
    "is refused by the verifier of v7.3, which explains",
    {
      ...DIED,
      status: WITH_STATUS_1,
      log: [
        "libbpf: prog 's_enqueue': BPF program load failed: Permission denied",
        "2: (79) r2 = *(u64 *)(r4 +0)",
        "R4 invalid mem access 'scalar'",
        "Verification failed: Register Type Safety: Invalid dereference",
        "Reason:",
        "  R4 is an integer scalar here, not a pointer to memory.",
        "Suggestion:",
        "  Preserve a pointer-valued register where needed.",
        "processed 3 insns (limit 1000000)"
      ]
    },
    ["fail", "scheduler refused: the kernel refused s: the verifier says: R4 invalid mem access 'scalar'"]
  ],
  ["attaches late", { ...DIED, attached: "late", log: ["waiting"] }, [
    "fail",
    "scheduler late: s did not attach in time: it last said: waiting"
  ]],
  ["stays after its process", { attached: "left", status: 0 }, [
    "fail",
    "scheduler exited: s left its scheduler behind: its process ended with status 0 while s is attached"
  ]],
  ["detaches", { gone: 3.1e9, atEnd: false, status: 0 }, [
    "fail",
    "scheduler exited: s left by itself: 3.1 s after it attached; its process ended with status 0"
  ]],
  ["is gone with a CPU", { gone: 5e8, atEnd: false, exits: [HOTPLUG] }, [
    "fail",
    "scheduler exited: s was taken away: unregistered from the main kernel: 0.5 s after it attached; its process runs"
  ]],
  ["breaks", { gone: 1e9, atEnd: false, status: BY_SIGNAL_6 }, [
    "fail",
    "scheduler exited: s left by itself: 1.0 s after it attached; its process ended with signal 6"
  ]],
  ["stalls a task", { atEnd: false, gone: 3e9, exits: [STALL] }, [
    "fail",
    "scheduler stalled: s did not run spin[77] for 3.1 s: spin[77] failed to run for 3.1s"
  ]],
  ["is thrown out", {
    atEnd: false,
    gone: 1e9,
    exits: [ERROR]
  }, ["fail", "scheduler error: s was thrown out: scx_bpf_error: no such queue"]],
  ["takes no task of the ordinary classes", { switchAll: false }, [
    "fail",
    "scheduler partial: s has none of the workers: it takes tasks of SCHED_EXT alone (SCX_OPS_SWITCH_PARTIAL)"
  ]],
  ["takes a CPU for its process", { cpu: 9e8 }, [
    "fail",
    "scheduler busy: s's own process leaves the CPUs to others: it used 90 % of a CPU"
  ]],
  ["is another one", { ...DIED, attached: "other" }, ["fail", "scheduler other: another scheduler than s is attached"]]
]

describe("a scheduler's conduct", () => {
  for (const [what, did, told] of TOLD) {
    it(`that ${what}`, () => assert.deepStrictEqual(judged(did), told))
  }

  it("is not judged on a kernel without sched_ext: the run is skipped", () => {
    assert.deepStrictEqual(judged({ ...DIED, attached: "noSchedExt" }), [
      "skip",
      "scheduler late: the kernel has no sched_ext"
    ])
  })

  it("at the end is detached where the scenario says so, and failed where it stays", () => {
    const [first] = made.scenario.steps
    const last: Step = { name: "y", hold: "1 second", do: [{ op: "detach" }] }
    const run: Partial<RunRecord> = { scenario: { ...made.scenario, steps: [first, last] } }
    assert.deepStrictEqual(judged({ atEnd: false, status: 0 }, run), ["pass"])
    assert.deepStrictEqual(judged({ atEnd: true }, run), ["fail", "scheduler exited: s was detached at the end"])
  })

  it("that must end so passes, with any other end and without one fails; the work is not judged", () => {
    const idle = { phases: [] }
    const stalled = { atEnd: false, gone: 3e9, exits: [STALL] }
    assert.deepStrictEqual(judged({ ...stalled, expected: "stalled" }, idle), ["pass"])
    assert.deepStrictEqual(judged({ ...stalled, expected: "error" }, idle), [
      "fail",
      "scheduler error: s ends as the test says: scheduler stalled: s did not run spin[77] for 3.1 s"
    ])
    assert.deepStrictEqual(judged({ expected: "stalled" }, idle), [
      "fail",
      "scheduler stalled: s ends as the test says: it stayed"
    ])
    assert.deepStrictEqual(judged({ ...DIED, status: WITH_STATUS_1, expected: "died" }, idle), ["pass"])
    assert.deepStrictEqual(judged({ gone: 1e9, atEnd: false, status: 0, expected: "exited" }, idle), ["pass"])
    const oops = { ...idle, kernelLog: ["BUG: unable to handle page fault"] }
    assert.strictEqual(judged({ ...stalled, expected: "stalled" }, oops)[0], "fail")
  })

  it("that took too long in an emulated guest is inconclusive", () => {
    const [outcome, ...told] = judged({ attach: 2e10 }, { mode: { ...made.mode, mode: "emulated" } })
    assert.strictEqual(outcome, "inconclusive")
    assert.deepStrictEqual(told, [
      "scheduler late: s did not attach in time: it took 20.0 s, which means nothing in mode emulated"
    ])
  })
})
