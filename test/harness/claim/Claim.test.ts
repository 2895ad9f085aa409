import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import {
  Claim,
  claim,
  ClaimMisuse,
  difference,
  ratio,
  recordClaims,
  type RunSubjects
} from "../../../src/harness/claim/Claim.ts"
import { judgeClaim, labelOf } from "../../../src/harness/claim/JudgeClaims.ts"
import { judgeRun } from "../../../src/harness/claim/JudgeRun.ts"
import type { RunRecord } from "../../../src/harness/claim/RunRecord.ts"
import { verdictOf } from "../../../src/harness/claim/Verdict.ts"
import { TOPOLOGY_PRESETS, topologyOf } from "../../../src/harness/scenario/TopologyPresets.ts"
import { group, made, phase } from "../madeRun.ts"

const one = (make: Parameters<typeof recordClaims<"a" | "b", "x" | "y">>[0]) => {
  const [first] = recordClaims<"a" | "b", "x" | "y">(make)
  const { label, observed, outcome } = judgeClaim(made, first)
  return `${outcome} ${label}: ${observed}`
}

describe("claims", () => {
  it("are named by what they are about, and judged over all phases or one", () => {
    assert.strictEqual(one((r) => [claim(r.groups.a.units).equals(30)]), "pass groups.a.units: 30")
    assert.strictEqual(one((r) => [claim(r.groups.a.gap.max).atMost("6 millis")]), "fail groups.a.gap.max: 7.000 ms")
    assert.strictEqual(
      one((r) => [claim(r.phases.x.groups.a.gap.max).atMost("6 millis")]),
      "pass phases.x.groups.a.gap.max: 5.000 ms"
    )
    assert.strictEqual(
      one((r) => [claim(ratio(r.groups.a.cpu, r.groups.b.cpu)).between(0.8, 1.25)]),
      "fail groups.a.cpu / groups.b.cpu: 2"
    )
    assert.strictEqual(
      one((r) => [claim(difference(r.groups.a.units, r.groups.b.units)).atLeast(20)]),
      "pass groups.a.units - groups.b.units: 20"
    )
    assert.strictEqual(one((r) => [claim(r.scheduler.attach).atMost("1 second")]), "pass scheduler.attach: 400.000 ms")
    assert.strictEqual(
      one((r) => [claim(r.groups.a.latency.p99).atMost("1 micros")]),
      "fail groups.a.latency.p99: 2.0 us"
    )
  })

  it("on what was not measured are inconclusive, and never passed", () => {
    assert.match(one((r) => [claim(r.groups.b.latency.p99).atMost("1 hour")]), /^inconclusive .*measures no latency/)
    const absent = { ...made, phases: [phase("x", group(1, null, 1), group(0, 0, 1), false)] }
    const [cpu, ended, zero] = recordClaims<"a" | "b", "x">((r) => [
      claim(r.groups.a.cpu).atLeast("0 seconds"),
      claim(r.phases.x.groups.a.units).atLeast(0),
      claim(ratio(r.groups.a.units, r.groups.b.units)).atLeast(0)
    ])
    assert.strictEqual(judgeClaim(absent, cpu).observed, "the kernel did not tell")
    assert.strictEqual(judgeClaim(absent, ended).observed, "the end of x was not reached")
    assert.strictEqual(judgeClaim(absent, zero).observed, "groups.b.units is 0")
    for (const each of [cpu, ended, zero]) assert.strictEqual(judgeClaim(absent, each).outcome, "inconclusive")
  })

  it("on times mean nothing where the host's load shows in them; counts do", () => {
    const emulated: RunRecord = { ...made, mode: { ...made.mode, mode: "emulated" } }
    const [time, count] = recordClaims<"a", "x">((r) => [
      claim(r.groups.a.gap.max).atMost("1 second"),
      claim(r.groups.a.units).atLeast(1)
    ])
    assert.strictEqual(judgeClaim(emulated, time).outcome, "inconclusive")
    assert.strictEqual(judgeClaim(emulated, count).outcome, "pass")
  })

  it("are JSON both ways", () => {
    const claims = recordClaims<"a" | "b", "x">((r) => [claim(ratio(r.groups.a.cpu, r.groups.b.cpu)).between(1, 2)])
    const back = Schema.decodeUnknownSync(Schema.Array(Claim))(JSON.parse(JSON.stringify(claims)))
    assert.deepStrictEqual(back, claims)
    assert.strictEqual(labelOf(back[0].subject), "groups.a.cpu / groups.b.cpu")
  })

  it("only pick: anything else throws where it is written", () => {
    const misuses: ReadonlyArray<() => unknown> = [
      () => recordClaims<"a", "x">((r) => [claim(r.groups.a.units).atLeast(Number(r.groups.a.cpu))]),
      () =>
        recordClaims<"a", "x">((r) => [claim(r.groups.a.units, `${r.groups.a.cpu as unknown as string}`).atLeast(1)]),
      () => recordClaims<"a", "x">((r) => [claim(r.groups.a.units).atLeast(NaN)]),
      () => recordClaims<"a", "x">((r) => [claim(r.groups.a.units).between(2, 1)]),
      () => recordClaims<"a", "x">((r) => [claim(r.groups.a.gap.max).atMost("soon")]),
      () => recordClaims<"a", "x">((r) => [claim({} as typeof r.groups.a.units).atLeast(1)])
    ]
    for (const misuse of misuses) assert.throws(misuse, ClaimMisuse)
  })

  it("that name what is not there, mix units or calculate do not compile, and do not pass where nothing compiles", () => {
    const wrong: ReadonlyArray<(r: RunSubjects<"a", "x">) => Claim> = [
      // @ts-expect-error no such group
      (r) => claim(r.groups.nobody.units).atLeast(0),
      // @ts-expect-error no such phase
      (r) => claim(r.phases.never.groups.a.units).atLeast(0),
      // @ts-expect-error a time, not a number
      (r) => claim(r.groups.a.gap.max).atMost(2 ** 40),
      // @ts-expect-error a number, not a time
      (r) => claim(r.groups.a.units).atMost("1 second"),
      // @ts-expect-error a time and a number
      (r) => claim(ratio(r.groups.a.cpu, r.groups.a.units)).atLeast(0),
      // @ts-expect-error it picks and does not calculate
      (r) => claim(r.groups.a.units + 1).atLeast(0)
    ]
    const outcomes = wrong.map((make) => {
      try {
        return judgeClaim(made, recordClaims<"a", "x">((r) => [make(r)])[0]).outcome
      } catch (error) {
        return error instanceof ClaimMisuse ? "misuse" : error
      }
    })
    assert.deepStrictEqual(outcomes, ["inconclusive", "inconclusive", ...Array<string>(4).fill("misuse")])
  })
})

