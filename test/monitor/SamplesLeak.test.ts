import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { readdirSync } from "node:fs"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { boot } from "../../src/Ktstr.ts"
import { Monitor } from "../../src/monitor/index.ts"
import { HostLive } from "../support/guest.ts"
import { kernelImage } from "../support/kernels.ts"

/** KTSTR_SAMPLES=10000 takes as many. */
const SAMPLES = Number(process.env["KTSTR_SAMPLES"] ?? 2000)

/** Samples after which everything that is made once has been made. */
const WARM = SAMPLES / 4

setFlagsFromString("--expose-gc")
const collect: () => void = runInNewContext("gc")

/** Bytes that are alive, on the heap and beside it, and open descriptors. */
const held = () => {
  collect()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return { bytes: heapUsed + arrayBuffers, descriptors: readdirSync("/proc/self/fd").length }
}

describe("samples of a running guest", () => {
  it.live(
    "leave nothing behind: neither memory, of which one takes more than a KiB, nor descriptors",
    () =>
      Effect.gen(function*() {
        const kernel = yield* kernelImage("6.12")
        const vm = yield* boot({ kernel, cpus: 4, memoryMib: 192, timeout: "4 minutes" })
        let taken = 0
        let warm = held()
        yield* Stream.runForEach(Stream.take(Monitor.samples(vm, { every: 1 }), SAMPLES), (sample) =>
          Effect.sync(() => {
            assert.strictEqual(sample.cpus.length, 4)
            if (++taken === WARM) warm = held()
          }))
        const end = held()
        assert.strictEqual(taken, SAMPLES)
        const note = `${JSON.stringify(warm)} after ${WARM}, ${JSON.stringify(end)} after ${SAMPLES}`
        assert.strictEqual(end.descriptors, warm.descriptors, note)
        assert.isBelow(end.bytes - warm.bytes, 2 ** 20, note)
      }).pipe(Effect.scoped, Effect.provide(HostLive)),
    120_000 + SAMPLES * 30
  )
})
