import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { RunRecord } from "../../../src/harness/claim/RunRecord.ts"
import type { ExactClock } from "../../../src/harness/engine/EngineMode.ts"
import { executeRun } from "../../../src/harness/run/ExecuteRun.ts"
import { prepareRun, type RunRequest } from "../../../src/harness/run/PrepareRun.ts"
import { cgroup, scenario, step, work } from "../../../src/harness/scenario/Scenario.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { HostLive } from "../../support/guest.ts"
import { needsScx, scx } from "../../support/scx.ts"

const short = scenario("short", {
  groups: {
    spin: cgroup({ workers: { perCpu: 1 }, work: work.spin() }),
    pipe: cgroup({ workers: 2, work: work.pipe() })
  },
  steps: () => [step("run", { hold: "300 millis" })]
})

/** All of a record but what the host's clock says. */
const exactly = (record: RunRecord): string => JSON.stringify({ ...record, host: null })

const run = (request: Omit<RunRequest, "test" | "scenario" | "mode">) =>
  Effect.flatMap(prepareRun({ test: "short", scenario: short, mode: "exact", ...request }), executeRun)

describe("an exact run", () => {
  beforeEach(needsScx)
  beforeEach(needsExactQemu)

  it.live(
    "under scx_simple is the same to the byte with the same seed, and another one with another",
    () =>
      Effect.gen(function*() {
        const { key, scheduler } = yield* scx
        const simple = { name: "scx_simple", binary: scheduler("scx_simple") }
        const [first, again, other] = yield* Effect.forEach(
          [7, 7, 8],
          (seed) => run({ kernel: key, scheduler: simple, seed }),
          { concurrency: 2 }
        )
        assert.strictEqual(first.verdict.outcome, "pass", JSON.stringify(first.verdict.details))
        assert.strictEqual(first.mode.mode, "exact")
        assert.strictEqual(first.scheduler?.attached, "yes")
        assert.strictEqual(first.determinismKey, again.determinismKey)
        assert.strictEqual(exactly(first), exactly(again))
        assert.notStrictEqual(first.host.id, again.host.id)
        assert.notStrictEqual(other.determinismKey, first.determinismKey)
        assert.notDeepEqual(other.phases, first.phases, "another seed is another schedule")
        // the kernel's own account of the groups is the judge of what we add up by worker
        for (const { cpu, cpuStat } of Object.values(first.phases[0].groups)) {
          assert.approximately(cpu!, cpuStat!, cpuStat! / 100)
        }
        // by the clock of another record it is another run
        assert.deepStrictEqual(first.mode.clock, { shift: 2, sliceMicros: 100 })
        const keyOf = (clock: ExactClock) =>
          Effect.map(
            prepareRun({
              test: "short",
              scenario: short,
              mode: "exact",
              kernel: key,
              scheduler: simple,
              seed: 7,
              clock
            }),
            ({ determinismKey }) => determinismKey
          )
        assert.strictEqual(yield* keyOf({ shift: 2, sliceMicros: 100 }), first.determinismKey)
        assert.notStrictEqual(yield* keyOf({ shift: 1, sliceMicros: 100 }), first.determinismKey)
        assert.notStrictEqual(yield* keyOf({ shift: 2, sliceMicros: 50 }), first.determinismKey)
        const back = yield* Schema.decodeUnknown(RunRecord)(JSON.parse(JSON.stringify(first)))
        assert.deepStrictEqual(back, first)
      }).pipe(Effect.provide(HostLive)),
    400_000
  )
})
