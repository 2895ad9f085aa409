import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { boot } from "../../src/Ktstr.ts"
import type { Vm } from "../../src/kvm/spec/VmEngine.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { Monitor, RuleJudge, type Sample } from "../../src/monitor/index.ts"
import { Sampler } from "../../src/monitor/Sampler.ts"
import { HostLive } from "../support/guest.ts"
import { matrix } from "../support/kernels.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"

/** Guest seconds of the healthy run. */
const SECONDS = 60

const START = `
mkdir -p /tmp/debug && mount -t debugfs debugfs /tmp/debug
/include-files/scx_simple >/dev/null 2>&1 &
while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done`

/** Spinners, sleepers, a pipe that is always full, and processes that begin and end: more than there are CPUs. */
const LOAD = `
for n in 1 2 3 4; do (while :; do :; done) & done
for n in 1 2 3 4; do (while :; do sleep 0.05; done) & done
(cat /dev/zero | cat >/dev/null) &
(while :; do /bin/true; done) &
(while :; do dd if=/dev/urandom of=/tmp/file bs=64k count=16 2>/dev/null; done) &`

const guest = (cpus: number, load = "") =>
  Effect.gen(function*() {
    const { key, scheduler } = yield* stockScx
    const options = { kernel: key, cpus, includes: [scheduler("scx_simple")], timeout: "10 minutes" } as const
    const vm = yield* boot(options)
    assert.strictEqual((yield* vm.exec(`${START}${load}`, { timeout: "2 minutes" })).status, 0)
    return vm
  })

/** What the guest itself counts: of each CPU the switches, and the scheduler's events. */
const counted = (vm: Vm) =>
  Effect.map(
    vm.exec("grep -oE '^cpu#[0-9]+|nr_switches.*' /tmp/debug/sched/debug; cat /sys/kernel/sched_ext/root/events", {
      timeout: "1 minute"
    }),
    ({ output }) => {
      const counts = new Map<string, number>()
      let cpu = ""
      for (const line of output.split("\n")) {
        const [, name, count] = /^(\w+)[ :]+(\d+)$/.exec(line) ?? []
        if (line.startsWith("cpu#")) cpu = line
        else if (name !== undefined) counts.set(name === "nr_switches" ? cpu : name, Number(count))
      }
      return counts
    }
  )

const taken = (sampler: Sampler): Effect.Effect<Sample> =>
  Effect.repeat(Effect.sync(() => sampler.next()), { until: (sample) => !("kind" in sample) }) as Effect.Effect<Sample>

describe("the monitor of a healthy guest", () => {
  beforeEach(needsStockScx)
  it.live("counts what the guest itself does, between two points at which it is asked", () =>
    Effect.gen(function*() {
      const vm = yield* guest(2)
      const sampler = new Sampler(yield* GuestKernel.fromMemory(yield* vm.memory, "the running guest"))
      const before = yield* counted(vm)
      yield* taken(sampler)
      const first = yield* counted(vm)
      const work = "seq 20000 | while read n; do echo $n; done | cat >/dev/null"
      assert.strictEqual((yield* vm.exec(work, { timeout: "2 minutes" })).status, 0)
      const last = yield* counted(vm)
      const { cpus, eventsPerSecond, problems, seconds } = yield* taken(sampler)
      const after = yield* counted(vm)
      assert.deepStrictEqual(problems.filter(({ part }) => part === "cpus" || part === "events"), [])

      const rates = { ...eventsPerSecond }
      for (const { cpu, switchesPerSecond } of cpus) rates[`cpu#${cpu}`] = switchesPerSecond ?? assert.fail("no rate")
      const between = (a: typeof before, b: typeof before, name: string) => (b.get(name) ?? 0) - (a.get(name) ?? 0)
      let switches = 0
      if (seconds === null) return assert.fail("no time")
      for (const name of last.keys()) {
        const count = (rates[name] ?? 0) * seconds
        const rounded = seconds / 2 + 1e-6 // a rate is a whole number
        const [least, most] = [between(first, last, name), between(before, after, name)]
        assert.isTrue(least - rounded <= count && count <= most + rounded, `${name}: ${least} <= ${count} <= ${most}`)
        if (name.startsWith("cpu#")) switches += least
        else if (least === most) assert.closeTo(count, least, rounded, name)
      }
      assert.isAbove(switches, 100)
      assert.isTrue([...last.keys()].some((name) => name.startsWith("SCX_EV_")))
    }).pipe(Effect.scoped, Effect.provide(HostLive)), 300_000)

  if (matrix.length === 0) it.skip(`breaks no rule in ${SECONDS} seconds of load: \`npm run matrix\` runs them`)
  else {
    it.live(
      `breaks no rule in ${SECONDS} seconds of load on four CPUs, and each is judged, also on a busy host`,
      () =>
        Effect.gen(function*() {
          const vm = yield* guest(4, LOAD)
          const judge = new RuleJudge()
          let seconds = 0
          const samples: Array<Sample> = []
          yield* Monitor.samples(vm).pipe(
            Stream.takeUntil((sample) => (seconds += sample.seconds ?? 0) >= SECONDS),
            Stream.runForEach((sample) => Effect.sync(() => samples.push(sample) && judge.take(sample)))
          )
          const said = judge.verdicts.map(({ outcome, rule, samples, threshold, unit, worst }) =>
            `${rule}: ${outcome}, ${worst} of ${threshold} ${unit} at most, in ${samples} samples`
          ).join("\n")
          const switches = samples.flatMap(({ cpus }) => cpus.map(({ switchesPerSecond }) => switchesPerSecond ?? 0))
          assert.isAbove(Math.max(...switches), 100, said)
          process.stdout.write(`${seconds} guest seconds, ${samples.length} samples\n${said}\n`)
          assert.deepStrictEqual(judge.verdicts.filter(({ outcome }) => outcome !== "pass"), [], said)
        }).pipe(Effect.scoped, Effect.provide(HostLive)),
      600_000
    )
  }
})
