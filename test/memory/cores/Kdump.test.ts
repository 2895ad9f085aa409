import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { deflateSync } from "node:zlib"
import { kvaFrom } from "../../../src/core/Address.ts"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import { unpackLzo, unpackSnappy } from "../../../src/memory/cores/UnpackPage.ts"
import { GuestKernel } from "../../../src/memory/GuestKernel.ts"
import { openMemoryImage } from "../../../src/memory/MemoryImage.ts"
import { saveImage, saveVmcore } from "../../../src/memory/SaveImage.ts"
import { findVmcoreinfo } from "../../../src/memory/Vmcoreinfo.ts"
import { LOADED, MadeKernel, PAGES } from "../MadeKernel.ts"
import { madeFlattened, madeKdump, type Packer } from "./MadeKdump.ts"

const PAGE = 4096
const ZLIB = 1

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-kdump-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const file = (bytes: Uint8Array) =>
  Effect.map(folder, (folder) => {
    writeFileSync(join(folder, "core"), bytes)
    return join(folder, "core")
  })

const zlib: Packer = (page) => [ZLIB, deflateSync(page)]
const kdump = (memory: Uint8Array, pack: Packer, vmcoreinfo?: string) =>
  madeKdump(memory, LOADED / PAGE, pack, vmcoreinfo)

