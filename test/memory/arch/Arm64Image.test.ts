import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import { GuestMemory } from "../../../src/memory/GuestMemory.ts"
import { isLocated, locateByVmcoreinfo } from "../../../src/memory/LocateKernel.ts"
import { openMemoryImage } from "../../../src/memory/MemoryImage.ts"
import { madeElf } from "../MadeElf.ts"
import { type Arm64Form, MadeTables, START } from "./MadeTables.ts"

const RELEASE = "7.3.4-made"
/** Where the image is mapped, behind the modules: with KASLR. */
const VIRTUAL = 0xffff_ffc0_2d00_0000n
const IMAGE_AT = 16
const UTS = 0x100
const NOTE = 48

/** A kernel of the form: its tables, a page of its image, and its VMCOREINFO. */
const madeKernel = (form: Arm64Form, lie = (text: string) => text) => {
  const made = new MadeTables(form)
  const page = 2 ** form.pageBits
  const image = START + IMAGE_AT * page
  const offset = VIRTUAL - BigInt(image)
  made.map(VIRTUAL, image)
  made.map(BigInt(made.root) + offset, made.root)
  made.bytes.set(Buffer.from(RELEASE), image - START + UTS + 130)
  const hex = (n: bigint) => n.toString(16)
  const text = lie(
    [
      `OSRELEASE=${RELEASE}`,
      `PAGESIZE=${page}`,
      `SYMBOL(init_uts_ns)=${hex(VIRTUAL + BigInt(UTS))}`,
      "OFFSET(uts_namespace.name)=0",
      `SYMBOL(swapper_pg_dir)=${hex(BigInt(made.root) + offset)}`,
      `SYMBOL(_stext)=${hex(VIRTUAL)}`,
      `NUMBER(VA_BITS)=${form.vaBits}`,
      `NUMBER(kimage_voffset)=0x${hex(offset)}`,
      "NUMBER(PHYS_OFFSET)=0x40000000",
      `NUMBER(TCR_EL1_T1SZ)=0x${(64 - form.usedBits).toString(16)}`,
      "KERNELOFFSET=2d000000",
      ""
    ].join("\n")
  )
  made.bytes.set(Buffer.from(text), NOTE * page)
  return made
}

const FORMS: ReadonlyArray<Arm64Form> = [
  { pageBits: 12, vaBits: 39, usedBits: 39 },
  { pageBits: 12, vaBits: 52, usedBits: 52 },
  { pageBits: 14, vaBits: 52, usedBits: 47 },
  { pageBits: 16, vaBits: 52, usedBits: 48 }
]

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-arm64-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)
/** A sparse file of `size` bytes that starts with these. */
const file = (bytes: Uint8Array, size = bytes.length) =>
  Effect.map(folder, (path) => {
    const fd = openSync(join(path, "image"), "w")
    ftruncateSync(fd, size)
    writeSync(fd, bytes, 0, bytes.length, 0)
    closeSync(fd)
    return join(path, "image")
  })
const located = (memory: GuestMemory) => {
  const found = locateByVmcoreinfo(memory)
  return isLocated(found) ? found : assert.fail(found.why)
}
const whyNot = (lie: (text: string) => string) => {
  const found = locateByVmcoreinfo(madeKernel(FORMS[1], lie).memory())
  return isLocated(found) ? assert.fail("located") : found.why
}

layer(NativeKoffi.layer)("memory of an arm64 kernel", (it) => {
  it("is found by its VMCOREINFO, whatever its pages and addresses", () => {
    for (const form of FORMS) {
      const { release, shift, table } = located(madeKernel(form).memory())
      assert.deepStrictEqual(
        [release, shift, table.arch, table.pageSize, BigInt(table.kernelStart) << 12n],
        [RELEASE, 0x2d00_0000n, "arm64", 2 ** form.pageBits, -(1n << BigInt(form.usedBits)) & 0xffff_ffff_ffff_ffffn]
      )
    }
  })

  it("is not taken where the note is false", () => {
    const lies: ReadonlyArray<readonly [RegExp, string, string]> = [
      [/PAGESIZE=.*/, "PAGESIZE=8192", "arm64 has no pages of 8192 bytes"],
      [/PAGESIZE=.*\n/, "", "arm64 has no pages of unknown bytes"],
      [/T1SZ\)=.*/, "T1SZ)=0x10", "do not map"],
      [/T1SZ\)=.*/, "T1SZ)=0x0", "arm64 has no kernel of 52 bits of addresses of which 64 are used"],
      [/VA_BITS\)=.*/, "VA_BITS)=9999", "arm64 has no kernel of 9999 bits of addresses of which 52 are used"],
      [/NUMBER\(VA_BITS.*\n/, "", "arm64 has no kernel of 0 bits"],
      [/voffset\)=.*/, "voffset)=0xffffffffffffffff", "which the image does not have"],
      [/voffset\)=.*/, "voffset)=0x11112222333344445", "every x86-64 or arm64 kernel writes"],
      [/OSRELEASE=.*/, "OSRELEASE=6.6.6", "the kernel there does not call itself 6.6.6"]
    ]
    for (const [from, to, why] of lies) assert.include(whyNot((text) => text.replace(from, to)), why)
  })

  it.scoped("begins in a raw file at 1 GiB, or at 2 GiB, also where the file is larger than x86's low memory", () =>
    Effect.gen(function*() {
      const { bytes } = madeKernel(FORMS[1])
      for (const size of [bytes.length, 3 * 2 ** 30]) {
        const memory = yield* openMemoryImage(yield* file(bytes, size))
        assert.deepStrictEqual([memory.regions[0].start, memory.size], [START, size])
        assert.strictEqual(located(memory).release, RELEASE)
      }
      // the same kernel loaded 1 GiB higher: only its own facts say so
      const made = madeKernel(
        FORMS[1],
        (text) =>
          text.replace(
            /voffset\)=0x(.*)/,
            (_, offset: string) => `voffset)=0x${(BigInt(`0x${offset}`) - 0x4000_0000n).toString(16)}`
          )
      )
      for (let at = 0; at < made.bytes.length; at += 8) {
        const entry = made.view.getBigUint64(at, true)
        if ((entry & 0x0078_0000_0000_0400n) === 0x0078_0000_0000_0400n) {
          made.view.setBigUint64(at, entry + 0x4000_0000n, true)
        }
      }
      const memory = yield* openMemoryImage(yield* file(made.bytes))
      assert.strictEqual(memory.regions[0].start, 0x8000_0000)
    }))

  it.scoped("is read from an ELF core of machine 183, and not from one of another machine", () =>
    Effect.gen(function*() {
      const core = Buffer.from(madeElf([{ paddr: START, bytes: madeKernel(FORMS[2]).bytes }]))
      core.writeUInt16LE(183, 18)
      const path = yield* file(core)
      assert.strictEqual(located(yield* openMemoryImage(path)).release, RELEASE)
      core.writeUInt16LE(243, 18)
      writeFileSync(path, core)
      const error = yield* Effect.flip(openMemoryImage(path))
      assert.include(error.message, "a core of machine 243; only x86 (62 and 3) and arm64 (183) are read")
    }))
})
