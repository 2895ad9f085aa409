import { assert, describe, it } from "@effect/vitest"
import { Losses, lossesIn } from "../../src/core/Losses.ts"
import { absent, corrupted, truncated, unreadable, unsupported } from "../../src/core/Reason.ts"

describe("losses", () => {
  it("are what was there and could not be read, not what the kernel or this source does not have", () => {
    const losses = new Losses()
    for (const reason of [absent("a"), unsupported("u"), null, { kind: "empty", text: "e" } as const]) {
      losses.add(reason)
    }
    assert.deepStrictEqual([losses.count, losses.first], [0, null])
    for (const reason of [truncated("t"), unreadable("r"), corrupted("c")]) losses.add(reason, "map 1: ")
    assert.deepStrictEqual([losses.count, losses.first], [3, "map 1: truncated: t"])
  })

  it("are found wherever a document has a reason, one that is said twice once", () => {
    const gone = unreadable("page 7")
    const document = {
      sched: { tasks: corrupted("list"), queues: [{ kind: "user", problems: [gone] }] },
      problems: [gone, absent("domains")],
      finding: { kind: "unreadable", text: 3 }
    }
    const { count, first } = lossesIn(document)
    assert.deepStrictEqual([count, first], [2, "corrupted: list"])
  })
})
