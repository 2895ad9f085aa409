import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { copyWhile } from "../../../src/cli/terminal/copyWhile.ts"

setFlagsFromString("--expose-gc")
const gc: () => void = runInNewContext("gc")

it.live("copies in constant memory, however many pieces there are", () =>
  Effect.gen(function*() {
    const inUse: Array<number> = []
    let pieces = 0
    const measured = Effect.sync(() => {
      if (++pieces % 10_000 === 0) {
        gc()
        inUse.push(process.memoryUsage().heapUsed)
      }
      return true
    })
    // as the console's, each piece is a turn of its own
    const source = Stream.take(Stream.repeatEffect(Effect.as(Effect.yieldNow(), "AAAA")), 60_000)
    assert.isTrue(yield* copyWhile(source, () => measured))
    assert.strictEqual(pieces, 60_000)
    assert.isBelow(inUse[5] - inUse[0], 5_000_000)
  }))

it.effect("stops at the first piece that is not taken, and hands an error on", () =>
  Effect.gen(function*() {
    const seen: Array<number> = []
    const until = (last: number) => (piece: number) => Effect.sync(() => seen.push(piece) < last)
    assert.isFalse(yield* copyWhile(Stream.range(1, 5), until(3)))
    assert.deepStrictEqual(seen, [1, 2, 3])
    assert.strictEqual(yield* Effect.flip(copyWhile(Stream.range(1, 5), () => Effect.fail("full"))), "full")
  }))
