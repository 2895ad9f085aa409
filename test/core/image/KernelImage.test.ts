import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import { readFileSync } from "node:fs"
import { gzipSync } from "node:zlib"
import { FormatError } from "../../../src/core/FormatError.ts"
import { decompress, MAX_OUTPUT } from "../../../src/core/image/Decompress.ts"
import { parseElf } from "../../../src/core/image/Elf.ts"
import { releaseOf, vmlinuxOf } from "../../../src/core/image/KernelImage.ts"
import { bzImage, has, run, stockKernels, withSize } from "../samples.ts"

/**
 * A real program stands for the kernel: it has branches for the x86 filter, and several chunks and blocks. The end does
 * not compress.
 */
const code = readFileSync("/usr/bin/qemu-system-x86_64").subarray(0, 10 * 2 ** 20)
const program = Buffer.concat([code, gzipSync(code.subarray(0, 2 ** 20))])

const xz = (...options: ReadonlyArray<string>) => run("xz", ["-T1", "-c", ...options], program)

/** Each format as the kernel's build makes it (scripts/Makefile.lib, v6.12), and options it could be given. */
const payloads: ReadonlyArray<readonly [name: string, make: () => Uint8Array]> = [
  ["gzip", () => gzipSync(program)],
  ["zstd from a pipe", () => withSize(run("zstd", ["-3", "-c"], program), program.length)],
  [
    "zstd with its size in the header",
    () => withSize(run("zstd", ["-3", "-c", `--stream-size=${program.length}`], program), program.length)
  ],
  ["lz4, legacy", () => withSize(run("lz4", ["-l", "-c", "-9"], program), program.length)],
  [
    "xz with the x86 filter",
    () => withSize(xz("--check=crc32", "--x86", "--lzma2=preset=1,dict=128MiB"), program.length)
  ],
  [
    "xz of several blocks with the x86 filter",
    () => withSize(xz("--check=crc32", "--block-size=3MiB", "--x86", "--lzma2=preset=0"), program.length)
  ],
  [
    "xz of blocks that say their sizes",
    () => withSize(run("xz", ["-T2", "-0", "--block-size=4MiB", "-c"], program), program.length)
  ],
  [
    "xz with other literal and position bits",
    () => withSize(xz("--check=none", "--lzma2=preset=0,lc=1,lp=3,pb=0"), program.length)
  ],
  ["xz with another check", () => withSize(xz("--check=sha256", "-0"), program.length)]
]

if (stockKernels().length === 0) process.stderr.write("skipping stock kernels: none in /boot or the kernel cache\n")

