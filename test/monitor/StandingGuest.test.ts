import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { boot, freezeAndAttach } from "../../src/Ktstr.ts"
import type { Vm } from "../../src/kvm/spec/VmEngine.ts"
import { defaultRules, Monitor } from "../../src/monitor/index.ts"
import { readSched } from "../../src/sched/index.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"

/** Both CPUs are busy, so that both have a tick. Whoever attaches the program waits for all CPUs, so also for the one that it keeps. */
const STAND = `
  taskset 1 sh -c 'while :; do :; done' &
  taskset 2 sh -c 'printf standing >/proc/self/comm; while :; do :; done' &
  bpftool prog load /include-files/standing.bpf.o /sys/fs/bpf/standing autoattach; kill %1 %2`

describe("a guest in which nothing counts time any more", () => {
  beforeEach(needsStockScx)
  it.live("breaks the rule for that while its CPUs run, and not before; then it goes on", () =>
    Effect.gen(function*() {
      const { bpftool, key } = yield* stockScx
      const includes = [bpftool, ...yield* compileBpf(yield* scratch, "standing")]
      const vm = yield* boot({ kernel: key, cpus: 2, includes, timeout: "5 minutes" })
      const rules = defaultRules.filter(({ name }) => name === "standing-guest")
      // idle, its CPUs get no time: jiffies may stand for long then
      const idle = yield* Stream.runCollect(Stream.take(Monitor.samples(vm), 20))
      for (const { cpus, standsMillis } of Chunk.drop(idle, 1)) {
        assert.isBelow(standsMillis ?? assert.fail("not known"), 1000)
        for (const { vcpuMillis } of cpus) assert.isAtLeast(vcpuMillis ?? -1, 0)
      }
      const standing = yield* Effect.fork(vm.exec(STAND, { timeout: "2 minutes" }))
      const error = yield* Effect.flip(Monitor.watch(vm, rules))
      if (error._tag !== "RuleBroken") return assert.fail(error.message)
      assert.deepInclude(error, { rule: "standing-guest", threshold: 1000, unit: "ms" })
      assert.isAbove(error.worst, 1000)
      assert.deepStrictEqual([error.sample.at, error.sample.standsMillis, error.sample.seconds], [
        error.at,
        error.worst,
        null
      ])
      assert.strictEqual((yield* Fiber.join(standing)).status, 0)
    }).pipe(Effect.scoped, Effect.provide(HostLive)), 300_000)
})

/** A look at the stopped guest: its finding about a clock, the run queue of CPU 1, and whether interrupts can come there. */
const look = (vm: Vm) =>
  Effect.scoped(Effect.gen(function*() {
    const { kernel } = yield* freezeAndAttach(vm, "the guest")
    const { findings, runQueues } = readSched(kernel)
    const [, registers] = yield* (yield* vm.freeze).registers
    if ("kind" in runQueues) return assert.fail(runQueues.text)
    return {
      finding: findings.find(({ name }) => name === "clock-stands"),
      queue: runQueues.find(({ cpu }) => cpu === 1),
      interrupts: "general" in registers && (registers.general.rflags & 0x200n) !== 0n
    }
  }))

describe("a CPU whose interrupts are off for seconds", () => {
  beforeEach(needsStockScx)
  it.live("is one whose clock stands, until they are on again", () =>
    Effect.gen(function*() {
      const { bpftool, key } = yield* stockScx
      const includes = [bpftool, ...yield* compileBpf(yield* scratch, "standing")]
      // else the clocksource's watchdog on the other CPU waits for this one, with interrupts off too
      const vm = yield* boot({ kernel: key, cpus: 2, includes, cmdline: "tsc=nowatchdog", timeout: "5 minutes" })
      const before = yield* look(vm)
      assert.isUndefined(before.finding)
      const standing = yield* Effect.fork(vm.exec(STAND, { timeout: "2 minutes" }))
      // a guest that is stopped again and again gets nowhere
      const seldom = Effect.delay(look(vm), "500 millis")
      const { finding, interrupts, queue } = yield* Effect.repeat(seldom, {
        until: ({ finding }) => finding !== undefined
      })
      assert.deepInclude(finding, { cpu: 1, threshold: 1000, unit: "ms" })
      assert.isAbove(finding?.measured ?? 0, 1000)
      assert.isBelow(finding?.measured ?? Infinity, 11_000)
      assert.strictEqual(finding?.measured, Math.round(Number(queue?.timerLateNanos) / 1e6))
      assert.deepStrictEqual([queue?.curr?.comm, interrupts], ["standing", false])
      const after = yield* Effect.repeat(seldom, { until: ({ finding }) => finding === undefined })
      assert.isBelow(Number(after.queue?.timerLateNanos), 1e9)
      assert.strictEqual((yield* Fiber.join(standing)).status, 0)
    }).pipe(Effect.scoped, Effect.provide(HostLive)), 300_000)
})
