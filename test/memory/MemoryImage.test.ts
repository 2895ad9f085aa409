import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { writtenParts } from "../../src/memory/GuestMemory.ts"
import { openMemoryImage } from "../../src/memory/MemoryImage.ts"
import { madeElf } from "./MadeElf.ts"
import { LOADED, MadeKernel } from "./MadeKernel.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-image-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)
/** A file of these bytes that is removed with the scope. */
const file = (bytes: Uint8Array | string) =>
  Effect.map(folder, (path) => {
    writeFileSync(join(path, "image"), bytes)
    return join(path, "image")
  })
/** A sparse file of `size` bytes with these parts. */
const sparse = (size: number, parts: ReadonlyArray<readonly [at: number, bytes: Uint8Array]>) =>
  Effect.map(folder, (path) => {
    const fd = openSync(join(path, "image"), "w")
    ftruncateSync(fd, size)
    for (const [at, bytes] of parts) writeSync(fd, bytes, 0, bytes.length, at)
    closeSync(fd)
    return join(path, "image")
  })
const layoutOf = (path: string) =>
  Effect.map(openMemoryImage(path), (memory) => memory.regions.map(({ bytes, start }) => [start, bytes.length]))
const mapped = (path: string) => readFileSync("/proc/self/maps", "latin1").includes(path)
const MIB = 2 ** 20
const GIB = 2 ** 30

/** A kernel whose direct map covers memory that is split at `split`, with `above` bytes from 4 GiB on. */
const bigKernel = (split: number, above: number) => {
  const made = new MadeKernel({ directBase: 0xffff_9000_0000_0000n })
  const direct = made.options.directBase
  for (let pa = 2 * LOADED; pa < split; pa += 2 * MIB) {
    const low = pa >= GIB
    if (low && pa % GIB === 0 && pa + GIB <= split) made.map(direct + BigInt(pa), pa, 3)
    else if (!low || pa >= split - (split % GIB)) made.map(direct + BigInt(pa), pa, 2)
  }
  for (let pa = 4 * GIB; pa < 4 * GIB + above; pa += 2 * MIB) made.map(direct + BigInt(pa), pa, 2)
  return made
}

