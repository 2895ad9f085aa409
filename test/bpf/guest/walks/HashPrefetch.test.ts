import { assert, describe, it } from "@effect/vitest"
import { HashPrefetch } from "../../../../src/bpf/guest/walks/HashPrefetch.ts"
import { kvaOffset, kvaPage } from "../../../../src/core/Address.ts"
import { GuestMemory } from "../../../../src/memory/GuestMemory.ts"
import { KernelSpace } from "../../../../src/memory/KernelSpace.ts"
import { PageTable } from "../../../../src/memory/PageTable.ts"
import { PerCpuCopies } from "../../../../src/memory/structs/PerCpuCopies.ts"
import { LOADED } from "../../../memory/MadeKernel.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeHash, u64 } from "../MadeHash.ts"

/** Memory that notes the places that are touched: looked at for one byte. The starts of pages are, to translate them. */
class TouchedMemory extends GuestMemory {
  readonly touched = new Set<number>()
  override seek(pa: number, len: number): boolean {
    const there = super.seek(pa, len)
    if (there && len === 1 && pa % 4096 !== 0) this.touched.add(pa)
    return there
  }
}

/** A chain of two elements in bucket 0, of one in bucket 2. */
const hash = () => {
  const made = new MadeHash({ type: "PERCPU_HASH", keySize: 8, valueSize: 8 })
  const elements = [1, 2, 3].map((key) => made.element(u64(key), u64(key), u64(key)))
  made.chain(0, elements.slice(0, 2))
  made.chain(2, elements.slice(2))
  const copies = elements.map((element) => {
    const pointer = made.get64(made.valueAt(element))
    return made.made.options.cpuOffsets.map((offset) => pointer + offset)
  })
  /** The places of elements and copies that a look from a bucket on touches, of those that the chains have. */
  const look = (bucket: number, bucketCount = 4) => {
    const memory = new TouchedMemory([{ start: LOADED, bytes: made.made.bytes }])
    const table = new PageTable(memory, made.made.root, made.made.options.levels)
    const space = new KernelSpace(table, kvaPage(made.made.options.directBase))
    const prefetch = new HashPrefetch(
      space,
      {
        layout: { bucketSize: 16, bucketFirst: 0, next: 0, key: 48 },
        bucketsPage: kvaPage(made.buckets),
        bucketsOffset: kvaOffset(made.buckets),
        bucketCount,
        keySize: 8,
        valueSize: 8,
        elementLimit: 100,
        end: undefined
      },
      new PerCpuCopies(space, made.made.options.cpuOffsets),
      56
    )
    prefetch.look(bucket)
    const isTouched = (address: bigint) => memory.touched.has(Number(address - made.made.options.directBase))
    return {
      end: prefetch.end,
      count: memory.touched.size,
      elements: elements.map(isTouched),
      copies: copies.map((places) => places.map(isTouched))
    }
  }
  return { made, elements, look }
}
const both = [true, true]
const none = [false, false]

describe("HashPrefetch", () => {
  it("touches the elements of the buckets that come next, and each CPU's copies", () => {
    const { look } = hash()
    assert.deepStrictEqual(look(0), { end: 4, count: 9, elements: [true, true, true], copies: [both, both, both] })
    assert.deepStrictEqual(look(1), { end: 4, count: 3, elements: [false, false, true], copies: [none, none, both] })
  })

  it("leaves to the walk what leads nowhere, and touches the others", () => {
    const { elements, look, made } = hash()
    made.set64(elements[0], NOWHERE)
    made.set64(made.valueAt(elements[0]), NOWHERE)
    assert.deepStrictEqual(look(0), { end: 4, count: 4, elements: [true, false, true], copies: [none, none, both] })
    made.set64(made.buckets, made.atTheEnd(0))
    assert.deepStrictEqual(look(0), { end: 4, count: 3, elements: [false, false, true], copies: [none, none, both] })
  })

  it("ends in a chain that is a cycle", () => {
    const { elements, look, made } = hash()
    made.set64(elements[1], elements[0])
    assert.deepStrictEqual(look(0), { end: 4, count: 9, elements: [true, true, true], copies: [both, both, both] })
  })

  it("looks at 32 buckets, and at those alone that there are", () => {
    const { look } = hash()
    assert.deepStrictEqual([look(0, 1000).end, look(32, 1000).end, look(32, 40).end], [32, 64, 40])
    assert.deepStrictEqual(look(0, 1), { end: 1, count: 6, elements: [true, true, false], copies: [both, both, none] })
  })

  it("goes on where the buckets are not mapped", () => {
    const { look } = hash()
    assert.deepStrictEqual(look(2 ** 20, 2 ** 21), {
      end: 2 ** 20 + 32,
      count: 0,
      elements: [false, false, false],
      copies: [none, none, none]
    })
  })
})
