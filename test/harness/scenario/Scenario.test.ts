import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { guestLimits } from "../../../src/harness/scenario/GuestLimits.ts"
import { planScenario } from "../../../src/harness/scenario/PlanScenario.ts"
import { cpuList, resolveCpus } from "../../../src/harness/scenario/ResolveCpus.ts"
import { cgroup, cpus, op, type Scenario, scenario, smoke, step, work } from "../../../src/harness/scenario/Scenario.ts"
import type { Problem } from "../../../src/harness/scenario/ValidateScenario.ts"
import { decodeScenario, validateScenario } from "../../../src/harness/scenario/ValidateScenario.ts"
import { resolveTopology } from "../../../src/kvm/spec/Topology.ts"

const machine = Either.getOrThrow(resolveTopology({ topology: { nodes: 1, llcs: 2, cores: 2, threads: 1 } }))
const problems = (value: Scenario, hasScheduler = true): ReadonlyArray<Problem> =>
  Either.match(validateScenario(value, machine, hasScheduler), {
    onLeft: ({ problems }) => problems,
    onRight: () => []
  })

const tenants = scenario("two tenants", {
  groups: {
    a: cgroup({ cpus: cpus.llc(0), workers: { perCpu: 1 }, work: work.spin({ turns: 10 }) }),
    b: cgroup({ weight: 200, workers: 4, work: work.pipe(), starts: "later" })
  },
  steps: ({ a, b }) => [
    step("settle", { hold: "1 second" }),
    step("squeeze", { do: [op.add(b), op.setCpus(a, cpus.fraction(0, 0.5)), op.freeze(b)], hold: "500 millis" }),
    step("release", { do: [op.thaw(b), op.remove(b)], hold: "1 second" })
  ]
})

const scheduler = { words: ["/bin/s"], ops: "s", attachNs: 3e10 }

describe("a scenario", () => {
  it("is JSON both ways", () => {
    for (const value of [tenants, smoke]) {
      const back = Either.getOrThrow(decodeScenario(JSON.parse(JSON.stringify(value))))
      assert.deepStrictEqual(back, value as Scenario)
      assert.deepStrictEqual(problems(back), [])
    }
  })

  it("becomes numbers: workers of a pair are together, CPUs are a list, times are nanoseconds", () => {
    const { groups, plan, steps } = planScenario(tenants, machine, scheduler, 1, guestLimits(null))
    assert.deepStrictEqual(steps, ["settle", "squeeze", "release"])
    assert.deepStrictEqual(groups, [{ name: "a", first: 0, count: 4 }, { name: "b", first: 4, count: 4 }])
    assert.deepStrictEqual(plan.workers.slice(4).map(({ leader, size }) => [leader, size]), [[4, 2], [4, 2], [6, 2], [
      6,
      2
    ]])
    assert.deepStrictEqual(plan.ops.map(({ code, step }) => `${step} ${code}`), [
      "0 cgroupAdd",
      "0 cgroupWrite",
      "0 attach",
      "0 spawn",
      "1 phaseBegin",
      "1 hold",
      "1 phaseEnd",
      "2 cgroupAdd",
      "2 cgroupWrite",
      "2 spawn",
      "2 cgroupWrite",
      "2 cgroupWrite",
      "2 phaseBegin",
      "2 hold",
      "2 phaseEnd",
      "3 cgroupWrite",
      "3 stop",
      "3 cgroupRemove",
      "3 phaseBegin",
      "3 hold",
      "3 phaseEnd"
    ])
    assert.deepStrictEqual(plan.ops[1], { code: "cgroupWrite", step: 0, a: 0, b: "cpuset.cpus", c: "0-1" })
    assert.strictEqual(plan.ops[5].ns, 1e9)
  })

  it("gives the guest's own work longer by a slower clock, and what the scenario says the same time", () => {
    const restarts = scenario("restarts", {
      groups: { a: cgroup({ workers: 1, work: work.spin() }) },
      payloads: { p: { program: "/bin/true" } },
      steps: ({ a }) => [
        step("run", {
          do: [op.restart(), op.run("p"), op.wait("p", "3 seconds"), op.kill("p"), op.stop(a)],
          hold: "2 seconds"
        })
      ]
    })
    const timesOf = (shift: number) => {
      const { plan } = planScenario(restarts, machine, scheduler, 1, guestLimits({ shift }))
      return [plan.callNs, ...plan.ops.flatMap(({ code, ns }) => ns === undefined ? [] : [`${code} ${ns / 1e9}`])]
    }
    const [attach, wait, hold] = ["attach 30", "wait 3", "hold 2"]
    assert.deepStrictEqual(timesOf(1), [20e9, attach, "spawn 5", "detach 10", attach, wait, "kill 1", "stop 5", hold])
    assert.deepStrictEqual(timesOf(2), [40e9, attach, "spawn 10", "detach 20", attach, wait, "kill 2", "stop 10", hold])
    assert.deepStrictEqual(guestLimits({ shift: 1 }), guestLimits(null))
  })

  it("is refused with all that is wrong, each at its path and with a fix", () => {
    const wrong: Scenario = {
      version: 1,
      name: "wrong",
      groups: {
        a: { cpus: { llc: 7 }, workers: 3, work: { type: "pipe" } },
        b: { workers: 2 },
        c: { work: { type: "spin" }, quota: { time: "10 micros" } }
      },
      steps: [
        { name: "x", hold: "1 second", do: [{ op: "freeze", group: "aa" }, { op: "thaw", group: "a" }] },
        {
          name: "x",
          hold: "1 second",
          do: [{ op: "setAffinity", group: "a", cpus: { list: "0,9" } }, { op: "attach" }]
        }
      ]
    }
    assert.deepStrictEqual(
      problems(wrong).map(({ fix, path, problem }) => `${path}: ${problem}; ${fix}`),
      [
        "groups.a.cpus: no such LLC: 7; give 0 to 1, or a topology of more LLCs",
        "groups.a.workers: 3 workers, where 2 of pipe work together; give 2 or 4",
        "groups.b: it has workers without work; add work, as in spin",
        "groups.c: it has work and no workers; add workers: a number, or perCpu",
        "groups.c.quota: a quota of 10 micros; give at least 1 millis",
        "steps[0].do[0].group: no such group: aa; did you mean a?",
        "steps[0].do[1].group: the group a is running at this step; it must be frozen",
        "steps[1].name: another step is called x; rename one of them",
        "steps[1].do[0].cpus: no such CPU: 9; give 0 to 3, or a topology of more CPUs",
        "steps[1].do[1]: the scheduler is attached already; take it out"
      ]
    )
    assert.isTrue(
      problems({ ...wrong, groups: { a: { workers: 513, work: { type: "spin" } } } }).some(({ path }) =>
        path === "groups.a.workers" || path === "groups"
      )
    )
  })

  it("without a scheduler does nothing with one", () => {
    const detaching = scenario("detach", {
      groups: { a: cgroup({ workers: 1, work: work.spin() }) },
      steps: () => [step("run", { do: [op.detach()], hold: "1 second" })]
    })
    assert.deepStrictEqual(problems(detaching), [])
    assert.deepStrictEqual(problems(detaching, false).map(({ path }) => path), ["steps[0].do[0]"])
  })

  const base = JSON.stringify(tenants)
  const changes: ReadonlyArray<readonly [string, RegExp]> = [
    [base.replace("\"version\":1", "\"version\":2"), /version/],
    [base.replace("\"hold\":\"1 second\"", "\"hold\":\"soon\""), /steps\[0\]\.hold: expected a time/],
    [base.replace("\"hold\":\"1 second\"", "\"hold\":\"2 hours\""), /at most an hour/],
    [base.replace("\"type\":\"spin\"", "\"type\":\"spinn\""), /groups\.a\.work/],
    [base.replace("\"turns\":10", "\"turns\":-1"), /turns/],
    [base.replace("\"turns\":10", "\"turnz\":1"), /turnz/],
    [base.replace("\"weight\":200", "\"weight\":0"), /weight/],
    [base.replace("\"op\":\"freeze\"", "\"op\":\"melt\""), /steps\[1\]\.do\[2\]/],
    [base.replace("\"name\":\"two tenants\"", "\"name\":\"a/b\""), /expected a name/],
    ["[]", /Expected|expected/],
    ["null", /Expected|expected/]
  ]
  for (const [text, wanted] of changes) {
    it(`of JSON ${wanted.source} is refused by its form`, () => {
      assert.notStrictEqual(text, base)
      const decoded = decodeScenario(JSON.parse(text))
      assert.match(Either.isLeft(decoded) ? decoded.left.message : "taken", wanted)
    })
  }
})

