import { afterAll, assert, beforeAll, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { KernelResolver } from "../../../src/core/kernels/KernelResolver.ts"
import { claim, ratio, recordClaims } from "../../../src/harness/claim/Claim.ts"
import { executeAndKeep } from "../../../src/harness/run/ExecuteRun.ts"
import { prepareRun, type RunRequest } from "../../../src/harness/run/PrepareRun.ts"
import { cgroup, op, type Scenario, scenario, step, work } from "../../../src/harness/scenario/Scenario.ts"
import { FailureDocument } from "../../../src/monitor/Failure.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { HostLive } from "../../support/guest.ts"
import { matrix } from "../../support/kernels.ts"
import { needsStockScx, stockScx } from "../../support/scx.ts"
import { compileScheduler } from "../wrongSchedulers.ts"

/** Debian's stock kernel, or another one: KTSTR_WRONG_KERNEL=debian:6.18-cloud. */
const KERNEL = process.env["KTSTR_WRONG_KERNEL"] ?? "debian:7.3-cloud"

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
/** For a scheduler that minds no affinity: workers that may run on CPU 1 alone. */
const pinned = scenario("pinned", {
  groups: { timer: cgroup({ workers: 2, affinity: { list: "1" }, work: work.timer({ interval: "10 millis" }) }) },
  steps: () => [step("run", { hold: "500 millis" })]
})

const record = (directory: string, binary: string, args: ReadonlyArray<string>, request: Partial<RunRequest> = {}) =>
  Effect.gen(function*() {
    const scheduler = { name: "wrong", binary, args }
    const of = { test: "wrong", kernel: KERNEL, scheduler, scenario: short, mode: "exact", ...request } as const
    return yield* executeAndKeep(yield* prepareRun(of), directory)
  })

const decodeDump = Schema.decodeUnknown(Schema.parseJson(FailureDocument))

/** The outcome, and what failed or could not be said, in words; and what the dump of a failed run has as its failure. */
const reported = (...of: Parameters<typeof record>) =>
  Effect.gen(function*() {
    const { host, verdict: { details, outcome } } = yield* record(...of)
    assert.strictEqual(host.dump !== null, outcome === "fail")
    const dump = host.dump === null ? undefined : yield* decodeDump(readFileSync(host.dump, "utf8"))
    if (dump !== undefined) assert.strictEqual(dump.schema, "single", JSON.stringify(dump.degraded))
    const said = details.filter((one) => one.outcome !== "pass").map(({ kind, label, observed }) =>
      `${kind}: ${label}${observed === null ? "" : `: ${observed}`}`
    )
    return { outcome, said, dump }
  })

const TIMEOUT = 400_000

/** A real-time worker that does not let go of CPU 1, and others that were there before. */
const taken = scenario("taken", {
  groups: {
    timer: cgroup({ workers: 4, work: work.timer({ interval: "10 millis" }) }),
    first: cgroup({ workers: 1, affinity: { list: "1" }, policy: { fifo: 50 }, work: work.spin(), starts: "later" })
  },
  steps: ({ first }) => [
    step("before", { hold: "500 millis" }),
    step("taken", { do: [op.add(first)], hold: "4 seconds" })
  ]
})
/** A CPU that goes offline. */
const unplugged = scenario("unplugged", {
  groups: { timer: cgroup({ workers: 4, work: work.timer({ interval: "10 millis" }) }) },
  payloads: { unplug: { program: "/bin/sh", args: ["-c", "echo 0 >/sys/devices/system/cpu/cpu1/online"] } },
  steps: () => [
    step("before", { hold: "500 millis" }),
    step("after", { do: [{ op: "run", payload: "unplug" }], hold: "1 second" })
  ]
})

/** A scheduler of test/harness/schedulers, its arguments, and what is said of it. */
interface Wrong {
  readonly name: string
  readonly args?: ReadonlyArray<string>
  readonly scenario?: Scenario
  readonly said: ReadonlyArray<RegExp>
  /** The dump is of the moment when the kernel threw it out. */
  readonly thrownOut?: true
}

const WRONG: Readonly<Record<string, Wrong>> = {
  "never dispatches": {
    name: "never",
    said: [/^scheduler stalled: wrong (did not run .* for|was thrown out: runnable task stall)/],
    thrownOut: true
  },
  "runs everything on CPU 0": {
    name: "cpu0",
    said: [/^idle CPU: every CPU ran a worker: not CPU 1 until the end of run/]
  },
  "starves every seventh process": {
    name: "seventh",
    said: [
      /^progress: every worker progressed: no unit of worker \d of timer/,
      /^operation: spawn of worker \d of timer: ETIMEDOUT: it did not begin to work within 10\.0 s; it is runnable \(R\)/,
      /^operation: stop of worker \d of timer in rest: ETIMEDOUT: it was killed and did not end within 10\.0 s; it is runnable \(R\)/
    ]
  },
  "never takes a CPU away": {
    name: "forever",
    said: [/^progress: no worker stood still: worker \d of timer in run, for /]
  },
  "the verifier refuses": {
    name: "refused",
    said: [/^scheduler refused: .*: the verifier says: R4 invalid mem access 'scalar'$/]
  },
  "leaves the workers to the kernel": { name: "partial", said: [/^scheduler partial: wrong has none of the workers/] },
  "attaches after 20 s": {
    name: "good",
    args: ["-w", "20"],
    said: [/^scheduler late: wrong did not attach in time/]
  },
  "detaches after 3 s": {
    name: "good",
    args: ["-d", "3"],
    scenario: { ...short, steps: [{ name: "run", hold: "4 seconds" }] },
    said: [/^scheduler exited: wrong left by itself: 3\.\d s after it attached; its process ended with status 0$/]
  },
  "uses a queue that it never made": {
    name: "nowhere",
    said: [/^scheduler error: wrong was thrown out: runtime error: .*DSQ/],
    thrownOut: true
  },
  "minds no affinity": {
    name: "astray",
    scenario: pinned as Scenario,
    said: [/^scheduler error: wrong was thrown out: runtime error: .*not allowed/],
    thrownOut: true
  },
  "ends itself with a code of its own": {
    name: "quits",
    said: [/^scheduler exited: wrong left by itself: /]
  },
  "crashes after 2 s": {
    name: "good",
    args: ["-k", "2"],
    scenario: { ...short, steps: [{ name: "run", hold: "4 seconds" }] },
    said: [/^scheduler exited: wrong left by itself: [23]\.\d s after it attached; its process ended with signal 6$/]
  },
  "its own init refuses": {
    name: "unready",
    said: [/^scheduler error: wrong was thrown out: runtime error: ops\.init\(\) failed \(-12\)$/],
    thrownOut: true
  }
}

/** The same of others, tried by `npm run matrix`. */
const MORE: typeof WRONG = {
  "runs the newest task alone": {
    name: "newest",
    said: [/^progress: every worker progressed: no unit of worker \d+ of (timer|spin)/]
  },
  "chooses a CPU that there is not": {
    name: "elsewhere",
    said: [/^scheduler error: wrong was thrown out: runtime error: invalid CPU 4095/],
    thrownOut: true
  },
  "dispatches a task twice": {
    name: "twice",
    said: [/^scheduler error: wrong was thrown out: runtime error: .*already direct-dispatched/],
    thrownOut: true
  },
  "has tasks enqueued again for ever": {
    name: "again",
    said: [/^scheduler (error|stalled): wrong (was thrown out: (reenqueue limit|runnable task stall)|did not run )/],
    thrownOut: true
  },
  "lets CPU 1 take nothing": {
    name: "shut",
    said: [/^idle CPU: every CPU ran a worker: not CPU 1 until the end of run/]
  },
  "leaves tasks on a CPU that is taken": {
    name: "keeps",
    scenario: taken as Scenario,
    thrownOut: true,
    said: [/^scheduler stalled: wrong (did not run .* for|was thrown out: runnable task stall)/]
  },
  "does not know that CPUs come and go": {
    name: "good",
    scenario: unplugged as Scenario,
    said: [
      /^scheduler exited: wrong was taken away: unregistered from the main kernel: 0\.\d s after it attached; its process runs$/
    ]
  },
  "keeps a CPU busy by its own process": {
    name: "good",
    args: ["-b"],
    said: [/^scheduler busy: wrong's own process leaves the CPUs to others: it used \d+ % of a CPU$/]
  }
}

const tried = matrix.length === 0 ? WRONG : { ...WRONG, ...MORE }

describe("a scheduler is reported as what it is that", () => {
  let directory: string
  let release: string
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "ktstr-wrong-"))
    const kernel = Effect.flatMap(KernelResolver, (resolver) => resolver.resolve(KERNEL))
    release = (await Effect.runPromise(Effect.provide(kernel, HostLive))).release
  })
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  const compiled = new Map<string, Promise<string>>()
  const compile = (name: string) =>
    Effect.promise(() => {
      const program = compiled.get(name) ?? compileScheduler(directory, name, release)
      compiled.set(name, program)
      return program
    })
  beforeEach(needsStockScx)
  beforeEach(needsExactQemu)

  if (matrix.length === 0) it.skip(`does one of ${Object.keys(MORE).length} more things: \`npm run matrix\` tries them`)
  for (const [what, { args = [], name, said: expected, scenario: other, thrownOut }] of Object.entries(tried)) {
    it.live(what, () =>
      Effect.gen(function*() {
        const request = other === undefined ? {} : { scenario: other }
        const { dump, outcome, said } = yield* reported(directory, yield* compile(name), args, request)
        assert.strictEqual(outcome, "fail", said.join("\n"))
        for (const one of expected) assert.isTrue(said.some((line) => one.test(line)), `${one}:\n${said.join("\n")}`)
        assert.strictEqual(dump?.failure.kind, thrownOut ? "scheduler" : "verdict", dump?.failure.text)
        if (thrownOut) assert.include(dump?.failure.text, name)
      }).pipe(Effect.provide(HostLive)), TIMEOUT)
  }

  it.live("dies before it attaches", () =>
    Effect.gen(function*() {
      assert.deepInclude(yield* reported(directory, "/usr/bin/false", []), {
        outcome: "fail",
        said: ["scheduler died: wrong died before it attached: ended with status 1, and last said: nothing"]
      })
      // with 0, too
      assert.deepInclude(yield* reported(directory, "/usr/bin/true", []), {
        outcome: "fail",
        said: ["scheduler died: wrong died before it attached: ended with status 0, and last said: nothing"]
      })
    }).pipe(Effect.provide(HostLive)), TIMEOUT)

  /** The scx_qmap of 7.3's source, with an argument; on an older kernel it dies before it attaches. */
  const qmap = (argument: string, expected: RegExp) =>
    Effect.gen(function*() {
      const { scheduler } = yield* stockScx
      const { outcome, said } = yield* reported(directory, scheduler("scx_qmap"), [argument, "200"])
      assert.strictEqual(outcome, "fail", said.join("\n"))
      const isOfKernel = release.startsWith("7.3.")
      assert.match(
        said.join("\n"),
        isOfKernel ? expected : /^scheduler died: wrong died before it attached: ended with status 1, /m
      )
    }).pipe(Effect.provide(HostLive))

  it.live("dispatches without an end", () => qmap("-l", /^(scheduler stalled|progress): /m), TIMEOUT)
  it.live(
    "the kernel throws out for an error of its own",
    () => qmap("-e", /^scheduler error: wrong was thrown out: scx_bpf_error: /),
    TIMEOUT
  )

  it.live(
    "ignores weights, by a claim that one passes which does not, whatever it prints",
    () =>
      Effect.gen(function*() {
        const { scheduler } = yield* stockScx
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
        const ignoring = yield* record(directory, yield* compile("good"), ["-g"], request)
        assert.strictEqual(ignoring.end.how, "done", JSON.stringify([ignoring.end, ignoring.damage]))
        assert.deepStrictEqual(
          ignoring.verdict.details.filter(({ outcome }) => outcome !== "pass").map(({ kind, label }) => [kind, label]),
          [["claim", "groups.heavy.cpu / groups.light.cpu"]]
        )
        assert.isTrue(ignoring.scheduler!.log.some((line) => line.includes("title")))
        const minding = yield* reported(directory, scheduler("scx_simple"), [], request)
        assert.strictEqual(minding.outcome, "pass", minding.said.join("\n"))
      }).pipe(Effect.provide(HostLive)),
    TIMEOUT
  )
})
