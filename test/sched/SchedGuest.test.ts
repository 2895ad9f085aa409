import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { compareSched } from "../guest/compareSched.ts"
import { HostLive } from "../support/guest.ts"
import { needsScx, needsStockScx, scx, stockScx } from "../support/scx.ts"

const check = (kernel: string) =>
  Effect.gen(function*() {
    const { domains, sched, tasks } = yield* compareSched({ kernel, cpus: 2 })
    assert.isAtLeast(tasks, 25)
    assert.strictEqual(domains, 2)
    assert.deepStrictEqual(sched.findings, [])
    assert.strictEqual(sched.time.hz, 250)
  }).pipe(Effect.provide(HostLive))

const checkScx = (kernel: string, simple: string) =>
  Effect.gen(function*() {
    const { sched, tasks } = yield* compareSched({
      kernel,
      cpus: 2,
      includes: [simple],
      before: `
        /include-files/scx_simple >/dev/null 2>&1 &
        while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done
        for n in 1 2 3; do (while :; do :; done) & done
      `
    })
    assert.isAtLeast(tasks, 15)
    assert.deepStrictEqual(sched.findings, [])
    const { dispatchQueues, scx } = sched
    if ("kind" in scx || "kind" in dispatchQueues) return assert.fail("no sched_ext")
    assert.include(scx.schedulers[0].callbacks, "enqueue")
    // three tasks that spin on two CPUs: one at least waits, in scx_simple's own queue, number 0
    const [queue, ...others] = dispatchQueues.filter(({ kind }) => kind === "user")
    assert.deepStrictEqual(others, [])
    assert.strictEqual(queue.id, 0)
    assert.deepStrictEqual(dispatchQueues.flatMap(({ problems }) => problems), [])
    const times = queue.tasks.map(({ dsq_vtime }) => Number(dsq_vtime))
    assert.deepStrictEqual(times, times.toSorted((a, b) => a - b))
    assert.isAtLeast(queue.tasks.length, 1)
  })

describe("the scheduler of a frozen guest equals what /proc and /sys printed inside it", () => {
  for (const kernel of ["6.12-cloud", "6.1-cloud", "7.3-cloud"]) {
    it.live(kernel, () => check(`debian:${kernel}`), 300_000)
  }
  for (
    const [title, needs, programs] of [
      ["6.12, whose scheduler is in variables", needsScx, scx],
      ["7.3-cloud, whose scheduler is allocated", needsStockScx, stockScx]
    ] as const
  ) {
    describe("sched_ext", () => {
      beforeEach(needs)
      it.live(
        title,
        () =>
          Effect.flatMap(programs, ({ key, scheduler }) => checkScx(key, scheduler("scx_simple"))).pipe(
            Effect.provide(HostLive)
          ),
        300_000
      )
    })
  }
})
