import { assert, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { boot } from "../../src/Ktstr.ts"
import { decodeMoment, Snapshots, type TakenMoment } from "../../src/monitor/index.ts"
import { HostLive } from "../support/guest.ts"
import { kernelImage } from "../support/kernels.ts"

/** The reading of a moment that was taken. */
const readingOf = (moment: TakenMoment) =>
  Effect.map(decodeMoment(moment), ({ reading }) => "kind" in reading ? assert.fail(reading.text) : reading)

describe("moments of a running guest", () => {
  it.live(
    "are whole readings: when asked for, on a line, in a series; of one that has ended they say why not",
    () =>
      Effect.gen(function*() {
        const kernel = yield* kernelImage("6.12")
        const script = "sleep 1000000 & echo \"@pid $!\""
        const vm = yield* boot({ kernel, cpus: 2, memoryMib: 192, script, timeout: "4 minutes" })

        const asked = yield* Snapshots.now(vm, "asked", { kernel: "mine" })
        const line = yield* Snapshots.onLine(vm, "line", /^@pid \d+$/)
        assert.deepStrictEqual([asked.cause, line.cause], ["asked", "line"])
        const series = Chunk.toReadonlyArray(
          yield* Stream.runCollect(Snapshots.periodic(vm, { points: 3, over: 2000 }))
        )
        assert.deepStrictEqual(series.map(({ name }) => name), ["periodic_000", "periodic_001", "periodic_002"])
        let before = -1n
        for (const moment of [asked, line, ...series]) {
          const { maps, sched, source, vcpus } = yield* readingOf(moment)
          if ("kind" in vcpus || "kind" in sched || "kind" in sched.tasks) return assert.fail("not read")
          assert.deepInclude(source, { kind: "vm", kernel: moment === asked ? "mine" : "the guest" })
          assert.deepStrictEqual([vcpus.length, maps], [2, []])
          assert.strictEqual(sched.tasks.find(({ pid }) => `@pid ${pid}` === line.text)?.comm, "sleep")
          assert.isAbove(moment.pauseMillis ?? 0, 0)
          assert.isTrue(BigInt(sched.time.jiffies) >= before)
          before = BigInt(sched.time.jiffies)
        }
        assert.isTrue(before > 0n)

        const late = yield* Effect.fork(Stream.runCollect(Snapshots.periodic(vm, { points: 2, over: "1 hour" })))
        yield* Effect.fork(vm.exec("echo o >/proc/sysrq-trigger"))
        yield* vm.awaitExit
        const gone = yield* Snapshots.now(vm, "gone")
        for (const { pauseMillis, reading } of [gone, ...Chunk.toReadonlyArray(yield* late)]) {
          assert.deepStrictEqual([pauseMillis, "kind" in reading ? reading.kind : "read"], [null, "unreadable"])
          assert.match("kind" in reading ? reading.text : "", /^the guest has ended /)
        }
      }).pipe(Effect.scoped, Effect.provide(HostLive)),
    300_000
  )
})