layer(NativeKoffi.layer)("openMemoryImage", (it) => {
  it.scoped("maps a raw file as it is and unmaps it with the scope", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const path = yield* sparse(LOADED + made.bytes.length, [[LOADED, made.bytes]])
      yield* Effect.scoped(Effect.gen(function*() {
        const memory = yield* openMemoryImage(path)
        assert.deepStrictEqual(memory.bytes(LOADED, made.bytes.length), made.bytes)
        assert.isFalse(memory.writable)
        assert.isTrue(mapped(path))
      }))
      assert.isFalse(mapped(path))
    }))

  it.scoped("reads a file that ends within a page", () =>
    Effect.gen(function*() {
      const memory = yield* openMemoryImage(yield* file(new Uint8Array(4097).fill(7)))
      assert.strictEqual(memory.u8(4096), 7)
      assert.strictEqual(memory.u8(4097), -1)
    }))

  it.scoped("finds where memory goes on above 4 GiB, for machines of all kinds", () =>
    Effect.gen(function*() {
      const above = 64 * MIB
      for (const split of [2 * GIB, 3 * GIB, 0xd000_0000, 2 * GIB + 512 * MIB]) {
        const made = bigKernel(split, above)
        const path = yield* sparse(split + above, [[LOADED, made.bytes]])
        const pieces = yield* layoutOf(path)
        assert.strictEqual(pieces.find(([start]) => start === 4 * GIB)?.[1], above, `split at ${split}`)
        const low = pieces.filter(([start]) => start < 4 * GIB)
        assert.strictEqual(low.reduce((sum, [, bytes]) => sum + bytes, 0), split)
        assert.isTrue(pieces.every(([, bytes]) => bytes <= GIB))
        const kernel = yield* GuestKernel.open(path)
        assert.strictEqual(kernel.release, "6.12.0-made")
      }
    }))

  it.scoped("splits nothing where all memory lies below 4 GiB", () =>
    Effect.gen(function*() {
      const size = 2 * GIB + 256 * MIB
      const made = bigKernel(size, 0)
      const pieces = yield* layoutOf(yield* sparse(size, [[LOADED, made.bytes]]))
      assert.deepStrictEqual(pieces, [[0, GIB], [GIB, GIB], [2 * GIB, 256 * MIB]])
    }))

  it.scoped("splits nothing where the file keeps the gap", () =>
    Effect.gen(function*() {
      const made = bigKernel(3 * GIB, 64 * MIB)
      const pieces = yield* layoutOf(yield* sparse(4 * GIB + 64 * MIB, [[LOADED, made.bytes]]))
      assert.deepStrictEqual(pieces.at(-1), [4 * GIB, 64 * MIB])
      assert.strictEqual(pieces.reduce((sum, [, bytes]) => sum + bytes, 0), 4 * GIB + 64 * MIB)
    }))

  it.scoped("says so where a large image does not show its layout", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const error = yield* Effect.flip(openMemoryImage(yield* sparse(2 * GIB + MIB, [[LOADED, made.bytes]])))
      assert.include(error.message, "kernel 6.12.0-made, but the page tables of its direct map are not in the file")
    }))

  it.scoped("reads an ELF core, whatever its segments' order, overlaps and alignment", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const half = made.bytes.length / 2
      const core = madeElf([
        { type: 4, paddr: 0, bytes: Buffer.from("a note") },
        { paddr: LOADED + half, bytes: made.bytes.subarray(half) },
        { paddr: LOADED, bytes: made.bytes.subarray(0, half) },
        { paddr: LOADED + 4096, bytes: made.bytes.subarray(4096, half + 8192) },
        { paddr: 0, bytes: new Uint8Array(100) }
      ], { pad: 3 })
      const path = yield* file(core)
      assert.deepStrictEqual(yield* layoutOf(path), [[0, 100], [LOADED, half], [LOADED + half, 8192], [
        LOADED + half + 8192,
        half - 8192
      ]])
      const kernel = yield* GuestKernel.open(path)
      assert.deepStrictEqual(kernel.memory.bytes(LOADED, made.bytes.length), made.bytes)
      const cut = yield* openMemoryImage(yield* file(core.subarray(0, core.length - half)))
      assert.isAbove(cut.size, 100)
    }))

  it.scoped("takes for zeros what a core's segments have beyond the file's bytes", () =>
    Effect.gen(function*() {
      const page = (byte: number) => new Uint8Array(4096).fill(byte)
      const core = madeElf([
        { paddr: 0, bytes: page(1), memsz: 4 * 4096 },
        { paddr: 2 * 4096, bytes: page(2), memsz: 3 * 4096 },
        { paddr: GIB, bytes: new Uint8Array(0), memsz: 2 * GIB + 4096 }
      ])
      const memory = yield* openMemoryImage(yield* file(core))
      assert.deepStrictEqual(
        [0, 1, 2, 3, 4].map((page) => [...new Set(memory.bytes(page * 4096, 4096))]),
        [[1], [0], [2], [0], [0]]
      )
      assert.strictEqual(memory.u8(5 * 4096), -1)
      assert.strictEqual(memory.u32(3 * GIB), 0)
      assert.strictEqual(memory.end, 3 * GIB + 4096)
      // what is cut off the file is not zeros
      const cut = yield* openMemoryImage(yield* file(core.subarray(0, core.length - 2048)))
      assert.strictEqual(cut.u8(2 * 4096 + 2047), 2)
      assert.strictEqual(cut.u8(2 * 4096 + 2048), -1)
      const huge = madeElf([{ paddr: 0, bytes: page(1), memsz: 2 ** 52 - 4096 }])
      assert.include(
        (yield* Effect.flip(openMemoryImage(yield* file(huge)))).message,
        `segments of at most ${2 ** 46} bytes together`
      )
    }))

  it.scoped("reads a LiME dump", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const range = (start: number, bytes: Uint8Array, version = 1) => {
        const header = Buffer.alloc(32)
        header.write("EMiL", "latin1")
        header.writeUInt32LE(version, 4)
        header.writeBigUInt64LE(BigInt(start), 8)
        header.writeBigUInt64LE(BigInt(start + bytes.length - 1), 16)
        return Buffer.concat([header, bytes])
      }
      const low = range(0x1000, new Uint8Array(0x9e_c00).fill(7))
      const path = yield* file(Buffer.concat([low, range(LOADED, made.bytes)]))
      assert.deepStrictEqual(yield* layoutOf(path), [[0x1000, 0x9e_c00], [LOADED, made.bytes.length]])
      assert.strictEqual((yield* GuestKernel.open(path)).release, "6.12.0-made")
      const cut = yield* layoutOf(yield* file(Buffer.concat([low, range(LOADED, made.bytes).subarray(0, 5000)])))
      assert.deepStrictEqual(cut, [[0x1000, 0x9e_c00], [LOADED, 5000 - 32]])
      const messageOf = (...parts: ReadonlyArray<Uint8Array>) =>
        Effect.map(
          Effect.flatMap(file(Buffer.concat(parts)), (path) => Effect.flip(openMemoryImage(path))),
          ({ message }) => message
        )
      assert.include(yield* messageOf(low, new Uint8Array(32)), `LiME at byte ${low.length}: expected a range's header`)
      assert.include(yield* messageOf(range(0, new Uint8Array(8192), 2)), "LiME at byte 0: expected a range's header")
      assert.include(yield* messageOf(low, low), "no region to start before")
      const endless = range(0, new Uint8Array(8192))
      endless.writeBigUInt64LE(2n ** 64n - 1n, 16)
      assert.include(yield* messageOf(endless), "LiME at byte 8: expected a range of addresses below 2^52")
    }))

  it.scoped("searches a large file of holes in no time and stores nothing for it", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const path = yield* sparse(GIB, [[LOADED, made.bytes]])
      const memory = yield* openMemoryImage(path)
      const [region] = memory.regions
      const parts = [...writtenParts(region)]
      assert.strictEqual(parts[0][0], LOADED)
      assert.isBelow(parts.reduce((sum, [from, to]) => sum + to - from, 0), 2 * made.bytes.length)
      // as bytes that would be minutes of reading, and all of the host's memory
      const huge = yield* sparse(2 ** 36, [])
      const error = yield* Effect.flip(openMemoryImage(huge))
      assert.include(error.message, "no running x86-64 or arm64 Linux kernel in it")
    }))

  it.scoped("copies a long stretch across regions as the mapping has it, and nothing behind the file", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const noise = randomBytes(512 * 1024)
      const path = yield* sparse(GIB + 2 ** 20, [[LOADED, made.bytes], [GIB - noise.length / 2, noise]])
      const memory = yield* openMemoryImage(path)
      const copy = new Uint8Array(noise.length)
      assert.isTrue(memory.copy(GIB - noise.length / 2, copy))
      assert.isTrue(noise.equals(copy))
      // the longest that is read by touching it
      const short = new Uint8Array(2 ** 16 - 1)
      assert.isTrue(memory.copy(GIB - short.length, short))
      assert.isTrue(noise.subarray(noise.length / 2 - short.length, noise.length / 2).equals(short))
      assert.isFalse(memory.copy(memory.end - 2 ** 16, new Uint8Array(2 ** 17)))
    }))

  it.scoped("refuses a dump whose bytes do not lie at their addresses, and says what to take", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      // LiME's format=raw: the ranges of RAM without the gap from 0x9fc00 to 1 MiB, and without page 0
      const raw = Buffer.concat([Buffer.alloc(0x9fc00 - 4096), Buffer.alloc(LOADED - MIB), made.bytes])
      const error = yield* Effect.flip(Effect.flatMap(file(raw), (path) => GuestKernel.open(path)))
      assert.match(
        error.message,
        /no running x86-64 or arm64 Linux kernel in it; .*; LiME: format=lime or padded, not raw\)/
      )
    }))

  it.scoped("reads a file that says to be larger than memory can be as /proc/kcore, and refuses it where it is not that", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync("/dev/shm/ktstr-image-")), // tmpfs: other file systems have no file so large
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const path = join(folder, "kcore")
      const write = (bytes: Uint8Array | string) => {
        writeFileSync(path, bytes)
        truncateSync(path, 0x7fff_ff60_2000)
      }
      const made = new MadeKernel()
      const elsewhere = { paddr: 2 ** 52, bytes: new Uint8Array(4096) } // kcore says -1 of what is not RAM
      const core = madeElf([{ type: 4, paddr: 0, bytes: Buffer.from("a note") }, elsewhere, {
        paddr: LOADED,
        bytes: made.bytes
      }])
      write(core)
      const { memory, release } = yield* GuestKernel.open(path)
      assert.deepStrictEqual([release, memory.running, memory.size], ["6.12.0-made", true, made.bytes.length])
      assert.strictEqual(memory.u8(LOADED + made.bytes.length), -1)
      assert.match(
        memory.absence(LOADED + made.bytes.length),
        /lies in memory that is not there$/
      )

      const message = Effect.map(Effect.flip(openMemoryImage(path)), (error) => error.message)
      write("")
      assert.match(
        yield* message,
        /: 140737477877760 bytes, more memory than there can be; looked at its size and its first bytes; give a raw/
      )
      for (const [at, value] of [[32, 2n ** 60n], [56, 0xffff_ffff_ffff_ffffn]] as const) { // e_phoff, e_phnum
        const broken = Buffer.from(core)
        broken.writeBigUInt64LE(value, at)
        write(broken)
        assert.match(yield* message, /kcore: ELF at byte \d+: expected /)
      }
    }))

  it.scoped("says what is wrong with a file that is no memory", () =>
    Effect.gen(function*() {
      const messages = (bytes: Uint8Array | string) =>
        Effect.map(
          Effect.flatMap(file(bytes), (path) => Effect.flip(Effect.map(openMemoryImage(path), () => {}))),
          (error) => error.message
        )
      const padded = (start: string) => Buffer.concat([Buffer.from(start, "latin1"), Buffer.alloc(8192)])
      assert.include(yield* messages(""), "only 0 bytes")
      assert.include(yield* messages("hello"), "only 5 bytes")
      assert.include(
        yield* messages(padded("KDUMP   ")),
        "kdump at byte 272: expected the machine x86_64 or aarch64"
      )
      assert.include(yield* messages(padded("\x1f\x8b")), "a gzip file; looked at its first bytes; decompress it first")
      const vmlinux = madeElf([{ paddr: 0, bytes: new Uint8Array(5000) }], { type: 2 })
      assert.include(yield* messages(vmlinux), "a kernel's vmlinux goes with --vmlinux")
      assert.include(
        yield* messages(madeElf([{ paddr: 0, bytes: new Uint8Array(5000) }], { machine: 243 })),
        "a core of machine 243"
      )
      assert.include(
        yield* messages(madeElf([{ type: 4, paddr: 0, bytes: new Uint8Array(5000) }])),
        "a core without memory"
      )
      assert.include(yield* messages(padded("\x7fELF")), "ELF at byte 4: expected a 64-bit")
      const huge = madeElf([{ paddr: 0, bytes: new Uint8Array(5000) }])
      huge.writeBigUInt64LE(2n ** 63n, 32)
      assert.include(yield* messages(huge), "1 program headers")
    }))

  it.scoped("fails at once on paths that are no files", () =>
    Effect.gen(function*() {
      const path = yield* folder
      assert.include((yield* Effect.flip(openMemoryImage(path))).message, "not a regular file")
      assert.include((yield* Effect.flip(openMemoryImage(join(path, "none")))).message, "ENOENT")
      execFileSync("mkfifo", [join(path, "fifo")])
      assert.include((yield* Effect.flip(openMemoryImage(join(path, "fifo")))).message, "not a regular file")
    }))
})
