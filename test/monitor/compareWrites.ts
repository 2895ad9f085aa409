import { assert } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { boot } from "../../src/Ktstr.ts"
import { decodeMoment, Snapshots } from "../../src/monitor/index.ts"
import { kernelImage } from "../support/kernels.ts"

/** Let a guest change a variable: a moment comes for each change, beside others, until enough have come. */
export const compareWrites = Effect.gen(function*() {
  const kernel = yield* kernelImage("6.12")
  const vm = yield* boot({ kernel, cpus: 2, memoryMib: 192, timeout: "4 minutes" })
  const write = (values: string) =>
    vm.exec(`for n in ${values}; do echo $n > /proc/sys/kernel/panic; done; cat /proc/sys/kernel/panic`)

  yield* write("1")
  yield* Effect.scoped(Effect.gen(function*() {
    const writes = yield* Snapshots.onWrite(vm, "panic_timeout", { limit: 4 })
    yield* Effect.fork(write("2 2 3 3 -1 4 5 6 7"))
    const others = yield* Effect.fork(Effect.replicateEffect(Snapshots.now(vm, "asked"), 3))
    const moments = Chunk.toReadonlyArray(yield* Stream.runCollect(writes))
    assert.deepStrictEqual(moments.map(({ cause, name, text }) => [cause, name, text]), [
      ["write", "panic_timeout_000", "panic_timeout changed from 0x1 to 0x2"],
      ["write", "panic_timeout_001", "panic_timeout changed from 0x2 to 0x3"],
      ["write", "panic_timeout_002", "panic_timeout changed from 0x3 to 0xffffffff"],
      ["write", "panic_timeout_003", "panic_timeout changed from 0xffffffff to 0x4"],
      ["write", "panic_timeout_004", "panic_timeout changed from 0x4 to 0x5"]
    ])
    for (const moment of moments.slice(0, 4)) {
      const { reading } = yield* decodeMoment(moment)
      if ("kind" in reading || "kind" in reading.vcpus) return assert.fail("not read")
      // who wrote is right behind the write
      assert.include(reading.vcpus.map(({ place }) => place?.replace(/\+.*/, "")), "do_proc_dointvec_conv")
      assert.isAbove(moment.pauseMillis ?? 0, 0)
    }
    assert.deepStrictEqual([moments[4].pauseMillis, moments[4].reading], [null, {
      kind: "truncated",
      text: "4 moments have been taken; writes from here on are left out"
    }])
    for (const { reading } of yield* Fiber.join(others)) assert.isFalse("kind" in reading)
  }))
  assert.strictEqual((yield* write("8 9")).output, "9\n")
}).pipe(Effect.scoped)
