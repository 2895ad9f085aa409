import { afterAll, assert, beforeAll, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { claim, ratio, recordClaims } from "../../../src/harness/claim/Claim.ts"
import { executeRun } from "../../../src/harness/run/ExecuteRun.ts"
import { prepareRun, type RunRequest } from "../../../src/harness/run/PrepareRun.ts"
import { cgroup, op, type Scenario, scenario, step, work } from "../../../src/harness/scenario/Scenario.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { HostLive } from "../../support/guest.ts"
import { needsScx, scx } from "../../support/scx.ts"
import { compileScheduler } from "../wrongSchedulers.ts"

/** Sleepers before spinners: while one is waited for that never starts, the guest idles, which costs the host nothing. */
const short = scenario("short", {
  groups: {
    timer: cgroup({ workers: 8, work: work.timer({ interval: "10 millis" }) }),
    spin: cgroup({ workers: { perCpu: 1 }, work: work.spin() })
  },
  steps: ({ spin, timer }) => [
    step("run", { hold: "1500 millis" }),
    step("rest", { do: [op.stop(spin), op.stop(timer)], hold: "1 second" })
  ]
})

const record = (binary: string, args: ReadonlyArray<string>, request: Partial<RunRequest> = {}) =>
  Effect.gen(function*() {
    const { key } = yield* scx
    const scheduler = { name: "wrong", binary, args }
    const run = yield* prepareRun({ test: "wrong", kernel: key, scheduler, scenario: short, mode: "exact", ...request })
    return yield* executeRun(run)
  })

/** The outcome, and what failed or could not be said, in words. */
const reported = (binary: string, args: ReadonlyArray<string>, request?: Partial<RunRequest>) =>
  Effect.map(record(binary, args, request), ({ verdict: { details, outcome } }) => [
    outcome,
    ...details.filter((one) => one.outcome !== "pass").map(({ kind, label, observed }) =>
      `${kind}: ${label}${observed === null ? "" : `: ${observed}`}`
    )
  ])

const TIMEOUT = 400_000

/** A scheduler of test/harness/schedulers, its arguments, and what is said of it. */
const WRONG: ReadonlyArray<readonly [string, string, ReadonlyArray<string>, RegExp]> = [
  [
    "never dispatches",
    "never",
    [],
    /^scheduler stalled: wrong (did not run .* for|was thrown out: runnable task stall)/
  ],
  ["runs everything on CPU 0", "cpu0", [], /^idle CPU: every CPU ran a worker: not CPU 1 until the end of run/],
  ["starves every seventh process", "seventh", [], /^progress: every worker progressed: no unit of worker \d of timer/],
  ["never takes a CPU away", "forever", [], /^progress: no worker stood still: worker \d of timer in run, for /],
  ["the verifier refuses", "refused", [], /^scheduler refused: .*: the verifier says: R4 invalid mem access 'scalar'$/],
  ["leaves the workers to the kernel", "partial", [], /^scheduler partial: wrong has none of the workers/],
  ["attaches after 20 s", "good", ["-w", "20"], /^scheduler late: wrong did not attach in time/],
  ["detaches after 2 s", "good", ["-d", "2"], /^scheduler exited: wrong left by itself: 2\.\d s after it attached; /]
]

describe("a scheduler is reported as what it is that", () => {
  let directory: string
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "ktstr-wrong-"))
  })
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  const compiled = new Map<string, Promise<string>>()
  const compile = (name: string) =>
    Effect.promise(() => {
      const program = compiled.get(name) ?? compileScheduler(directory, name)
      compiled.set(name, program)
      return program
    })
  beforeEach(needsScx)
  beforeEach(needsExactQemu)

  for (const [what, name, args, expected] of WRONG) {
    it.live(what, () =>
      Effect.gen(function*() {
        const [outcome, ...said] = yield* reported(yield* compile(name), args)
        assert.strictEqual(outcome, "fail", said.join("\n"))
        assert.isTrue(said.some((line) => expected.test(line)), said.join("\n"))
      }).pipe(Effect.provide(HostLive)), TIMEOUT)
  }

  it.live("dies before it attaches", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* reported("/usr/bin/false", []), [
        "fail",
        "scheduler died: wrong died before it attached: ended with status 1, and last said: nothing"
      ])
    }).pipe(Effect.provide(HostLive)), TIMEOUT)

  it.live("the kernel throws out for an error of its own", () =>
    Effect.gen(function*() {
      const { scheduler } = yield* scx
      const [, said] = yield* reported(scheduler("scx_qmap"), ["-e", "200"])
      assert.match(said, /^scheduler error: wrong was thrown out: scx_bpf_error: /)
    }).pipe(Effect.provide(HostLive)), TIMEOUT)

  it.live(
    "ignores weights, by a claim that one passes which does not, whatever it prints",
    () =>
      Effect.gen(function*() {
        const { scheduler } = yield* scx
        const weights = scenario("weights", {
          groups: {
            heavy: cgroup({ workers: 2, work: work.spin(), nice: -5 }),
            light: cgroup({ workers: 2, work: work.spin(), nice: 5 })
          },
          steps: () => [step("run", { hold: "1 second" })]
        })
        const request: Partial<RunRequest> = {
          scenario: weights as Scenario,
          claims: recordClaims<"heavy" | "light", "run">((r) => [
            claim(ratio(r.groups.heavy.cpu, r.groups.light.cpu)).atLeast(1.5)
          ])
        }
        const ignoring = yield* record(yield* compile("good"), ["-g"], request)
        assert.strictEqual(ignoring.end.how, "done", JSON.stringify([ignoring.end, ignoring.damage]))
        assert.deepStrictEqual(
          ignoring.verdict.details.filter(({ outcome }) => outcome !== "pass").map(({ kind, label }) => [kind, label]),
          [["claim", "groups.heavy.cpu / groups.light.cpu"]]
        )
        assert.isTrue(ignoring.scheduler!.log.some((line) => line.includes("title")))
        const minding = yield* reported(scheduler("scx_simple"), [], request)
        assert.deepStrictEqual(minding, ["pass"], minding.join("\n"))
      }).pipe(Effect.provide(HostLive)),
    TIMEOUT
  )
})