layer(NativeKoffi.layer)("kdump-compressed cores", (it) => {
  it.scoped("are read a page at a time, packed or not, and the kernel is found in them", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const path = yield* file(kdump(made.bytes, (page, index) => index % 2 === 0 ? [0, page] : zlib(page, index)))
      const memory = yield* openMemoryImage(path)
      assert.deepStrictEqual([memory.size, memory.end], [PAGES * PAGE, LOADED + PAGES * PAGE])
      assert.isTrue(Buffer.from(made.bytes).equals(memory.bytes(LOADED, PAGES * PAGE)!))
      assert.isTrue(Buffer.from(made.bytes).equals(memory.run(LOADED, 2 ** 30)))
      assert.deepStrictEqual([memory.has(LOADED - 1, 2), memory.has(LOADED - 1, 0)], [false, false])
      assert.strictEqual(
        memory.u64(LOADED + PAGE - 4),
        Buffer.from(made.bytes).readBigUInt64LE(PAGE - 4),
        "a number that lies in two pages"
      )
      const kernel = yield* GuestKernel.open(path)
      assert.strictEqual(kernel.release, "6.12.0-made")
    }))

  it.scoped("are made into a raw image and an ELF core", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const memory = yield* openMemoryImage(
        yield* file(kdump(made.bytes, (page, at) => at === 100 ? undefined : [0, page]))
      )
      const before = made.bytes.subarray(0, 100 * PAGE)
      const behind = made.bytes.subarray(101 * PAGE)
      const to = yield* folder
      yield* saveVmcore(memory, join(to, "elf"))
      const elf = yield* openMemoryImage(join(to, "elf"))
      assert.isTrue(Buffer.from(before).equals(elf.bytes(LOADED, before.length)!))
      assert.isTrue(Buffer.from(behind).equals(elf.bytes(LOADED + 101 * PAGE, behind.length)!))
      assert.strictEqual(elf.u8(LOADED + 100 * PAGE), -1)
      yield* saveImage(memory, join(to, "raw"))
      const raw = yield* openMemoryImage(join(to, "raw"))
      assert.isTrue(Buffer.from(before).equals(raw.bytes(LOADED, before.length)!))
    }))

  it.scoped("tell pages that were excluded, or are damaged, from memory that is not there", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const path = yield* file(
        kdump(
          made.bytes,
          (page, index) => index === 93 ? undefined : index === 95 ? [ZLIB, Uint8Array.of(1, 2, 3)] : zlib(page, index)
        )
      )
      const { memory, space } = yield* GuestKernel.open(path)
      const why = (index: number) => {
        const address = kvaFrom(space.directBase!, LOADED + index * PAGE)
        assert.strictEqual(space.u32(address), -1)
        return space.faultText.replace(/^0x[0-9a-f]{16} /, "")
      }
      assert.strictEqual(memory.u8(LOADED + 94 * PAGE), made.bytes[94 * PAGE])
      assert.strictEqual(why(93), "lies in a page that was excluded by makedumpfile (-d)")
      assert.strictEqual(why(95), "lies in a page that is damaged in the dump, or cut off")
      assert.match(memory.absence(LOADED + PAGES * PAGE), /not there/)
    }))

  it.scoped("tell a page whose page table was excluded", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const address = 0xffff_c900_0000_0000n
      made.map(address, LOADED)
      let table = made.root
      for (const shift of [39n, 30n, 21n]) {
        table = Number(made.get64(table + Number(address >> shift & 511n) * 8) & 0xf_ffff_ffff_f000n)
      }
      const excluded = (table - LOADED) / PAGE
      const path = yield* file(kdump(made.bytes, (page, index) => index === excluded ? undefined : zlib(page, index)))
      const { space } = yield* GuestKernel.open(path)
      assert.strictEqual(space.u32(address), -1)
      assert.strictEqual(
        space.faultText,
        "0xffffc90000000000 is mapped by a page table that lies in a page that was excluded by makedumpfile (-d)"
      )
    }))

  it.scoped("use the VMCOREINFO of the sub-header, unless it is not true of the memory", () =>
    Effect.gen(function*() {
      const made = new MadeKernel({ without: ["data", "note"] })
      const text = made.noteText()
      const open = (text?: string) =>
        Effect.flatMap(file(kdump(made.bytes, zlib, text)), (path) => GuestKernel.open(path))
      assert.strictEqual((yield* open(text)).release, "6.12.0-made")
      for (const wrong of [undefined, text.replace(/phys_base\)=-?\d+/, "phys_base)=4096")]) {
        assert.match((yield* Effect.flip(open(wrong))).message, /no running x86-64 or arm64 Linux kernel/)
      }
      const both = new MadeKernel()
      const memory = yield* openMemoryImage(yield* file(kdump(both.bytes, zlib, "OSRELEASE=false\n")))
      const seen: Array<string> = []
      findVmcoreinfo(memory, ({ release }) => seen.push(release) < 0)
      assert.deepStrictEqual(seen, ["false", "6.12.0-made", "6.12.0-made"])
    }))

  it.scoped("are read as far as they go when they are cut short, and nothing is allocated by a number in them", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const whole = kdump(made.bytes, zlib)
      for (const length of [PAGE, 2 * PAGE - 4000, 4 * PAGE + 10]) {
        const error = yield* Effect.flip(openMemoryImage(yield* file(whole.subarray(0, length))))
        assert.match(error.message, /kdump at byte \d+: expected \d+ more bytes in a file of/)
      }
      const cut = yield* openMemoryImage(yield* file(whole.subarray(0, whole.length - 1)))
      assert.strictEqual(cut.u8(LOADED), made.bytes[0])
      assert.match(cut.absence(LOADED + (PAGES - 1) * PAGE), /damaged in the dump, or cut off/)
      const changed = (change: (bytes: Buffer) => void) => {
        const bytes = Buffer.from(whole)
        change(bytes)
        return Effect.flatMap(file(bytes), (path) => Effect.flip(openMemoryImage(path)))
      }
      const pages = yield* changed((bytes) => {
        bytes.writeBigUInt64LE(2n ** 63n, PAGE + 96)
        bytes.writeUInt32LE(0xffff_ffff, 436)
      })
      assert.match(pages.message, /kdump at byte 440: expected as many pages as its bitmaps have bits/)
      assert.match((yield* changed((bytes) => bytes.writeUInt32LE(65536, 428))).message, /blocks of 4096 bytes/)
      assert.match((yield* changed((bytes) => bytes.write("ppc64le", 272))).message, /the machine x86_64/)
      assert.match((yield* changed((bytes) => bytes.writeUInt32LE(1, PAGE + 12))).message, /one whole file/)
    }))

  it("unpack LZO and snappy, and nothing that is damaged", () => {
    // "abcd", then 10 more by a match 4 back: lzo.rst's first byte, M3, end; snappy's literal and copy
    const text = Buffer.from("abcdabcdabcdab")
    const lzo = Uint8Array.of(17 + 4, ...Buffer.from("abcd"), 0x20 | 8, 3 << 2, 0, 0x11, 0, 0)
    assert.deepStrictEqual(Buffer.from(unpackLzo(lzo, 14)!), text)
    const snappy = Uint8Array.of(14, 3 << 2, ...Buffer.from("abcd"), (10 - 1) << 2 | 2, 4, 0)
    assert.deepStrictEqual(Buffer.from(unpackSnappy(snappy, 14)!), text)
    for (const [unpack, data] of [[unpackLzo, lzo], [unpackSnappy, snappy]] as const) {
      for (let length = 0; length < data.length; length++) assert.isUndefined(unpack(data.subarray(0, length), 14))
      for (const size of [0, 13, 15, 4096]) assert.isUndefined(unpack(data, size))
      for (let at = 0; at < data.length; at++) {
        for (let byte = 0; byte < 256; byte++) {
          const damaged = unpack(data.with(at, byte), 14)
          assert.isTrue(damaged === undefined || damaged.length === 14)
        }
      }
    }
  })
})

