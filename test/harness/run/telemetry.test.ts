import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { executeRun } from "../../../src/harness/run/ExecuteRun.ts"
import { prepareRun } from "../../../src/harness/run/PrepareRun.ts"
import { cgroup, op, type Scenario, scenario, step, work } from "../../../src/harness/scenario/Scenario.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { HostLive, scratch } from "../../support/guest.ts"
import { matrix } from "../../support/kernels.ts"

/** Stock kernels; the older ones are tried by `npm run matrix`. */
const KERNELS = ["debian:7.3-cloud", ...matrix.length === 0 ? [] : ["debian:6.18-cloud", "debian:6.12-cloud"]]

/** How long is measured: judge.c itself disturbs the workers at both ends, for 130 ms, and more on the older kernels. */
const holdOn = (kernel: string): string => kernel === KERNELS[0] ? "3 seconds" : "10 seconds"

/** judge.c before and behind a phase of all kinds of workers: that sleep, that talk to each other, that never stop. */
const judged = (program: string, hold: string): Scenario =>
  scenario("judged", {
    groups: {
      spin: cgroup({ workers: 2, work: work.spin() }),
      pipe: cgroup({ workers: 2, work: work.pipe() }),
      timer: cgroup({ workers: 4, work: work.timer({ interval: "2 millis" }) })
    },
    payloads: { before: { program }, after: { program } },
    steps: () => [
      step("run", { do: [op.run("before"), op.wait("before", "5 seconds")], hold }),
      step("end", { do: [op.run("after"), op.wait("after", "5 seconds")], hold: "10 millis" })
    ]
  }) as Scenario

/** Sums of judge.c's lines, by what they count and for whom. */
const sums = (lines: ReadonlyArray<string>): ReadonlyMap<string, number> => {
  const found = new Map<string, number>()
  for (const line of lines) {
    const [what, name, count] = line.split(" ")
    found.set(`${what} ${name}`, (found.get(`${what} ${name}`) ?? 0) + Number(count))
  }
  return found
}

describe("what a run says of its workers", () => {
  beforeEach(needsExactQemu)

  if (matrix.length === 0) it.skip("is so on 6.18 and 6.12: `npm run matrix` tries them")
  it.live.each(KERNELS)(
    "is what the kernel says of them in the guest: context switches within 2 %, shares of the CPUs within 1 %: %s",
    (kernel) =>
      Effect.gen(function*() {
        const program = join(yield* scratch, "judge")
        const source = new URL("./judge.c", import.meta.url).pathname
        yield* Effect.promise(() =>
          promisify(execFile)("gcc", ["-static", "-O1", "-Wall", "-Werror", source, "-o", program])
        )
        const prepared = yield* prepareRun({
          test: "judged",
          kernel,
          scenario: judged(program, holdOn(kernel)),
          mode: "exact"
        })
        const { payloads, phases: [{ from, groups, to }], verdict } = yield* executeRun(prepared)
        assert.strictEqual(verdict.outcome, "pass", JSON.stringify(verdict.details))
        const [before, after] = [sums(payloads["before"].log), sums(payloads["after"].log)]
        const counted = (key: string): number => after.get(key)! - before.get(key)!
        // it looks some milliseconds before and behind the phase: what happens a second is compared
        const seconds = counted("clock now") / 1e6
        assert.approximately(seconds, (to - from) / 1e9, 0.2)
        const names = Object.keys(groups)
        const micros = names.reduce((sum, name) => sum + counted(`micros ${name}`), 0)
        const cpu = names.reduce((sum, name) => sum + groups[name].cpu!, 0)
        assert.isAbove(micros, 2_500_000, "both CPUs are busy for a second and a half")
        for (const name of names) {
          const switches = counted(`switches ${name}`) / seconds
          assert.isAbove(switches, 100, name)
          const ours = groups[name].runs / (to - from) * 1e9
          assert.approximately(ours, switches, switches * 0.02, `switches of ${name} a second`)
          assert.approximately(groups[name].cpu! / cpu, counted(`micros ${name}`) / micros, 0.01, `share of ${name}`)
        }
      }).pipe(Effect.scoped, Effect.provide(HostLive)),
    400_000
  )

  it.live("costs a worker that computes at most a hundredth of its time", () =>
    Effect.gen(function*() {
      const group = (turns?: number) =>
        cgroup({ workers: 1, work: turns === undefined ? work.spin() : work.spin({ turns }) })
      const cost = scenario("cost", {
        groups: { one: group(), two: group(8192) },
        steps: () => [step("run", { hold: "600 millis" })]
      }) as Scenario
      const topology = { nodes: 1, llcs: 1, cores: 1, threads: 1 } // more CPUs take turns, and each one's time goes on while another has it
      const prepared = yield* prepareRun({ test: "cost", kernel: KERNELS[0], scenario: cost, mode: "exact", topology })
      const { phases: [{ groups }], verdict } = yield* executeRun(prepared)
      assert.strictEqual(verdict.outcome, "pass", JSON.stringify(verdict.details))
      const unitOf = (name: string): number => groups[name].cpu! / groups[name].workers[0].units
      const [one, two] = [unitOf("one"), unitOf("two")]
      assert.isAbove(two / one, 1.9, "it has twice the turns")
      assert.isBelow((2 * one - two) / one, 0.01)
    }).pipe(Effect.scoped, Effect.provide(HostLive)), 400_000)
})
