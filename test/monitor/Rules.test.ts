import { assert, describe, it } from "@effect/vitest"
import { formatReason, type Reason } from "../../src/core/Reason.ts"
import {
  defaultRules,
  oldestRunnable,
  readRunning,
  type Rule,
  RuleJudge,
  type Sample,
  type Sampled,
  sampleOf
} from "../../src/monitor/index.ts"
import { readTime, TaskReader } from "../../src/sched/index.ts"
import { MadeSched, offsetOf, sizeOf } from "../sched/MadeSched.ts"

const cpu = (number: number, fields: Partial<Sample["cpus"][number]> = {}): Sample["cpus"][number] => ({
  cpu: number,
  online: true,
  nr_running: 1,
  clockMillis: 100,
  runs: "idle",
  switchesPerSecond: 10,
  vcpuMillis: 90,
  ...fields
})

let clock = 0
const sample = (fields: Partial<Sample> = {}): Sample => ({
  at: new Date(clock++ * 1000).toISOString(),
  consistency: "racing",
  seconds: 0.1,
  standsMillis: 0,
  scheduler: "made",
  watchdogMillis: 5000,
  cpus: [cpu(0), cpu(1)],
  queues: [],
  oldest: null,
  eventsPerSecond: {},
  findings: [],
  problems: [],
  ...fields
})

const verdictOf = (samples: ReadonlyArray<Sample>, rule: string) => {
  const judge = new RuleJudge()
  const broken = samples.flatMap((each) => judge.take(each))
  const verdict = judge.verdicts.find((each) => each.rule === rule) ?? assert.fail(rule)
  return { ...verdict, told: broken.filter((each) => each.rule === rule).length }
}

const times = <A>(count: number, make: () => A): ReadonlyArray<A> => Array.from({ length: count }, make)

describe("rules", () => {
  const breaking: ReadonlyArray<readonly [string, Partial<Sample>, number]> = [
    ["imbalance", { cpus: [cpu(0, { nr_running: 9 }), cpu(1, { nr_running: 2 })] }, 4.5],
    ["standing-cpus", { cpus: [cpu(0, { runs: "a[1]", clockMillis: 0, switchesPerSecond: 0 }), cpu(1)] }, 1],
    ["standing-guest", { seconds: null, standsMillis: 1001 }, 1001],
    ["local-queue", { queues: [{ name: "local", kind: "local", nr: 51, change: 0 }] }, 51],
    ["user-queue", { queues: [{ name: "queue 1", kind: "user", nr: 1001, change: 0 }] }, 1001],
    ["fallback", { eventsPerSecond: { SCX_EV_SELECT_CPU_FALLBACK: 201 } }, 201],
    ["keep-last", { eventsPerSecond: { SCX_EV_DISPATCH_KEEP_LAST: 202 } }, 101],
    ["runnable-age", { oldest: { pid: 1, comm: "a", millis: 2600, cpu: 0 } }, 0.52]
  ]
  it("are all tried here", () => {
    assert.deepStrictEqual(breaking.map(([rule]) => rule), defaultRules.map(({ name }) => name))
  })

  for (const [rule, fields, worst] of breaking) {
    const { sustained } = defaultRules.find(({ name }) => name === rule) ?? assert.fail(rule)
    it(`${rule}: is broken by ${sustained} such samples in a row, told once, not by one less nor with another between`, () => {
      const bad = times(sustained, () => sample(fields))
      const at = bad[sustained - 1].at
      assert.deepInclude(verdictOf([...bad, sample(fields)], rule), { outcome: "fail", worst, at, told: 1 })
      const short = times(sustained - 1, () => sample(fields))
      assert.deepInclude(verdictOf([...short, sample(), ...short], rule), { worst, at: null, told: 0 })
      assert.notStrictEqual(verdictOf([...short, sample(), ...short], rule).outcome, "fail")
      assert.strictEqual(verdictOf(times(5, () => sample()), rule).outcome, "pass")
      // what was broken stays so
      assert.strictEqual(verdictOf([...bad, ...times(9, () => sample())], rule).outcome, "fail")
    })
  }

  it("are inconclusive, and do not hold, where samples lack what they look at", () => {
    const none = sample({
      scheduler: null,
      watchdogMillis: null,
      seconds: null,
      standsMillis: null,
      eventsPerSecond: null,
      cpus: [cpu(0, { clockMillis: null })]
    })
    const judge = new RuleJudge()
    for (let i = 0; i < 20; i++) assert.deepStrictEqual(judge.take(none), [])
    for (const { outcome, samples, worst } of judge.verdicts) {
      assert.deepStrictEqual([outcome, samples, worst], ["inconclusive", 0, null])
    }
    // a sample without it ends a row
    const deep: Partial<Sample> = { queues: [{ name: "local", kind: "local", nr: 60, change: 0 }] }
    const row = times(4, () => sample(deep))
    assert.notStrictEqual(verdictOf([...row, none, ...row], "local-queue").outcome, "fail")
  })

  it("standing-cpus: takes no CPU for one that stands while the host gave it no time, and is inconclusive where that is not known", () => {
    const stands = { runs: "a[1]", clockMillis: 0, switchesPerSecond: 0 }
    const of = (vcpuMillis: number | null) =>
      times(5, () => sample({ cpus: [cpu(0, { ...stands, vcpuMillis }), cpu(1)] }))
    assert.deepInclude(verdictOf(of(39), "standing-cpus"), { outcome: "pass", worst: 0 })
    assert.deepInclude(verdictOf(of(40), "standing-cpus"), { outcome: "fail", worst: 1 })
    assert.deepInclude(verdictOf(of(null), "standing-cpus"), { outcome: "inconclusive", samples: 0 })
  })

  for (const [rule, fields, worst] of breaking) {
    const { looksAt, sustained } = defaultRules.find(({ name }) => name === rule) ?? assert.fail(rule)
    for (const part of looksAt) {
      it(`${rule}: does not hold where ${part} are incomplete, but is broken by what is there`, () => {
        const problems = [{ part, kind: "unreadable", text: "made" } as const]
        const fine = times(20, () => sample({ problems }))
        assert.deepInclude(verdictOf(fine, rule), { outcome: "inconclusive", samples: 0 })
        const bad = times(sustained, () => sample({ ...fields, problems }))
        assert.deepInclude(verdictOf(bad, rule), { outcome: "fail", worst })
      })
    }
  }

  it("of one's own are judged as the others", () => {
    const own: Rule = {
      name: "two-cpus",
      about: "CPUs",
      unit: "CPUs",
      threshold: 1,
      sustained: 1,
      looksAt: ["cpus"],
      measure: ({ cpus }) => cpus.length
    }
    const judge = new RuleJudge([own])
    assert.deepInclude(judge.take(sample())[0], { rule: "two-cpus", outcome: "fail", worst: 2 })
  })
})

