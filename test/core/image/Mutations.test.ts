import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { Buffer } from "node:buffer"
import { gzipSync } from "node:zlib"
import { FormatError, parsing } from "../../../src/core/FormatError.ts"
import { buildIdOf } from "../../../src/core/image/BuildId.ts"
import { parseElf } from "../../../src/core/image/Elf.ts"
import { releaseOf, vmlinuxOf } from "../../../src/core/image/KernelImage.ts"
import { madeElf } from "../../memory/MadeElf.ts"
import { random } from "../../support/damage.ts"
import { mutate, MUTATIONS, MUTATIONS_TIMEOUT, peakMib, tryAll, wordsFrom } from "../../support/mutations.ts"

/** More than the peak before, in MiB: one output of `MAX_OUTPUT`, and blocks of lz4 that are not collected yet. */
const MOST_GROWTH = 768

/** Each is decompressed. */
const IMAGES = Math.ceil(MUTATIONS / 4)

const DT = { needed: 1n, strtab: 5n, rpath: 15n, runpath: 29n }

/** A program that asks for a linker and a library, with symbols and a search path. */
const program = (runpath: string): Buffer => {
  const strings = Buffer.from(`\0libc.so.6\0${runpath}\0`, "latin1")
  const entries = [[DT.needed, 1n], [DT.strtab, 0x1000n], [DT.rpath, 1n], [DT.runpath, 11n], [0n, 0n]].flat()
  return madeElf([
    { type: 1, vaddr: 0x1000n, paddr: 0x1000, bytes: strings },
    { type: 2, paddr: 0x2000, bytes: new Uint8Array(BigUint64Array.from(entries).buffer) },
    { type: 3, paddr: 0, bytes: Buffer.from("/lib64/ld-linux-x86-64.so.2\0") }
  ], { type: 2, symbols: new Map([["_stext", 1n], ["linux_banner", 2n]]) })
}
const golden = program("/opt/lib:/usr/lib")
const sections = Number(golden.readBigUInt64LE(40))
const words = [
  ...wordsFrom(16, 2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2),
  ...[0, 1, 2].flatMap((index) => wordsFrom(64 + 56 * index, 4, 4, 8, 8, 8, 8, 8, 8)),
  ...wordsFrom(64 + 3 * 56 + 29, 8, 8, 8, 8, 8, 8, 8, 8),
  ...[0, 1, 2].flatMap((index) => wordsFrom(sections + 64 * index, 4, 4, 8, 8, 8, 8, 4, 4, 8, 8))
]

/** All that is asked of programs and of a kernel. */
const readElf = (bytes: Uint8Array): number => {
  const elf = parseElf(bytes, "mutated")
  const { libraries, rpath, runpath } = elf.needed()
  for (const section of elf.sections) if (section.size < 2 ** 20) elf.data(section)
  return elf.symbols().size + libraries.length + rpath.length + runpath.length + (elf.interpreter?.length ?? 0)
    + (buildIdOf(elf)?.length ?? 0)
}

/** lz4's legacy frame with one block that is literals and nothing else, and the size behind it. */
const lz4 = (bytes: Uint8Array): Buffer => {
  const more = bytes.length - 15
  const lengths = [...Array.from({ length: Math.floor(more / 255) }, () => 255), more % 255]
  const block = Buffer.concat([Uint8Array.of(0xf0, ...lengths), bytes])
  return Buffer.concat([
    Uint8Array.of(0x02, 0x21, 0x4c, 0x18),
    new Uint8Array(Uint32Array.of(block.length).buffer),
    block,
    new Uint8Array(Uint32Array.of(bytes.length).buffer)
  ])
}

/** A bzImage with this payload; Documentation/arch/x86/boot.rst, v6.12. */
const bzImage = (payload: Uint8Array): Buffer => {
  const setup = Buffer.alloc(1024)
  setup[0x1f1] = 1
  setup.write("HdrS", 0x202, "latin1")
  setup.writeUInt16LE(0x20f, 0x206)
  setup.writeUInt16LE(0x100, 0x20e)
  setup.write("6.12.0-made (someone)", 0x300, "latin1")
  setup.writeUInt32LE(payload.length, 0x24c)
  return Buffer.concat([setup, payload])
}
const images = [bzImage(gzipSync(golden)), bzImage(lz4(golden))]
const imageWords = images.map((image) => [
  ...wordsFrom(0x1f1, 1),
  ...wordsFrom(0x202, 4, 2),
  ...wordsFrom(0x20e, 2),
  ...wordsFrom(0x248, 4, 4),
  ...wordsFrom(1024, 2, 2, 4, 1, 1, 1, 1, 1, 1, 1, 1),
  ...wordsFrom(image.length - 8, 4, 4)
])

it("an error about a section has its name escaped", () => {
  const found = parsing(() => readElf(mutate(golden, words, random(927))))
  assert.match(Either.isLeft(found) ? found.left.message : "", /^[ -~]*of section [ -~]*\\u00[ -~]*inside the file$/)
})

describe(`${MUTATIONS} mutations are refused or read, whatever they say:`, () => {
  it("an ELF program", async () => {
    const before = peakMib()
    const read = await tryAll((pick) => {
      const found = parsing(() => readElf(mutate(golden, words, pick)))
      return Either.match(found, {
        onLeft: (error) => {
          assert.instanceOf(error, FormatError)
          // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
          assert.notMatch(error.message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
          return false
        },
        onRight: () => true
      })
    })
    assert.isAbove(read, MUTATIONS / 10, "enough of them can be read")
    assert.isBelow(peakMib() - before, MOST_GROWTH, "MiB more than before")
  }, MUTATIONS_TIMEOUT)

  it(`a kernel image (${IMAGES})`, async () => {
    for (const image of images) {
      assert.deepStrictEqual(releaseOf(image, "made"), Either.right("6.12.0-made"))
      const whole = await Effect.runPromise(vmlinuxOf(image, "made"))
      assert.strictEqual(Buffer.compare(whole, golden), 0)
    }
    const before = peakMib()
    const read = await tryAll(async (pick, seed) => {
      const bytes = mutate(images[seed % 2], imageWords[seed % 2], pick)
      releaseOf(bytes, "mutated")
      const found = await Effect.runPromise(Effect.either(vmlinuxOf(bytes, "mutated")))
      if (Either.isLeft(found)) assert.instanceOf(found.left, FormatError)
      return Either.isRight(found)
    }, IMAGES)
    assert.isAbove(read, 0, "some of them can be read")
    assert.isBelow(peakMib() - before, MOST_GROWTH, "MiB more than before")
  }, MUTATIONS_TIMEOUT)
})

it("a search path with more parts than a call takes arguments is read whole", () => {
  const { runpath } = parseElf(program("a:".repeat(300_000)), "long").needed()
  assert.strictEqual(runpath.length, 300_000)
})
