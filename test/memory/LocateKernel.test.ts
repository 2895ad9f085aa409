import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { fstatSync } from "node:fs"
import { Native } from "../../src/core/Native.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { isLocated, locateByVmcoreinfo } from "../../src/memory/LocateKernel.ts"
import { findVmcoreinfo } from "../../src/memory/Vmcoreinfo.ts"
import { LOADED, MadeKernel } from "./MadeKernel.ts"

const found = (made: MadeKernel) => {
  const location = locateByVmcoreinfo(made.memory())
  return isLocated(location) ? location : assert.fail(`not located: ${location.why}`)
}

describe("locateByVmcoreinfo", () => {
  it("finds the kernel by either copy of its VMCOREINFO", () => {
    for (const levels of [4, 5] as const) {
      for (const without of [[], ["data"], ["note"]] as const) {
        const made = new MadeKernel({ levels, without })
        const { info, release, shift, table } = found(made)
        assert.deepStrictEqual(
          { release, shift, root: table.root, levels: table.levels },
          { release: "6.12.0-made", shift: 0x0a20_0000n, root: made.root, levels }
        )
        assert.strictEqual(info!.at, made.notePages[0] + (without[0] === "data" ? 24 : 0))
        assert.strictEqual(info!.symbol("_stext"), made.symbols.get("_stext"))
        assert.strictEqual(info!.number("phys_base"), made.physBase)
        assert.strictEqual(info!.offset("uts_namespace.name"), 16)
        assert.strictEqual(info!.symbol("no_such"), undefined)
      }
    }
  })

  it("passes over texts that are not true of this memory", () => {
    const lies: ReadonlyArray<readonly [(text: string) => string, string]> = [
      [
        (text) => text.replace(/OSRELEASE=.*/, "OSRELEASE=6.6.6-evil"),
        "the kernel there does not call itself 6.6.6-evil"
      ],
      [(text) => text.replace(/phys_base\)=.*/, "phys_base)=4096"), "which the image does not have"],
      [(text) => text.replace(/phys_base\)=-?\d*/, "phys_base)=99999999999999999999999"), "lacks an entry"],
      [
        (text) =>
          text.replace(/(swapper_pg_dir\)=)(.*)/, (_, key, at) => `${key}${(BigInt(`0x${at}`) + 4096n).toString(16)}`),
        "do not map"
      ],
      [(text) => text.replace(/SYMBOL\(_stext\).*\n/, ""), "lacks an entry"],
      [(text) => text.replace("uts_namespace.name)=16", "uts_namespace.name)=17"), "does not call itself"],
      [(text) => text.replace("l5_enabled)=0", "l5_enabled)=1"), "do not map"],
      [() => "OSRELEASE=", "lacks an entry"]
    ]
    for (const [lie, why] of lies) {
      const made = new MadeKernel({ without: ["data", "note"] })
      const first = made.page()
      made.writeNote(first, made.noteText(lie), "data")
      const alone = locateByVmcoreinfo(made.memory())
      assert.isFalse(isLocated(alone))
      if (!isLocated(alone)) assert.include(alone.why, why)
      made.writeNote(made.page(), made.noteText(), "note")
      assert.strictEqual(found(made).release, "6.12.0-made")
    }
  })

  it("counts what it judged", () => {
    const made = new MadeKernel({ without: ["data", "note"] })
    assert.deepStrictEqual(locateByVmcoreinfo(made.memory()), { candidates: 0, why: "there is none" })
    for (let i = 0; i < 3; i++) made.writeNote(made.page(), "OSRELEASE=1\n", "data")
    const none = locateByVmcoreinfo(made.memory())
    assert.isFalse(isLocated(none))
    if (!isLocated(none)) assert.strictEqual(none.candidates, 3)
  })
})