layer(NativeKoffi.layer)("flattened cores", (it) => {
  const made = new MadeKernel()
  const core = kdump(made.bytes, (page) => [0, page])
  const half = core.length >> 1
  const piece = (from: number, to: number) => ({ at: from, bytes: core.subarray(from, to) })
  const readsAll = (stream: Buffer) =>
    Effect.gen(function*() {
      const memory = yield* openMemoryImage(yield* file(stream))
      assert.isTrue(Buffer.from(made.bytes).equals(memory.bytes(LOADED, PAGES * PAGE)!))
    })

  it.scoped("are the file that their pieces make, in any order, of which the last that overlap count", () =>
    Effect.gen(function*() {
      yield* readsAll(madeFlattened([piece(0, core.length)]))
      yield* readsAll(madeFlattened([piece(half, core.length), piece(0, half)]))
      const small = Array.from(
        { length: Math.ceil(core.length / 10_000) },
        (_, at) => piece(at * 10_000, at * 10_000 + 10_000)
      )
      yield* readsAll(madeFlattened(small))
      const wrong = (from: number, to: number) => ({ at: from, bytes: Buffer.alloc(to - from, 0xa5) })
      yield* readsAll(madeFlattened([wrong(0, half + 5000), piece(half, core.length), piece(0, half)]))
      yield* readsAll(madeFlattened([wrong(10, core.length - 5), ...small]))
      yield* readsAll(
        madeFlattened([
          wrong(500, 600),
          wrong(500, 550),
          piece(0, half),
          wrong(half, half + 9),
          piece(half, core.length)
        ])
      )
    }))

  it.scoped("are read as far as they go when they are cut short", () =>
    Effect.gen(function*() {
      const stream = madeFlattened([piece(0, half), piece(half, core.length)], false)
      const memory = yield* openMemoryImage(yield* file(stream.subarray(0, stream.length - 1)))
      assert.strictEqual(memory.u8(LOADED), made.bytes[0])
      assert.match(memory.absence(LOADED + (PAGES - 1) * PAGE), /cut off/)
      const nothing = yield* Effect.flip(openMemoryImage(yield* file(stream.subarray(0, 4096))))
      assert.match(nothing.message, /a flattened core without a core in it/)
    }))

  it.scoped("may not say impossible pieces, or so many over one another", () =>
    Effect.gen(function*() {
      const refused = (stream: Buffer) =>
        Effect.map(Effect.flip(Effect.flatMap(file(stream), (path) => openMemoryImage(path))), ({ message }) => message)
      assert.match(yield* refused(madeFlattened([piece(0, half), { at: 2 ** 52, bytes: core }])), /below 2\^52/)
      const far = madeFlattened([piece(0, half), { at: 2 ** 51, bytes: core }])
      assert.match(
        yield* refused(madeFlattened([piece(0, 4096 * 3), { at: 2 ** 51, bytes: core }])),
        /at least one byte of memory/
      )
      assert.strictEqual((yield* openMemoryImage(yield* file(far))).u8(LOADED), made.bytes[0])
      assert.match(yield* refused(madeFlattened(Array.from({ length: 100 }, () => piece(0, half)))), /over one another/)
      const version = madeFlattened([piece(0, core.length)])
      version.writeBigInt64BE(2n, 24)
      assert.match(yield* refused(version), /flattened core at byte 16: expected type 1, version 1/)
    }))
})