const kinds = (run: RunRecord) => {
  const { details, outcome } = judgeRun(run)
  return [outcome, ...details.filter((each) => each.outcome !== "pass").map(({ kind }) => kind)]
}
const scheduler = made.scheduler!
const exit = {
  atMicros: 1,
  scheduler: "s",
  kind: "stall",
  reason: "runnable task stall",
  message: "init[46] failed to run for 5.092s",
  stalled: { comm: "init", pid: 46, millis: 5092 },
  stack: [],
  stackIsWatchdogs: true
} as const

describe("a run's verdict", () => {
  it("is a pass where the scheduler stayed, every worker progressed and nothing is missing", () => {
    assert.deepStrictEqual(kinds(made), ["pass"])
  })

  it("calls each end of a scheduler what it is", () => {
    const of = (change: Partial<typeof scheduler>) => kinds({ ...made, scheduler: { ...scheduler, ...change } })
    assert.deepStrictEqual(of({ exits: [exit], atEnd: false }), ["fail", "scheduler stalled"])
    assert.deepStrictEqual(of({ exits: [{ ...exit, kind: "error", stalled: null }], atEnd: false }), [
      "fail",
      "scheduler error"
    ])
    assert.deepStrictEqual(of({ atEnd: false, status: 0 }), ["fail", "scheduler exited"])
    assert.deepStrictEqual(of({ attached: "died", log: ["assertion failed"] }), ["fail", "scheduler died"])
    assert.deepStrictEqual(of({ attached: "died", log: ["libbpf: prog 'x': BPF program load failed: -EACCES"] }), [
      "fail",
      "scheduler refused"
    ])
    assert.deepStrictEqual(of({ attached: "late" }), ["fail", "scheduler late"])
    assert.deepStrictEqual(of({ attached: "other" }), ["fail", "scheduler other"])
    assert.deepStrictEqual(of({ attached: "noSchedExt" }), ["skip", "scheduler late"])
  })

  it("fails where a worker stood still, unless its group rests", () => {
    const still = {
      ...made,
      phases: [phase("x", group(0, 0, 1e9), group(1, 1, 1)), phase("y", group(1, 1, 1), group(1, 1, 1))]
    }
    assert.deepStrictEqual(kinds(still), ["fail", "progress"])
    const resting: RunRecord = {
      ...still,
      scenario: {
        ...made.scenario,
        steps: [
          { name: "x", hold: "1 second", do: [{ op: "freeze", group: "a" }] },
          { name: "y", hold: "1 second", do: [{ op: "thaw", group: "a" }] }
        ]
      }
    }
    assert.deepStrictEqual(kinds(resting), ["pass"])
  })

  it("fails on an alarm in the kernel's log, a failed operation, and a guest that did not come to its end", () => {
    assert.deepStrictEqual(kinds({ ...made, kernelLog: ["WARNING: CPU: 1 PID: 7"] }), ["fail", "kernel"])
    assert.deepStrictEqual(kinds({ ...made, operations: [{ op: 1, what: "spawn", error: "EINVAL", why: null }] }), [
      "fail",
      "operation"
    ])
    assert.deepStrictEqual(kinds({ ...made, end: { how: "panicked", at: 0, why: "Kernel panic" } }), [
      "fail",
      "guest panicked"
    ])
  })

  it("is inconclusive where records are missing, and where nothing was judged", () => {
    assert.deepStrictEqual(kinds({ ...made, damage: "3 records" }), ["inconclusive", "records"])
    assert.strictEqual(verdictOf([]).outcome, "inconclusive")
  })
})

describe("topologies", () => {
  it("have names, or are numbers", () => {
    assert.deepStrictEqual(Either.getOrThrow(topologyOf("smt-2llc")), { nodes: 1, llcs: 2, cores: 2, threads: 2 })
    assert.deepStrictEqual(Either.getOrThrow(topologyOf("1,2,2,1")), { nodes: 1, llcs: 2, cores: 2, threads: 1 })
    assert.strictEqual(Object.keys(TOPOLOGY_PRESETS).length, 24)
    assert.deepStrictEqual(
      Object.keys(TOPOLOGY_PRESETS).filter((name) => Either.isLeft(topologyOf(name))),
      ["max-cpu", "max-cpu-nosmt"],
      "these have more CPUs than APIC ids of 8 bits"
    )
    const wrong = topologyOf("tiny")
    assert.match(Either.isLeft(wrong) ? wrong.left.message : "", /not a topology: "tiny"; .*one of tiny-1llc/)
  })
})
