import { assert, describe, it } from "@effect/vitest"
import { ArrayWalk } from "../../../../src/bpf/guest/walks/ArrayWalk.ts"
import { PointerSlotWalk, type Target } from "../../../../src/bpf/guest/walks/PointerSlotWalk.ts"
import { kvaOffset, kvaPage } from "../../../../src/core/Address.ts"
import { MadeObjects, NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { hex } from "../MadeMaps.ts"

const MADE = 4

/** Four slots; 0, 2 and 3 point at objects: a length, 4 bytes of nothing, and as many bytes as the length says. */
const made = () => {
  const memory = new MadeObjects()
  const slots = memory.object(MADE * 8)
  const objects = [2, 1, 3].map((length) => {
    const object = memory.object(16)
    memory.set32(object, length)
    memory.put(object + 8n, Uint8Array.of(length, length, length))
    return object
  })
  memory.set64(slots, objects[0], 0n, objects[1], objects[2])
  const read = (target: Target) => {
    const space = memory.space
    const pointers = new ArrayWalk(space, kvaPage(slots), kvaOffset(slots), 8, MADE, undefined)
    const walk = new PointerSlotWalk(pointers, space.fork(), target)
    const found: Array<readonly [slot: number, bytes: string]> = []
    while (walk.next()) {
      const { buffer, byteOffset } = walk.valueView
      const bytes = Buffer.from(buffer, byteOffset + walk.valueAt, walk.valueLength)
      found.push([walk.keyView.getUint32(walk.keyAt, true), bytes.toString("hex")])
    }
    return [found, walk.problems.reason]
  }
  return { memory, slots, objects, read }
}
const byLength: Target = { size: 8, value: 8, length: (view, at) => view.getUint32(at, true), most: 3 }

describe("PointerSlotWalk", () => {
  it("gives what the pointers lead to by their slots, and leaves empty ones out", () => {
    const { read } = made()
    assert.deepStrictEqual(read(byLength), [[[0, "0202"], [2, "01"], [3, "030303"]], null])
    assert.deepStrictEqual(read({ size: 16, value: 0, length: 4 }), [
      [[0, "02000000"], [2, "01000000"], [3, "03000000"]],
      null
    ])
    assert.deepStrictEqual(read({ size: 16, value: 0, length: 0 })[0], [[0, ""], [2, ""], [3, ""]])
  })

  it("follows pointers in the objects", () => {
    const { memory, objects, read } = made()
    const [one, two, three] = objects
    memory.set64(one, three)
    memory.set64(two, one)
    memory.set64(three, two)
    const bytes = (object: bigint) => {
      const word = Buffer.alloc(8)
      word.writeBigUInt64LE(object)
      return word.toString("hex")
    }
    // Two steps on: from one to three to two, whose first word points at one; and so on.
    assert.deepStrictEqual(read({ follow: [0, 0], size: 8, value: 0, length: 8 }), [
      [[0, bytes(one)], [2, bytes(two)], [3, bytes(three)]],
      null
    ])
  })

  it("leaves what cannot be reached, wherever the way breaks off, and gives what is before and behind it", () => {
    const { memory, objects, read, slots } = made()
    const damaged = "entry 2: 0xffffdeadbeef0000 is not mapped"
    memory.set64(objects[0], slots)
    memory.set64(objects[1], NOWHERE)
    memory.set64(objects[2], slots)
    const through = read({ follow: [0], size: 8, value: 0, length: 0 })
    assert.deepStrictEqual(through, [[[0, ""], [3, ""]], { kind: "unreadable", text: damaged }])
    memory.set64(slots + 16n, NOWHERE)
    assert.deepStrictEqual(read({ size: 8, value: 0, length: 0 }), [[[0, ""], [3, ""]], {
      kind: "unreadable",
      text: damaged
    }])
  })

  it("leaves an object that the memory's end cuts, in its fixed part or in the rest", () => {
    const { memory, read, slots } = made()
    const end = memory.made.direct(0x20_0000 + memory.made.bytes.length)
    const reason = { kind: "unreadable", text: `entry 2: ${hex(end)} is not mapped` } as const
    memory.set64(slots + 16n, end - 4n)
    assert.deepStrictEqual(read({ size: 8, value: 0, length: 0 }), [[[0, ""], [3, ""]], reason])
    memory.set64(slots + 16n, end - 8n)
    memory.set32(end - 8n, 3)
    assert.deepStrictEqual(read(byLength), [[[0, "0202"], [3, "030303"]], reason])
  })

  it("gives the most that there can be of an object that claims more", () => {
    const { memory, objects, read } = made()
    memory.set32(objects[1], 0xffff_ffff)
    assert.deepStrictEqual(read(byLength), [[[0, "0202"], [2, "010101"], [3, "030303"]], {
      kind: "corrupted",
      text: "entry 2: has 4294967295 bytes, room for 3"
    }])
  })
})
