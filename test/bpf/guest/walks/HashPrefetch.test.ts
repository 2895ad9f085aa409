import { assert, describe, it } from "@effect/vitest"
import { HashPrefetch } from "../../../../src/bpf/guest/walks/HashPrefetch.ts"
import { kvaOffset, kvaPage } from "../../../../src/core/Address.ts"
import { X86PageTable } from "../../../../src/memory/arch/X86PageTable.ts"
import { GuestMemory } from "../../../../src/memory/GuestMemory.ts"
import { KernelSpace } from "../../../../src/memory/KernelSpace.ts"
import { PerCpuCopies } from "../../../../src/memory/structs/PerCpuCopies.ts"
import { LOADED } from "../../../memory/MadeKernel.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeHash, u64 } from "../MadeHash.ts"

class TouchedView extends DataView<ArrayBufferLike> {
  readonly touched = new Set<number>()
  override getUint8(at: number): number {
    this.touched.add(LOADED + at)
    return super.getUint8(at)
  }
}

/** Memory that notes the places that are touched: of which single bytes are read. */
class TouchedMemory extends GuestMemory {
  private readonly touchedView: TouchedView

  constructor(bytes: Uint8Array) {
    super([{ start: LOADED, bytes }])
    this.view = this.touchedView = new TouchedView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get touched(): Set<number> {
    return this.touchedView.touched
  }

  override seek(pa: number, len: number): boolean {
    const there = super.seek(pa, len)
    this.view = this.touchedView
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
  const looked = (bucket: number, bucketCount: number, elementBytes: number) => {
    const memory = new TouchedMemory(made.made.bytes)
    const table = new X86PageTable(memory, made.made.root, made.made.options.levels)
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
      elementBytes,
      new PerCpuCopies(space, made.made.options.cpuOffsets),
      56
    )
    prefetch.look(bucket)
    const isTouched = (address: bigint) => memory.touched.has(Number(address - made.made.options.directBase))
    return { end: prefetch.end, count: memory.touched.size, isTouched }
  }
  const look = (bucket: number, bucketCount = 4) => {
    const { count, end, isTouched } = looked(bucket, bucketCount, 64)
    return { end, count, elements: elements.map(isTouched), copies: copies.map((places) => places.map(isTouched)) }
  }
  /** Where the element of bucket 2 is touched, counted from its start. */
  const lines = (elementBytes: number) => {
    const { isTouched } = looked(2, 4, elementBytes)
    return [0, 64, 128, 192, 256, 320].filter((line) => isTouched(elements[2] + BigInt(line)))
  }
  return { made, elements, look, lines }
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

  it("looks at 64 buckets, and at those alone that there are", () => {
    const { look } = hash()
    assert.deepStrictEqual([look(0, 1000).end, look(64, 1000).end, look(64, 70).end], [64, 128, 70])
    assert.deepStrictEqual(look(0, 1), { end: 1, count: 6, elements: [true, true, false], copies: [both, both, none] })
  })

  it("touches the lines of an element, of a long one the first four", () => {
    const { lines } = hash()
    assert.deepStrictEqual(lines(129), [0, 64, 128])
    assert.deepStrictEqual(lines(4000), [0, 64, 128, 192])
  })

  it("goes on where the buckets are not mapped", () => {
    const { look } = hash()
    assert.deepStrictEqual(look(2 ** 20, 2 ** 21), {
      end: 2 ** 20 + 64,
      count: 0,
      elements: [false, false, false],
      copies: [none, none, none]
    })
  })
})
