import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { kvaOffset, kvaPage } from "../../src/core/Address.ts"
import { findDirectMap } from "../../src/memory/arch/PageTable.ts"
import { X86PageTable } from "../../src/memory/arch/X86PageTable.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { KernelSpace, pointerOffset, pointerPage, READ_LIMIT, WINDOW_LIMIT } from "../../src/memory/KernelSpace.ts"
import { LOADED, MadeKernel } from "./MadeKernel.ts"

const VMALLOC = 0xffff_c900_0000_0000n

/** Three vmalloc pages over physical pages 40, 42, 41, each filled with its own number; `cuts` are seams of the memory. */
const made = (cuts: ReadonlyArray<number> = []) => {
  const kernel = new MadeKernel()
  for (const [i, page] of [40, 42, 41].entries()) {
    kernel.bytes.fill(page, page * 4096, (page + 1) * 4096)
    kernel.map(VMALLOC + BigInt(i * 4096), LOADED + page * 4096)
  }
  const edges = [0, ...cuts, kernel.bytes.length]
  const memory = new GuestMemory(
    edges.slice(1).map((end, i) => ({ start: LOADED + edges[i], bytes: kernel.bytes.subarray(edges[i], end) })),
    { writable: true }
  )
  const table = new X86PageTable(memory, kernel.root, 4)
  return { kernel, memory, space: new KernelSpace(table, findDirectMap(table)) }
}