describe("findVmcoreinfo", () => {
  const text = "OSRELEASE=6.1\n"
  const page = (at: number, bytes = 8192) => {
    const out = new Uint8Array(bytes)
    out.set(Buffer.from(text), at)
    return out
  }
  const releases = (memory: GuestMemory) => {
    const seen: Array<string> = []
    findVmcoreinfo(memory, (info) => {
      seen.push(`${info.release}@${info.at}`)
      return false
    })
    return seen
  }

  it("looks at starts of pages, wherever regions start, and above 4 GiB first", () => {
    assert.deepStrictEqual(releases(new GuestMemory([{ start: 0, bytes: page(4096) }])), ["6.1@4096"])
    assert.deepStrictEqual(releases(new GuestMemory([{ start: 0, bytes: page(4100) }])), [])
    assert.deepStrictEqual(releases(new GuestMemory([{ start: 1000, bytes: page(3096) }])), ["6.1@4096"])
    assert.deepStrictEqual(
      releases(new GuestMemory([{ start: 0, bytes: page(0) }, { start: 2 ** 32, bytes: page(4096) }])),
      [`6.1@${2 ** 32 + 4096}`, "6.1@0"]
    )
  })

  it("looks at each page once, and where kernels have it first", () => {
    const MIB = 2 ** 20
    // of 256 MiB the last 4 are the array of struct page
    const places = [
      240 * MIB,
      252 * MIB - 4096, // below it
      16 * MIB,
      28 * MIB - 4096, // the lowest memory that is not kept for old devices, or the image
      64 * MIB,
      84 * MIB - 4096, // behind an image at 16 MiB
      8192,
      28 * MIB,
      64 * MIB - 4096,
      192 * MIB,
      252 * MIB,
      256 * MIB - 4096,
      84 * MIB,
      192 * MIB - 4096
    ]
    const start = 4096 + 1000
    const large = new Uint8Array(256 * MIB - start)
    for (const at of places) large.set(Buffer.from(text), at - start)
    const parts = places.map((at) => [at - start - 2000, at - start + 5000] as const).toSorted(([a], [b]) => a - b)
    const nextWritten = (at: number) => parts.find(([, to]) => to > at) // only the pages around the places are there
    const seen = places.map((at) => `6.1@${at}`)
    assert.deepStrictEqual(releases(new GuestMemory([{ start, bytes: large, nextWritten }])), seen)
    const cut = 200 * MIB - start // in two regions
    const regions = [{ start, bytes: large.subarray(0, cut) }, { start: start + cut, bytes: large.subarray(cut) }]
    assert.deepStrictEqual(releases(new GuestMemory(regions)), seen)
  })

  it("reads a page that two mappings share, and one that the image cuts", () => {
    const bytes = page(4096)
    const cut = new GuestMemory([{ start: 0, bytes: bytes.subarray(0, 4104) }, {
      start: 4104,
      bytes: bytes.subarray(4104)
    }])
    assert.deepStrictEqual(releases(cut), ["6.1@4096"])
    assert.deepStrictEqual(releases(new GuestMemory([{ start: 0, bytes: bytes.subarray(0, 4098) }])), [])
    assert.deepStrictEqual(releases(new GuestMemory([{ start: LOADED, bytes: bytes.subarray(0, 4096 + 20) }])), [])
  })

  it("leaves out what was never written", () => {
    const bytes = page(4096, 5 * 4096)
    bytes.set(Buffer.from(text), 3 * 4096)
    const region = (...parts: ReadonlyArray<readonly [number, number]>) => ({
      start: 0,
      bytes,
      nextWritten: (at: number) => parts.find(([, to]) => to > at)
    })
    assert.deepStrictEqual(releases(new GuestMemory([region([0, 8192], [12288, Infinity])])), ["6.1@4096", "6.1@12288"])
    assert.deepStrictEqual(releases(new GuestMemory([region([8192, 16384])])), ["6.1@12288"])
    assert.deepStrictEqual(releases(new GuestMemory([region()])), [])
  })

  it.scoped("makes the host allocate nothing that a guest never touched", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const size = 2 ** 30
      const fd = yield* native.memfd("ktstr-test-holes", size)
      const bytes = yield* native.mmap(fd, 0, size, "write")
      const at = size - 8192
      bytes.set(Buffer.from(text), at)
      const before = fstatSync(fd).blocks
      const memory = new GuestMemory([{ start: 0, bytes, nextWritten: (at) => native.nextData(fd, at) }])
      assert.deepStrictEqual(releases(memory), [`6.1@${at}`])
      assert.strictEqual(fstatSync(fd).blocks, before)
      assert.strictEqual(before, 8)
    }).pipe(Effect.provide(NativeKoffi.layer)))

  it("believes no length in a note's header", () => {
    const made = new MadeKernel({ without: ["data", "note"] })
    const at = made.page()
    made.writeNote(at, text, "note")
    made.view.setUint32(at - LOADED + 4, 0xffff_ffff, true)
    assert.deepStrictEqual(releases(made.memory()), [`6.1@${at + 24}`])
  })
})
