import { assert, describe, it } from "@effect/vitest"
import { unreadable } from "../../src/core/Reason.ts"
import { MomentStore } from "../../src/monitor/index.ts"
import { pointsOf } from "../../src/monitor/moments/PointsOf.ts"

const moment = (name: string, bytes: number) => ({
  name,
  cause: "asked" as const,
  text: "made",
  at: "2026-11-29T11:00:00.000Z",
  pauseMillis: null,
  reading: bytes === 0 ? unreadable("made") : [new Uint8Array(bytes)]
})

describe("moments that are kept", () => {
  it("are the newest 64, in their order, with a number where the name was given before", () => {
    const store = new MomentStore()
    for (let i = 0; i < 70; i++) store.add(moment(i % 2 === 0 ? "even" : `odd${i}`, 0))
    const names = store.moments.map(({ name }) => name)
    assert.deepStrictEqual([names.length, store.dropped], [64, 6])
    assert.deepStrictEqual(names.slice(0, 3), ["even#4", "odd7", "even#5"])
    assert.deepStrictEqual(names.slice(-2), ["even#35", "odd69"])
  })

  it("have 512 MiB together; the newest is kept however large it is", () => {
    const store = new MomentStore()
    for (const name of ["a", "b", "c"]) store.add(moment(name, 2 ** 28))
    assert.deepStrictEqual([store.moments.map(({ name }) => name), store.dropped], [["b", "c"], 1])
    store.add(moment("large", 2 ** 29 + 1))
    assert.deepStrictEqual([store.moments.map(({ name }) => name), store.dropped], [["large"], 3])
  })
})

describe("the points of a series", () => {
  it("lie evenly within the middle 80 %, 100 ms apart at least, 64 at most", () => {
    assert.deepStrictEqual(pointsOf(3, 10_000), [3000, 5000, 7000])
    assert.deepStrictEqual(pointsOf(1, 1000), [500])
    assert.deepStrictEqual(pointsOf(100, 1000).length, 7)
    assert.strictEqual(pointsOf(1000, 3_600_000).length, 64)
    for (const points of [0, -1, Number.NaN]) assert.deepStrictEqual(pointsOf(points, 10_000), [])
    assert.deepStrictEqual(pointsOf(5, 0), [])
    for (const millis of [260, 1000, 77_777]) {
      const points = [0, ...pointsOf(64, millis), millis]
      for (const [i, point] of points.slice(1, -1).entries()) {
        assert.isTrue(point >= millis * 0.1 && point <= millis * 0.9, `${point} of ${millis}`)
        if (i > 0) assert.isAtLeast(point - points[i], 100 - 1e-9)
      }
    }
  })
})
