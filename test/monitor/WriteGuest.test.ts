import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { boot } from "../../src/Ktstr.ts"
import { decodeMoment, Snapshots } from "../../src/monitor/index.ts"
import { HostLive } from "../support/guest.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"
import { compareWrites } from "./compareWrites.ts"

describe("moments of a guest that changes a variable", () => {
  it.live(
    "come once for each change, right after it, until enough have come; beside others, and not after the watch",
    () => Effect.provide(compareWrites, HostLive),
    300_000
  )

  describe("of sched_ext", () => {
    beforeEach(needsStockScx)
    it.live("come when a scheduler attaches, and when it has ended", () =>
      Effect.gen(function*() {
        const { key, scheduler } = yield* stockScx
        const vm = yield* boot({ kernel: key, cpus: 2, includes: [scheduler("scx_simple")], timeout: "4 minutes" })
        const writes = yield* Snapshots.onWrite(vm, "scx_root")
        const script = `/include-files/scx_simple >/dev/null 2>&1 &
          until [ "$(cat /sys/kernel/sched_ext/state)" = enabled ]; do sleep 0.1; done
          kill -INT $!; wait`
        yield* Effect.fork(vm.exec(script, { timeout: "3 minutes" }))
        const moments = Chunk.toReadonlyArray(yield* Stream.runCollect(Stream.take(writes, 2)))
        const [attached, ended] = moments.map(({ text }) => /^scx_root changed from (0x\w+) to (0x\w+)$/.exec(text))
        assert.deepStrictEqual([attached?.[1], ended?.[2]], ["0x0", "0x0"])
        assert.strictEqual(attached?.[2], ended?.[1])
        const states = yield* Effect.forEach(moments, (moment) =>
          Effect.map(decodeMoment(moment), ({ reading }) => {
            if ("kind" in reading || "kind" in reading.sched) return assert.fail("not read")
            const { scx } = reading.sched
            return "kind" in scx ? assert.fail(scx.text) : [scx.state, scx.schedulers.map(({ name }) => name)]
          }))
        assert.deepStrictEqual(states, [["enabling", ["simple"]], ["disabling", []]])
      }).pipe(Effect.scoped, Effect.provide(HostLive)), 300_000)
  })
})
