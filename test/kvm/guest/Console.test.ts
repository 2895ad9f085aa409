import { assert, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Console } from "../../../src/kvm/guest/Console.ts"

setFlagsFromString("--expose-gc")
const gc: () => void = runInNewContext("gc")
/** Bytes that this process has use for. The memory of buffers that one collection finds unused may be counted until the next. */
const memoryInUse = (): number => {
  gc()
  gc()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

const bytes = (text: string) => new TextEncoder().encode(text)
const collect = (console: Console) => Effect.map(Stream.runCollect(console.lines), Chunk.toReadonlyArray)
const collectBytes = (console: Console) =>
  Effect.map(Stream.runCollect(console.bytes), (pieces) => Buffer.concat(Chunk.toReadonlyArray(pieces)))

describe("Console", () => {
  it.effect.prop(
    "gives the same lines however the bytes are cut",
    [FastCheck.array(FastCheck.fullUnicodeString({ maxLength: 8 })), FastCheck.integer({ min: 1, max: 5 })],
    ([pieces, size]) =>
      Effect.gen(function*() {
        const lines = pieces.map((piece) => piece.replace(/[\r\n]/g, "_"))
        const all = bytes(lines.map((line) => `${line}\r\n`).join(""))
        const console = new Console()
        for (let at = 0; at < all.length; at += size) console.push(all.subarray(at, at + size))
        console.end()
        assert.deepStrictEqual(yield* collect(console), lines)
      })
  )

  it.effect("replays the past to a late reader and goes on with the present", () =>
    Effect.gen(function*() {
      const console = new Console()
      console.push(bytes("one\ntwo\nthr"))
      const first = yield* Effect.fork(collect(console))
      yield* Effect.yieldNow()
      console.push(bytes("ee\n"))
      const second = yield* Effect.fork(collect(console))
      yield* Effect.yieldNow()
      console.push(bytes("four"))
      console.end()
      const expected = ["one", "two", "three", "four"]
      assert.deepStrictEqual(yield* Fiber.join(first), expected)
      assert.deepStrictEqual(yield* Fiber.join(second), expected)
      assert.deepStrictEqual(yield* collect(console), expected)
    }))

  it.effect("keeps the newest 1 to 2 MiB of a talkative guest, and a reader skips what is gone", () =>
    Effect.gen(function*() {
      const console = new Console()
      const line = (n: number) => `${n}`.padStart(99)
      const reader = yield* Effect.fork(collect(console))
      for (let n = 0; n < 100_000; n += 1000) {
        console.push(bytes(Array.from({ length: 1000 }, (_, k) => `${line(n + k)}\n`).join("")))
      }
      console.end()
      const kept = console.tail
      assert.isAtLeast(kept.length, 10_000)
      assert.isAtMost(kept.length, 21_000)
      assert.strictEqual(kept.at(-1), line(99_999))
      assert.deepStrictEqual(yield* Fiber.join(reader), kept)
    }))

  it.effect.prop(
    "gives the same bytes however they come",
    [FastCheck.array(FastCheck.uint8Array({ maxLength: 300_000 }), { maxLength: 6 })],
    ([pieces]) =>
      Effect.gen(function*() {
        const all = Buffer.concat(pieces)
        const console = new Console()
        const early = yield* Effect.fork(collectBytes(console))
        for (const piece of pieces) {
          console.push(piece)
          yield* Effect.yieldNow()
        }
        const late = yield* Effect.fork(collectBytes(console))
        yield* Effect.yieldNow()
        console.end()
        console.push(Uint8Array.of(1))
        assert.isTrue(all.equals(yield* Fiber.join(early)))
        assert.isTrue(all.subarray(-(2 ** 20)).equals(yield* Fiber.join(late)))
      }),
    { fastCheck: { numRuns: 20 } }
  )

  it.effect("is full while a reader of bytes is far behind, and says when it is not", () =>
    Effect.gen(function*() {
      const console = new Console()
      let room = 0
      console.onRoom = () => void room++
      console.push(new Uint8Array(2 ** 20))
      assert.isFalse(console.full, "nobody reads")
      const gate = yield* Effect.makeLatch()
      const first = yield* Effect.makeLatch()
      const reader = yield* Effect.fork(
        Stream.runFold(
          Stream.mapEffect(console.bytes, (bytes) => Effect.as(Effect.zipRight(first.open, gate.await), bytes)),
          0,
          (sum, bytes) => sum + bytes.length
        )
      )
      yield* first.await
      console.push(new Uint8Array(2 ** 19))
      assert.isFalse(console.full)
      console.push(new Uint8Array(1))
      assert.isTrue(console.full)
      const before = room
      yield* gate.open
      yield* Effect.yieldNow()
      while (console.full) yield* Effect.yieldNow()
      assert.isAbove(room, before)
      console.end()
      assert.strictEqual(yield* Fiber.join(reader), 2 ** 20 + 2 ** 19 + 1)
    }))

  it("cuts a line that never ends", () => {
    const console = new Console()
    for (let n = 0; n < 100; n++) console.push(bytes("x".repeat(50_000)))
    assert.isAtMost(console.tail.join("").length, 3 * 2 ** 20)
    assert.isAtMost(Math.max(...console.tail.map((line) => line.length)), 2 ** 16)
  })

  it("counts the line that its end finishes", () => {
    const console = new Console()
    const cost = () => console.tail.reduce((sum, line) => sum + line.length + 32, 0)
    for (let n = 0; n < 2 ** 15 - 1; n++) console.push(bytes(`${"x".repeat(32)}\n`))
    assert.strictEqual(cost(), 2 * 2 ** 20 - 64)
    console.push(bytes("y".repeat(64)))
    console.end()
    assert.isAtMost(cost(), 2 * 2 ** 20)
    assert.strictEqual(console.tail.at(-1), "y".repeat(64))
  })

  it("takes time in proportion to carriage returns, wherever they are", () => {
    // so many bytes of the worst case took minutes when they were taken off by a regular expression
    const console = new Console()
    const line = Buffer.alloc(65_002, "\r")
    line.write("x\n", 65_000)
    for (let n = 0; n < 100; n++) console.push(line)
    assert.strictEqual(console.tail.at(-1), `${"\r".repeat(65_000)}x`)
  })

  // each of these kept what was pushed, or much of it
  const floods: Readonly<Record<string, readonly [piece: string, pieces: number]>> = {
    "short lines behind many carriage returns": [`hello hello hello${"\r".repeat(60_000)}\n`, 1000],
    "lines longer than the longest": [`${"x".repeat(70_000)}\n`, 1000],
    "nothing but newlines": ["\n".repeat(60_000), 50],
    "no newline": ["A".repeat(60_000), 1000]
  }
  for (const [name, [piece, pieces]] of Object.entries(floods)) {
    it(`keeps a few MiB of a flood of ${name}`, () => {
      const console = new Console()
      const flood = (count: number) => {
        for (let n = 0; n < count; n++) console.push(Buffer.from(piece))
        return memoryInUse()
      }
      const before = flood(pieces / 10)
      assert.isBelow(flood(pieces) - before, 8_000_000)
      assert.isNotEmpty(console.tail)
    })
  }

  it.live("keeps nothing of the pieces that a reader has had", () =>
    Effect.gen(function*() {
      const console = new Console()
      const pieces = { count: 0 }
      yield* Effect.fork(Stream.runForEach(console.bytes, () => Effect.sync(() => pieces.count++)))
      const send = (count: number) =>
        Effect.gen(function*() {
          const end = pieces.count + count
          while (pieces.count < end) {
            console.push(Buffer.from("AAAA"))
            yield* Effect.yieldNow()
          }
          return memoryInUse()
        })
      const before = yield* send(5000)
      assert.isBelow((yield* send(40_000)) - before, 8_000_000)
    }))

  it("knows the last line that says something, finished or not", () => {
    const console = new Console()
    assert.isUndefined(console.lastLine)
    console.push(bytes("said\n\n  \n"))
    assert.strictEqual(console.lastLine, "said")
    console.push(bytes("saying"))
    assert.strictEqual(console.lastLine, "saying")
  })
})
