import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { boot } from "../../src/Ktstr.ts"
import { defaultRules, Monitor } from "../../src/monitor/index.ts"
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
