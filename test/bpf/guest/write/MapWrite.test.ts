import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { type MapAssignment, writeMaps } from "../../../../src/bpf/guest/write/MapWrite.ts"
import { GuestKernel } from "../../../../src/memory/GuestKernel.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeHash, u32, u64 } from "../MadeHash.ts"
import { MadeMaps } from "../MadeMaps.ts"

/** What was written to the made map, or why nothing was. */
const write = (made: MadeMaps, assignment: MapAssignment, consistency: "frozen" | "racing" = "frozen") =>
  Effect.runSync(Effect.either(
    Effect.provideService(writeMaps([{ map: "made", ...assignment }], consistency), GuestKernel, made.kernel)
  )).pipe(Either.match({
    onLeft: ({ why }) => why,
    onRight: (written) => written.map(({ after, before, cpu }) => [cpu, before, after])
  }))

const array = (type: "ARRAY" | "PERCPU_ARRAY", flags = 0) => {
  const made = new MadeMaps()
  const address = made.map({ type, keySize: 4, valueSize: 4, maxEntries: 3, flags, bytes: 88 + 3 * 8 })
  made.set32(address + 72n, 8)
  made.set32(address + 76n, 3)
  return { made, address, slot: (index: number) => address + BigInt(88 + index * 8) }
}

describe("writing a value of a per-CPU hash", () => {
  it.each(["behind", "rounded"] as const)("follows the pointer that stands %s the key of 4 bytes", (pointers) => {
    const made = new MadeHash({ type: "PERCPU_HASH", keySize: 4, valueSize: 8 }, pointers)
    made.chain(2, [5, 6, 7].map((key) => made.element(u32(key), u64(key * 10), u64(key * 10 + 1))))
    const assignment = { key: "06000000", value: "2a00000000000000" }
    assert.deepStrictEqual(write(made, { ...assignment, cpu: 1 }), [[1, "3d00000000000000", "2a00000000000000"]])
    const { entries, problem } = made.read()
    assert.isNull(problem)
    assert.deepStrictEqual(entries, [
      ["05000000", ["3200000000000000", "3300000000000000"]],
      ["06000000", ["3c00000000000000", "2a00000000000000"]],
      ["07000000", ["4600000000000000", "4700000000000000"]]
    ])
    assert.strictEqual(write(made, assignment), "each CPU has a value of its own: say which CPU, or all")
    assert.strictEqual(write(made, { ...assignment, cpu: 2 }), "CPU 2 is not possible here")
    assert.strictEqual((write(made, { ...assignment, cpu: "all" }) as ReadonlyArray<unknown>).length, 2)
  })

  it("does not follow a null pointer", () => {
    const made = new MadeHash({ type: "PERCPU_HASH", keySize: 8, valueSize: 8 })
    const element = made.element(u64(1), u64(2), u64(3))
    made.chain(0, [element])
    made.set64(made.valueAt(element), 0n)
    const why = write(made, { key: "0100000000000000", value: "0000000000000000", cpu: "all" })
    assert.strictEqual(why, "its per-CPU pointer is null")
  })
})

describe("writing a value of a hash", () => {
  const hash = () => {
    const made = new MadeHash({ type: "HASH", keySize: 4, valueSize: 4 })
    const elements = [5, 6, 7].map((key) => made.element(u32(key), u32(key * 10)))
    made.chain(1, elements)
    return { made, elements }
  }

  it("writes to the element with the key, and only there", () => {
    const { made } = hash()
    assert.deepStrictEqual(write(made, { key: "07000000", value: "2a000000" }), [[null, "46000000", "2a000000"]])
    assert.deepStrictEqual(made.read().entries, [["05000000", "32000000"], ["06000000", "3c000000"], [
      "07000000",
      "2a000000"
    ]])
    assert.strictEqual(write(made, { key: "08000000", value: "2a000000" }), "it has no such key")
    assert.strictEqual(
      write(made, { key: "07000000", value: "2a000000" }, "racing"),
      "the guest runs, and may give an element of such a map to another key: freeze it first"
    )
  })

  it("says that a key may be where it cannot read", () => {
    const { elements, made } = hash()
    made.set64(elements[2], elements[0])
    assert.strictEqual(
      write(made, { key: "09000000", value: "2a000000" }),
      "the key was not found, but not every entry can be read: bucket 1: its chain is a cycle"
    )
    made.set64(elements[0], NOWHERE)
    assert.match(
      String(write(made, { key: "07000000", value: "2a000000" })),
      /^the key was not found, but not every entry can be read: bucket 1: element: 0xffffdeadbeef0000 is not mapped$/
    )
  })

  it("does not write to a map that contradicts itself", () => {
    const { made } = hash()
    made.set32(made.address + 84n, 72)
    assert.match(String(write(made, { key: "07000000", value: "2a000000" })), /^corrupted: 4 elements, keys of 4 bytes/)
  })
})

describe("writing an element of an array", () => {
  it("writes to that element, also while the guest runs", () => {
    const { made, slot } = array("ARRAY")
    assert.deepStrictEqual(write(made, { key: 2, value: "2a000000" }, "racing"), [[null, "00000000", "2a000000"]])
    assert.strictEqual(made.get64(slot(2)), 0x2an)
    assert.strictEqual(write(made, { key: 3, value: "2a000000" }), "it has elements 0 to 2, not 3")
    assert.strictEqual(write(made, { value: "2a000000" }), "it has 3 elements: give a key")
  })

  it("writes to one CPU's copy, or all", () => {
    const { made, slot } = array("PERCPU_ARRAY")
    const { copies, pointer } = made.perCpu(8)
    made.set64(slot(1), pointer)
    write(made, { key: 1, value: "2a000000", cpu: 1 })
    assert.deepStrictEqual(copies.map((copy) => made.get64(copy)), [0n, 0x2an])
    assert.strictEqual(write(made, { key: 0, value: "2a000000", cpu: 1 }), "its per-CPU pointer is null")
  })

  it("leaves what the verifier may have taken for a constant", () => {
    assert.match(
      String(write(array("ARRAY", 1 << 7).made, { key: 0, value: "2a000000" })),
      /^it is read-only for programs/
    )
    const { address, made } = array("ARRAY")
    made.put(address + 36n, Uint8Array.of(1))
    assert.match(String(write(made, { key: 0, value: "2a000000" })), /^it is frozen \(BPF_MAP_FREEZE\)/)
  })

  it("says when there is no such map, or several, or none of that type can be written", () => {
    const { made } = array("ARRAY")
    assert.strictEqual(write(made, { map: "other", value: "00" }), "no such map")
    made.map({ type: "ARRAY", keySize: 4, valueSize: 4, maxEntries: 1, bytes: 88 })
    assert.strictEqual(write(made, { key: 0, value: "00000000" }), "ambiguous: 1 (made), 2 (made); give the id")
    const queue = new MadeMaps()
    const address = queue.map({ type: "QUEUE", keySize: 0, valueSize: 4, maxEntries: 3, bytes: 88 + 16 })
    queue.set32(address + 80n, 4)
    assert.strictEqual(write(queue, { value: "00000000" }), "writing maps of type queue is not supported")
  })
})
