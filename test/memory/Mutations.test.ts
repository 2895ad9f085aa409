import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { deflateSync } from "node:zlib"
import { afterAll } from "vitest"
import { kvaPage } from "../../src/core/Address.ts"
import { FormatError } from "../../src/core/FormatError.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { NoBtf, NotAKernel } from "../../src/memory/Errors.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { writtenParts } from "../../src/memory/GuestMemory.ts"
import { openMemoryImage } from "../../src/memory/MemoryImage.ts"
import { mutate, MUTATIONS, MUTATIONS_TIMEOUT, peakMib, tryAll, type Word, wordsFrom } from "../support/mutations.ts"
import { BITMAPS, DESCRIPTORS, madeFlattened, madeKdump } from "./cores/MadeKdump.ts"
import { madeElf } from "./MadeElf.ts"
import { LOADED, MadeKernel } from "./MadeKernel.ts"

const directory = mkdtempSync(join(tmpdir(), "ktstr-mutated-"))
afterAll(() => rmSync(directory, { recursive: true }))

/** More than the peak before, in MiB: what a mapped file of half a MiB may make this process use. */
const MOST_GROWTH = 512

const made = new MadeKernel()
const half = made.bytes.length / 2

/** Its memory in three segments, one with zeros behind what is in the file, and notes. */
const core = madeElf([
  { type: 4, paddr: 0, bytes: Buffer.alloc(64) },
  { paddr: LOADED, bytes: made.bytes.subarray(0, half), vaddr: 0xffff_ffff_8100_0000n },
  { paddr: LOADED + half, bytes: made.bytes.subarray(half) },
  { paddr: LOADED + 2 * half, bytes: Buffer.alloc(4096), memsz: 2 ** 20 }
])
const coreWords = [
  ...wordsFrom(16, 2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2),
  ...Array.from({ length: 4 }, (_, index) => wordsFrom(64 + 56 * index, 4, 4, 8, 8, 8, 8, 8, 8)).flat()
]

const limeRange = (start: number, bytes: Uint8Array): Buffer => {
  const header = Buffer.alloc(32)
  header.write("EMiL", "latin1")
  header.writeUInt32LE(1, 4)
  header.writeBigUInt64LE(BigInt(start), 8)
  header.writeBigUInt64LE(BigInt(start + bytes.length - 1), 16)
  return Buffer.concat([header, bytes])
}
const lime = Buffer.concat([
  limeRange(0x1000, Buffer.alloc(0x1000)),
  limeRange(LOADED, made.bytes.subarray(0, half)),
  limeRange(LOADED + half, made.bytes.subarray(half))
])
const limeWords = [0, 0x1020, 0x1040 + half].flatMap((at) => wordsFrom(at, 4, 4, 8, 8, 8))

const kdump = madeKdump(
  made.bytes,
  LOADED / 4096,
  (page, at) => at % 4 === 0 ? [0, page] : at === 120 ? undefined : [1, deflateSync(page)],
  made.noteText()
)
const kdumpWords = [
  ...wordsFrom(8, 4),
  ...wordsFrom(424, 4, 4, 4, 4, 4),
  ...wordsFrom(4096, 8, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8),
  ...wordsFrom(BITMAPS, 8, 8),
  ...Array.from({ length: 32 }, (_, index) => wordsFrom(DESCRIPTORS + 72 * index, 8, 4, 4, 8)).flat()
]

const pieces = [[0, 4096], [4096, 12_288], [8192, 20_480], [20_480, kdump.length], [0, 4096]]
  .map(([from, to]) => ({ at: from, bytes: kdump.subarray(from, to) }))
const flattened = madeFlattened(pieces)
const flattenedWords = [
  ...wordsFrom(16, 8, 8),
  ...pieces.flatMap((_, index) =>
    wordsFrom(4096 + pieces.slice(0, index).reduce((sum, { bytes }) => sum + 16 + bytes.length, 0), 8, 8)
  )
]

/** The image as it is in memory from 0 on: page tables, notes and tables of symbols are what is changed. */
const raw = Buffer.concat([Buffer.alloc(LOADED), made.bytes])
const rawWords = [made.root, ...made.notePages, made.physical("page_offset_base"), made.physical("kallsyms_num_syms")]
  .flatMap((at): ReadonlyArray<Word> =>
    Array.from({ length: 64 }, (_, index) => ({ at: Math.min(at + index * 8, raw.length - 8), width: 8 }))
  )

/** Open an image, find its kernel, and look at what it says; whether there was one. */
const lookAt = (path: string) =>
  Effect.gen(function*() {
    const memory = yield* openMemoryImage(path)
    for (const region of memory.stretches()) {
      let parts = 0
      for (const [from, to] of writtenParts(region)) {
        assert.isTrue(from < to && to <= region.bytes.length)
        if (++parts === 64) break
      }
      memory.u32(region.start)
      memory.u32(region.start + region.bytes.length - 4)
    }
    const { btf, space, symbols } = yield* GuestKernel.fromMemory(memory)
    space.translatePage(kvaPage(symbols.address("_stext") ?? 0n))
    btf.idsByName("xa_node").map((id) => btf.sizeOf(id))
    return true
  }).pipe(Effect.scoped, Effect.either, Effect.provide(NativeKoffi.layer))

/** The same file for all: a new one each time would be written to disk. It does not shrink while it is mapped. */
const tried = async (golden: Uint8Array, words: ReadonlyArray<Word>): Promise<number> => {
  const path = join(directory, "image")
  const before = peakMib()
  const read = await tryAll(async (pick) => {
    const bytes = mutate(golden, words, pick)
    const fd = openSync(path, "w")
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at)
    ftruncateSync(fd, bytes.length)
    closeSync(fd)
    const found = await Effect.runPromise(lookAt(path))
    if (Either.isRight(found)) return true
    assert.isTrue(
      [FormatError, NoBtf, NotAKernel].some((kind) => found.left instanceof kind),
      String(found.left)
    )
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
    assert.notMatch(found.left.message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    return false
  })
  assert.isBelow(peakMib() - before, MOST_GROWTH, "MiB more than before")
  return read
}

describe(`${MUTATIONS} mutations are refused or read, whatever they say:`, () => {
  it("an ELF core", async () => {
    assert.isAbove(await tried(core, coreWords), MUTATIONS / 10, "enough of them still have a kernel")
  }, MUTATIONS_TIMEOUT)

  it("a LiME dump", async () => {
    assert.isAbove(await tried(lime, limeWords), MUTATIONS / 10, "enough of them still have a kernel")
  }, MUTATIONS_TIMEOUT)

  it("a kdump-compressed core", async () => {
    assert.isAbove(await tried(kdump, kdumpWords), MUTATIONS / 10, "enough of them still have a kernel")
  }, MUTATIONS_TIMEOUT)

  it("a flattened core", async () => {
    assert.isAbove(await tried(flattened, flattenedWords), MUTATIONS / 10, "enough of them still have a kernel")
  }, MUTATIONS_TIMEOUT)

  it("a raw image", async () => {
    assert.isAbove(await tried(raw, rawWords), MUTATIONS / 10, "enough of them still have a kernel")
  }, MUTATIONS_TIMEOUT)
})