const whole = (read: Sampled | Reason): Sampled => "kind" in read ? assert.fail(formatReason(read)) : read
const tornBy = (read: Sampled | Reason): string => "kind" in read ? formatReason(read) : assert.fail("whole")

describe("a reading of running memory", () => {
  const made = () => {
    const sched = new MadeSched()
    const ext = { sched_class: sched.symbol("ext_sched_class"), on_rq: 1, "scx.flags": 1 }
    const young = sched.task({ ...ext, comm: "young", pid: 10, tgid: 10, "scx.runnable_at": 9_900 })
    const old = sched.task({ ...ext, comm: "old", pid: 11, tgid: 11, "scx.runnable_at": 9_000 })
    const running = sched.task({ ...ext, comm: "running", pid: 12, tgid: 12, on_cpu: 1, "scx.runnable_at": 100 })
    for (const task of [young, old, running]) sched.process(task)
    const [queue, global] = [sched.allocate(sizeOf("scx_dispatch_q")), sched.allocate(sizeOf("scx_dispatch_q"))]
    sched.dispatchQueue(queue, 42n, [young])
    sched.dispatchQueue(global, 0n, [])
    sched.scheduler("made", [queue], global)
    const link = BigInt(offsetOf("task_struct", "scx.runnable_node"))
    const head = sched.rq(1) + BigInt(offsetOf("rq", "scx.runnable_list"))
    sched.list(head, [young, old, running].map((task) => task + link))
    const idle = sched.task({ sched_class: sched.symbol("idle_sched_class"), comm: "swapper/0" })
    sched.field("rq", sched.rq(0), { curr: idle, idle, stop: idle })
    sched.field("rq", sched.rq(1), {
      curr: running,
      idle,
      stop: idle,
      nr_running: 3,
      nr_switches: 10n,
      clock: 1_000_000n
    })
    return sched
  }

  it("finds the task that waits for longest, in no queue, of those that do not run", () => {
    const kernel = made().kernel()
    const reader = TaskReader.of(kernel) ?? assert.fail("no tasks")
    // jiffies 10,000 at 250 Hz
    assert.deepStrictEqual(oldestRunnable(kernel, reader, readTime(kernel)), {
      task: { pid: 11, comm: "old", millis: 4000, cpu: 1 },
      problem: undefined
    })
  })

  it("becomes a sample with rates since the one before, and is none where a run queue is not its CPU's", () => {
    const sched = made()
    const kernel = sched.kernel()
    const first = whole(readRunning(kernel))
    sched.set("u64", sched.symbol("jiffies_64"), 10_500n) // 2 s
    sched.field("rq", sched.rq(1), { nr_switches: 30n, clock: 2_001_000_000n })
    const second = whole(readRunning(kernel))
    const { consistency, cpus, oldest, queues, scheduler, seconds } = sampleOf(second, first, "racing")
    assert.deepStrictEqual([consistency, scheduler, seconds, oldest?.millis], ["racing", "made", 2, 6000])
    assert.deepInclude(cpus[1], {
      nr_running: 3,
      runs: "running[12]",
      switchesPerSecond: 10,
      clockMillis: 2000,
      online: cpus[1].online
    })
    assert.deepStrictEqual(queues.map(({ change, name, nr }) => [name, nr, change]), [["queue 42", 1, 0]])
    assert.deepStrictEqual(sampleOf(second, first).problems, [])
    const timed = (reading: Sampled, millis: number): Sampled => ({ ...reading, vcpuNanos: [undefined, millis * 1e6] })
    const given = sampleOf(timed(second, 70), timed(first, 50), "racing", timed(first, 20))
    assert.deepStrictEqual([given.cpus.map(({ vcpuMillis }) => vcpuMillis), given.standsMillis], [[null, 20], 50])
    assert.deepStrictEqual(sampleOf(second, first, "racing", first).standsMillis, null)
    const list = sched.rq(1) + BigInt(offsetOf("rq", "scx.runnable_list"))
    sched.set("u64", list, 0x10n) // a list that leads nowhere
    const cut = sampleOf(whole(readRunning(kernel)), second)
    assert.deepStrictEqual([cut.oldest, cut.problems.map(({ part }) => part)], [null, ["oldest"]])
    sched.field("rq", sched.rq(1), { cpu: 7 })
    assert.match(tornBy(readRunning(kernel)), /^unreadable: the run queue of CPU 1 at 0x\w+ calls itself CPU 7$/)
  })
})