describe("vmlinuxOf", () => {
  for (const [name, make] of payloads) {
    it.effect(`unpacks ${name}`, () =>
      Effect.gen(function*() {
        const vmlinux = yield* vmlinuxOf(bzImage(make()), "bzImage")
        assert.strictEqual(Buffer.compare(vmlinux, program), 0)
      }))
  }

  it.effect("gives a plain vmlinux back", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* vmlinuxOf(program, "vmlinux"), program)
    }))

  it.each(stockKernels())(
    "finds the kernel with its BTF in %s",
    (path) =>
      Effect.runPromise(Effect.gen(function*() {
        const bytes = readFileSync(path)
        const elf = parseElf(yield* vmlinuxOf(bytes, path), path)
        assert.isAbove(elf.section(".BTF")?.size ?? 0, 2 ** 20)
        assert.deepStrictEqual(releaseOf(bytes, path), releaseOf(elf.bytes, path))
      }))
  )

  const failures: ReadonlyArray<readonly [name: string, make: () => Uint8Array, message: RegExp]> = [
    ["a text", () => Buffer.from("#!/bin/sh\necho no kernel"), /^k: kernel image at byte 0: expected a bzImage .* or/],
    ["half an image", () => bzImage(gzipSync(program)).subarray(0, 2 ** 20), /expected a payload .*the file is trunc/],
    ["a bzip2 payload", () => bzImage(Buffer.from("BZh91AY&SY.......")), /expected gzip, zstd, .*, found bzip2/],
    ["a payload that is no ELF", () => bzImage(gzipSync(Buffer.alloc(99))), /expected an ELF file as its payload/],
    ["an old boot protocol", () => Buffer.from(bzImage(gzipSync(program))).fill(0, 0x206, 0x208), /boot protocol 2.08/],
    ["a claim of 4 GiB", () => bzImage(withSize(run("zstd", ["-c"], program), 2 ** 32 - 1)), /at most 536870912 bytes/]
  ]
  for (const [name, make, message] of failures) {
    it.effect(`fails for ${name}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(vmlinuxOf(make(), "k"))
        assert.instanceOf(error, FormatError)
        assert.match(error.message, message)
      }))
  }

  it.effect("can be interrupted while it unpacks", () =>
    Effect.gen(function*() {
      const image = bzImage(withSize(xz("--check=crc32", "--lzma2=preset=0"), program.length))
      const fiber = yield* Effect.fork(vmlinuxOf(image, "k"))
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      const start = performance.now()
      yield* Fiber.interrupt(fiber)
      assert.isBelow(performance.now() - start, 1000)
    }))
})

describe("releaseOf", () => {
  it("reads the release in a bzImage's header, of which 64 KiB are enough", () => {
    const image = bzImage(gzipSync(program), "6.12.117+deb12-cloud-amd64").subarray(0, 2 ** 16)
    assert.deepStrictEqual(releaseOf(image, "k"), Either.right("6.12.117+deb12-cloud-amd64"))
  })

  it("fails for a header whose string lies outside", () => {
    const image = bzImage(gzipSync(Buffer.alloc(1)))
    new DataView(image.buffer).setUint16(0x20e, 0xffff, true)
    assert.isTrue(Either.isLeft(releaseOf(image, "k")))
  })

  it("finds the banner of a vmlinux behind other text that starts alike", () => {
    const vmlinux = Buffer.concat([
      Buffer.from([0x7f, 0x45, 0x4c, 0x46]),
      Buffer.from("Linux version %s\0...Linux version 6.1.0-56 (x@y) gcc")
    ])
    assert.deepStrictEqual(releaseOf(vmlinux, "k"), Either.right("6.1.0-56"))
  })
})

describe("hostile compressed data", () => {
  const text = program.subarray(2 ** 20, 2 ** 20 + 60_000)
  const small: Record<string, Uint8Array> = {
    gzip: gzipSync(text),
    zstd: run("zstd", ["-19", "--ultra", "-c"], text),
    lz4: run("lz4", ["-l", "-c"], text),
    xz: run("xz", ["--check=crc32", "--x86", "--lzma2=preset=6", "-c"], text)
  }

  for (const [name, sound] of Object.entries(small)) {
    const outcome = (bytes: Uint8Array, size = text.length) => Effect.either(decompress(bytes, size, name))

    it.effect(`${name}: sound data of the right size decompress, one byte more or less fails`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(Buffer.from(Either.getOrThrow(yield* outcome(sound))), text)
        for (const wrong of [text.length - 1, text.length + 1, 0, MAX_OUTPUT + 1]) {
          assert.isTrue(Either.isLeft(yield* outcome(sound, wrong)), `${wrong} bytes`)
        }
      }))

    it.effect(`${name}: every truncation fails`, () =>
      Effect.gen(function*() {
        const slack = name === "xz" ? 64 : 0 // an .xz stream ends in an index, which repeats what the blocks said
        for (let length = 0; length < sound.length - slack; length += 97) {
          assert.isTrue(Either.isLeft(yield* outcome(sound.subarray(0, length))), `${length} bytes`)
        }
      }))

    it.effect.prop(
      `${name}: a changed byte is found, or (lz4 has no checksum) gives as many bytes`,
      [FastCheck.nat(sound.length - 1), FastCheck.integer({ min: 1, max: 255 })],
      ([at, change]) =>
        Effect.gen(function*() {
          const bytes = Uint8Array.from(sound)
          bytes[at] ^= change
          const result = yield* outcome(bytes)
          if (Either.isLeft(result)) return
          assert.strictEqual(result.right.length, text.length)
          if (name !== "lz4") assert.strictEqual(Buffer.compare(result.right, text), 0)
        }),
      { fastCheck: { numRuns: 200 } }
    )
  }

  it.effect("zstd: a bomb of a gigabyte in 32 kB stops at the size it should have", () =>
    Effect.gen(function*() {
      const block = [0x02, 0x00, 0x10, 0x07] // RLE, 128 KiB
      const blocks = Array<ReadonlyArray<number>>(8192).fill(block).flat()
      const bomb = Uint8Array.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, ...blocks, 0x03, 0, 0, 0])
      const before = process.memoryUsage.rss()
      assert.isTrue(Either.isLeft(yield* Effect.either(decompress(bomb, 60_000, "bomb"))))
      assert.isBelow(process.memoryUsage.rss() - before, 2 ** 27)
    }))
})

it("the tools that these tests compare with are there", () => {
  assert.deepStrictEqual(["xz", "zstd", "lz4"].filter((tool) => !has(tool)), [])
})
