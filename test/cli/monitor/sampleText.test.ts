import { assert, describe, it } from "@effect/vitest"
import { sampleText } from "../../../src/cli/monitor/sampleText.ts"
import { RuleJudge, type Sample } from "../../../src/monitor/index.ts"

/** A sample of two CPUs, of which one has as many runnable tasks. */
const sample = (nr_running: number): Sample => ({
  at: "2026-11-29T10:59:50.000Z",
  consistency: "racing",
  seconds: 1,
  standsMillis: null,
  scheduler: null,
  watchdogMillis: null,
  cpus: [nr_running, 8].map((nr_running, cpu) => ({
    cpu,
    online: true,
    nr_running,
    clockMillis: 1000,
    runs: `spin[${cpu}]`,
    switchesPerSecond: 7,
    vcpuMillis: 900
  })),
  queues: [],
  oldest: null,
  eventsPerSecond: null,
  findings: [],
  problems: []
})

const past = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((nr) => [sample(nr), sample(nr)])

describe("a sample on a terminal", () => {
  it("has charts of the samples so far, as many as there is room for; without room none", () => {
    const cpus = (columns: number) => sampleText(sample(8), [], { columns, past }).split("\n").slice(1, 4)
    const table = [
      "CPU  RUNNABLE  SWITCHES/s  RUNS",
      "  0         8           7  spin[0]",
      "  1         8           7  spin[1]"
    ]
    assert.deepStrictEqual(cpus(80), [
      `${table[0]}     RUNNABLE SO FAR`,
      `${table[1]}    ▁▁▂▂▃▃▄▄▅▅▆▆▇▇█`,
      `${table[2]}  █████████████████`
    ])
    assert.deepStrictEqual(cpus(51), [
      `${table[0]}     RUNNABLE SO FAR`,
      `${table[1]}  ▁▁▂▂▃▃▄▄▅▅▆▆▇▇█`,
      `${table[2]}  ███████████████`
    ])
    assert.deepStrictEqual(cpus(50), table)
  })

  it("counts the rules that hold", () => {
    const held = (samples: number) => {
      const judge = new RuleJudge()
      for (let taken = 0; taken < samples; taken++) {
        judge.take({ ...sample(8), watchdogMillis: 5000, scheduler: "made" })
      }
      return sampleText(sample(8), judge.verdicts).split("\n").at(-2)
    }
    assert.match(held(1) ?? "", /^0 rules hold; not judged: /)
    assert.match(held(2) ?? "", /^1 rule holds; not judged: /)
  })
})