describe("names of a scenario", () => {
  const names = [
    "../../x",
    "/etc/shadow",
    "..",
    ".",
    "a/b",
    "a\0b",
    "\u001b[2J",
    "\u202e",
    "",
    "a\n",
    "\ud800",
    "__proto__"
  ]
  const inPlaces = (name: string): Readonly<Record<string, object>> => {
    const keyed = (value: object) => Object.fromEntries([[name, value]])
    const program = { program: "/bin/true" }
    return {
      "a group's": { groups: keyed({}) },
      "a payload's": { payloads: keyed(program) },
      "a payload's group's": { payloads: { p: { ...program, group: name } } },
      "an operation's group's": { steps: [{ name: "x", hold: "1 second", do: [{ op: "add", group: name }] }] },
      "an operation's payload's": { steps: [{ name: "x", hold: "1 second", do: [{ op: "run", payload: name }] }] },
      "a step's": { steps: [{ name, hold: "1 second" }] },
      "its own": { name }
    }
  }
  for (const place of Object.keys(inPlaces(""))) {
    it(`lead nowhere: ${place}`, () => {
      for (const name of names) {
        const scenario = { ...smoke, ...inPlaces(name)[place] }
        const read = decodeScenario(JSON.parse(JSON.stringify(scenario)))
        assert.isTrue(Either.isLeft(read), JSON.stringify(name))
        // a program's own scenario does not come out of JSON
        assert.isNotEmpty(problems(scenario as Scenario), JSON.stringify(name))
      }
    })
  }
})

describe("CPUs", () => {
  it("are worked out by the topology", () => {
    const of = (spec: Parameters<typeof resolveCpus>[0]) =>
      Either.match(resolveCpus(spec, machine), { onLeft: ({ problem }) => problem, onRight: cpuList })
    assert.strictEqual(of("all"), "0-3")
    assert.strictEqual(of({ llc: 1 }), "2-3")
    assert.strictEqual(of({ node: 0 }), "0-3")
    assert.strictEqual(of({ fraction: [0.5, 1] }), "2-3")
    assert.strictEqual(of({ fraction: [0.5, 0.5] }), "from 0.5 to 0.5 of 4 CPUs there is none")
    assert.strictEqual(of({ list: "3,0-1" }), "0-1,3")
    assert.strictEqual(of({ list: "2-1" }), "2-1 is empty")
    assert.strictEqual(of({ node: 1 }), "no such NUMA node with CPUs: 1")
  })
})