describe("KernelSpace", () => {
  it("borrows what is in one piece and gathers what is not", () => {
    const { kernel, space } = made()
    assert.isTrue(space.window(kvaPage(VMALLOC), 100, 8))
    assert.strictEqual(space.view.buffer, kernel.bytes.buffer)
    assert.strictEqual(space.at, 40 * 4096 + 100)
    assert.isTrue(space.window(kvaPage(VMALLOC), 4090, 12))
    assert.notStrictEqual(space.view.buffer, kernel.bytes.buffer)
    assert.strictEqual(space.view.getUint8(space.at + 5), 40)
    assert.strictEqual(space.view.getUint8(space.at + 6), 42)
    assert.isTrue(space.window(kvaPage(kernel.direct(LOADED)), 0, 32 * 4096))
    assert.strictEqual(space.view.buffer, kernel.bytes.buffer)
  })

  it("leaves its window as it is while a fork reads, and forgets translations together with it", () => {
    const { kernel, space } = made()
    const fork = space.fork()
    assert.isTrue(space.window(kvaPage(VMALLOC), 0, 4))
    const { at, view } = space
    assert.isTrue(fork.window(kvaPage(VMALLOC) + 1, 0, 4))
    assert.deepStrictEqual([space.view === view, space.at, fork.at], [true, at, 42 * 4096])
    assert.strictEqual(fork.translatePage(kvaPage(VMALLOC)), LOADED + 40 * 4096)
    kernel.map(VMALLOC, LOADED + 43 * 4096)
    assert.strictEqual(fork.translatePage(kvaPage(VMALLOC)), LOADED + 40 * 4096)
    space.flush()
    assert.strictEqual(fork.translatePage(kvaPage(VMALLOC)), LOADED + 43 * 4096)
  })

  it("takes offsets beyond a page", () => {
    const { space } = made()
    assert.isTrue(space.window(kvaPage(VMALLOC), 2 * 4096 + 4095, 1))
    assert.strictEqual(space.view.getUint8(space.at), 41)
    assert.isFalse(space.window(kvaPage(VMALLOC), 2 ** 40, 1))
  })

  it("reads over the seam of two mappings", () => {
    const seam = 41 * 4096 + 2048
    const { kernel, space } = made([seam])
    kernel.bytes.fill(7, seam, seam + 4)
    for (const address of [VMALLOC + 2n * 4096n + 2046n, kernel.direct(LOADED + seam - 2)]) {
      assert.isTrue(space.window(kvaPage(address), kvaOffset(address), 4))
      assert.strictEqual(space.view.getUint32(space.at, true), 0x0707_2929)
      assert.deepStrictEqual([...space.read(address, 4)!], [41, 41, 7, 7])
      assert.deepStrictEqual([...space.borrow(address, 4)!], [41, 41, 7, 7])
      assert.strictEqual(space.u32(address), 0x0707_2929)
    }
  })

  it("says where and why it failed", () => {
    const { kernel, space } = made()
    assert.isFalse(space.window(kvaPage(VMALLOC), 3 * 4096 - 4, 8))
    assert.deepStrictEqual(space.fault, { address: VMALLOC + 0x3000n, reason: "NotPresent" })
    assert.strictEqual(space.faultText, "0xffffc90000003000 is not mapped")
    kernel.map(VMALLOC + 0x5000n, 0x4000_0000)
    assert.strictEqual(space.u64(VMALLOC + 0x5000n), undefined)
    assert.deepStrictEqual(space.fault, { address: VMALLOC + 0x5000n, reason: "OutOfMemory" })
    assert.strictEqual(space.read(kernel.direct(LOADED), READ_LIMIT + 1), undefined)
    assert.strictEqual(space.fault.reason, "TooLong")
    assert.isFalse(space.window(kvaPage(VMALLOC), 0, WINDOW_LIMIT + 1))
  })

  it("ends at the top of the address space", () => {
    const { space } = made()
    assert.strictEqual(space.read(2n ** 64n - 4n, 8), undefined)
    assert.isFalse(space.window(2 ** 52 - 1, 4092, 8))
    assert.isFalse(space.window(2 ** 53, 0, 8))
    assert.strictEqual(space.u32(0n), -1)
  })

  it("writes all pages or none", () => {
    const { kernel, memory, space } = made()
    assert.isTrue(space.write(VMALLOC + 4094n, Uint8Array.of(1, 2, 3, 4)))
    assert.strictEqual(memory.u16(LOADED + 41 * 4096 - 2), 0x0201)
    assert.strictEqual(memory.u16(LOADED + 42 * 4096), 0x0403)
    assert.isFalse(space.write(VMALLOC + 3n * 4096n - 2n, Uint8Array.of(9, 9, 9, 9)))
    assert.strictEqual(memory.u16(LOADED + 42 * 4096 - 2), 0x2929)
    const table = new X86PageTable(new GuestMemory([{ start: LOADED, bytes: kernel.bytes }]), kernel.root, 4)
    assert.isFalse(new KernelSpace(table, undefined).write(VMALLOC, Uint8Array.of(9)))
  })

  it("keeps translations until they are flushed", () => {
    const { kernel, space } = made()
    assert.strictEqual(space.translate(VMALLOC + 5n), LOADED + 40 * 4096 + 5)
    kernel.map(VMALLOC, LOADED + 45 * 4096)
    assert.strictEqual(space.translate(VMALLOC), LOADED + 40 * 4096)
    space.flush()
    assert.strictEqual(space.translate(VMALLOC), LOADED + 45 * 4096)
  })

  it("forgets as many translations as there were", () => {
    for (const pages of [1, 5000]) {
      const { kernel, space } = made()
      for (let page = 0; page < pages; page++) space.translatePage(kvaPage(VMALLOC) + page)
      kernel.map(VMALLOC, LOADED + 45 * 4096)
      kernel.map(VMALLOC + 4096n * BigInt(pages - 1), LOADED + 45 * 4096)
      space.flush()
      const ends = [0, pages - 1].map((page) => space.translatePage(kvaPage(VMALLOC) + page))
      assert.deepStrictEqual(ends, [LOADED + 45 * 4096, LOADED + 45 * 4096])
    }
  })

  it("takes pointers apart without bigints", () => {
    const view = new DataView(new ArrayBuffer(8))
    view.setBigUint64(0, 0xffff_c9ab_cdef_0123n, true)
    assert.strictEqual(pointerPage(view, 0), kvaPage(0xffff_c9ab_cdef_0123n))
    assert.strictEqual(pointerOffset(view, 0), 0x123)
  })

  it("gives words of bytes that end in the middle of one", () => {
    const { kernel, space } = made([40 * 4096 + 102])
    const at = 40 * 4096 + 96
    assert.isTrue(space.wordWindow(kvaPage(VMALLOC), 96, 6))
    assert.strictEqual(space.words[space.word], kernel.view.getUint32(at, true))
    assert.strictEqual(space.words[space.word + 1] & 0xffff, kernel.view.getUint16(at + 4, true))
  })

  const reads = FastCheck.array(FastCheck.tuple(FastCheck.nat(3 * 4096 + 64), FastCheck.nat(9000)))
  const cuts = FastCheck.uniqueArray(FastCheck.integer({ min: 1, max: 64 * 4096 - 1 }), { maxLength: 5 })
  it.prop("window, wordWindow, read and borrow agree, whatever the seams", [cuts, reads], ([cuts, reads]) => {
    const { kernel, space } = made(cuts.sort((a, b) => a - b))
    const model = Buffer.concat([40, 42, 41].map((page) => kernel.bytes.subarray(page * 4096, (page + 1) * 4096)))
    for (const [offset, len] of reads) {
      const inside = offset + len <= model.length
      if (!inside && len === 0) continue
      const expected = inside ? [...model.subarray(offset, offset + len)] : undefined
      const at = VMALLOC + BigInt(offset)
      assert.deepStrictEqual(optional(space.read(at, len)), expected)
      assert.deepStrictEqual(optional(space.borrow(at, len)), expected)
      const there = space.window(kvaPage(VMALLOC), offset, len)
      assert.deepStrictEqual(
        there ? [...new Uint8Array(space.view.buffer, space.view.byteOffset + space.at, len)] : undefined,
        expected
      )
      assert.strictEqual(space.wordWindow(kvaPage(VMALLOC), offset, len), there)
      if (!there) continue
      const { word, words } = space
      assert.strictEqual(words.byteOffset + word * 4, space.view.byteOffset + space.at)
      const byWords = Array.from({ length: len }, (_, i) => words[word + (i >> 2)] >>> (i % 4 * 8) & 0xff)
      assert.deepStrictEqual(byWords, expected)
    }
  })
})

const optional = (bytes: Uint8Array | undefined) => bytes === undefined ? undefined : [...bytes]
