import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { kvaPage } from "../../../src/core/Address.ts"
import { findDirectMap, NOT_PRESENT, OUT_OF_MEMORY } from "../../../src/memory/arch/PageTable.ts"
import { X86PageTable } from "../../../src/memory/arch/X86PageTable.ts"
import { GuestMemory } from "../../../src/memory/GuestMemory.ts"
import { KernelSpace } from "../../../src/memory/KernelSpace.ts"
import { LOADED, MadeKernel, PAGES } from "../MadeKernel.ts"

describe.each([4, 5] as const)("X86PageTable with %i levels", (levels) => {
  const base = levels === 5 ? 0xff20_0000_0000_0000n : 0xffff_c900_0000_0000n

  it("walks pages of 4 KiB, 2 MiB and 1 GiB to the byte", () => {
    const made = new MadeKernel({ levels })
    made.map(base + 0x1000n, LOADED + 0x5000)
    made.map(base + 0x20_0000n, LOADED, 2)
    made.map(base + 0x4000_0000n, 0, 3)
    const table = new X86PageTable(made.memory(), made.root, levels)
    assert.strictEqual(table.walk(kvaPage(base + 0x1000n)), LOADED + 0x5000)
    assert.strictEqual(table.level, 1)
    assert.strictEqual(table.walk(kvaPage(base + 0x20_3000n)), LOADED + 0x3000)
    assert.strictEqual(table.level, 2)
    assert.strictEqual(table.walk(kvaPage(base + 0x4000_0000n + BigInt(LOADED) + 0x7000n)), LOADED + 0x7000)
    assert.strictEqual(table.level, 3)
  })

  it("tells an absent page from memory that the image lacks", () => {
    const made = new MadeKernel({ levels })
    made.map(base, 0x7fff_f000)
    const table = new X86PageTable(made.memory(), made.root, levels)
    assert.strictEqual(table.walk(kvaPage(base)), 0x7fff_f000)
    assert.strictEqual(new KernelSpace(table, undefined).translatePage(kvaPage(base)), OUT_OF_MEMORY)
    assert.strictEqual(table.walk(kvaPage(base + 0x1000n)), NOT_PRESENT)
    const lost = new X86PageTable(made.memory(), 0x7fff_f000, levels)
    assert.strictEqual(lost.walk(kvaPage(base)), OUT_OF_MEMORY)
  })

  it("refuses addresses outside the kernel's half", () => {
    const made = new MadeKernel({ levels })
    const table = new X86PageTable(made.memory(), made.root, levels)
    const mapped = made.symbols.get("_stext")!
    assert.isAtLeast(table.walk(kvaPage(mapped)), 0)
    for (
      const page of [kvaPage(mapped & 0xffff_ffff_ffffn), kvaPage(mapped & 0xfeff_ffff_ffff_ffffn), 2 ** 52, -1, NaN]
    ) {
      assert.strictEqual(table.walk(page), NOT_PRESENT)
    }
  })

  it("finds the direct map, its last page, and the next mapped page", () => {
    const made = new MadeKernel({ levels })
    const table = new X86PageTable(made.memory(), made.root, levels)
    const direct = kvaPage(made.options.directBase)
    assert.strictEqual(findDirectMap(table), direct)
    const last = table.lastIdentity(direct, direct + 2 ** 20, direct, 10_000)
    assert.strictEqual(last - direct, LOADED / 4096 + PAGES - 1)
    assert.strictEqual(table.nextMapped(table.kernelStart, 2 ** 52, 10_000), direct + LOADED / 4096)
    assert.strictEqual(table.nextMapped(last + 1, kvaPage(made.symbols.get("swapper_pg_dir")!), 10_000), -1)
  })

  it("skips a table that the image lacks as a whole", () => {
    const made = new MadeKernel({ levels })
    const first = Number(made.options.directBase >> BigInt(levels === 5 ? 48 : 39) & 511n) - 8
    for (let i = 0; i < 8; i++) made.set64(made.root + 8 * (first + i), 0x7fff_f067n)
    const table = new X86PageTable(made.memory(), made.root, levels)
    const direct = kvaPage(made.options.directBase)
    const lost = 2 ** (9 * (levels - 1)) // pages of an entry of the root
    assert.strictEqual(table.walk(direct - lost), OUT_OF_MEMORY)
    assert.strictEqual(table.behind(direct - lost), Math.floor(direct / lost) * lost)
    assert.strictEqual(findDirectMap(table), direct)
    assert.strictEqual(table.lastIdentity(table.kernelStart, direct, direct, 600), -1)
    made.map(made.options.directBase - 0x1000n - BigInt(lost) * 0x9000n, LOADED)
    const before = kvaPage(made.options.directBase - 0x1000n - BigInt(lost) * 0x9000n)
    assert.strictEqual(table.lastIdentity(table.kernelStart, direct, before - LOADED / 4096, 2000), before)
    const none = new X86PageTable(made.memory(), 0x7fff_f000, levels)
    assert.strictEqual(none.nextMapped(none.kernelStart, 2 ** 52, 2), -1)
  })

  it("finds no direct map where the lowest mapping is not one", () => {
    const made = new MadeKernel({ levels })
    made.map(made.options.directBase - 2n ** 40n, LOADED + 0x3000)
    const table = new X86PageTable(made.memory(), made.root, levels)
    assert.strictEqual(findDirectMap(table), undefined)
  })

  const entry = FastCheck.record({ page: FastCheck.nat(2 ** 19 - 1), leaf: FastCheck.constantFrom(1, 2) })
  it.prop(
    "agrees with a list of the mappings made",
    [FastCheck.array(entry, { maxLength: 12 }), FastCheck.nat(63)],
    ([entries, to]) => {
      const made = new MadeKernel({ levels })
      const model = new Map<number, number>()
      const taken = new Map<number, number>()
      for (const { leaf, page } of entries) {
        const region = page >>> 9
        if (taken.has(region) && (taken.get(region) === 2 || leaf === 2)) continue
        if (!taken.has(region) && taken.size >= 8) continue // the made kernel has pages for so many tables
        taken.set(region, leaf)
        const pa = LOADED + to * 4096
        if (leaf === 2) { for (let i = 0; i < 512; i++) model.set(region * 512 + i, LOADED + i * 4096) }
        else model.set(page, pa)
        made.map(base + BigInt(leaf === 2 ? region * 512 : page) * 4096n, leaf === 2 ? LOADED : pa, leaf === 2 ? 2 : 1)
      }
      const table = new X86PageTable(made.memory(), made.root, levels)
      for (const { page } of entries) {
        for (const probe of [page - 1, page, page + 1, page ^ 511]) {
          if (probe < 0 || probe >= 2 ** 19) continue
          const pa = model.get(probe)
          assert.strictEqual(table.walk(kvaPage(base) + probe), pa ?? NOT_PRESENT)
        }
      }
    }
  )
})

describe("X86PageTable", () => {
  it("ends on tables that point at themselves", () => {
    const bytes = new Uint8Array(4096)
    const view = new DataView(bytes.buffer)
    for (let i = 0; i < 512; i++) view.setBigUint64(i * 8, 0x63n, true)
    const table = new X86PageTable(new GuestMemory([{ start: 0, bytes }]), 0, 5)
    assert.strictEqual(table.walk(kvaPage(0xffff_ffff_8100_0000n)), 0)
    assert.strictEqual(table.nextMapped(table.kernelStart, 2 ** 52, 100), table.kernelStart)
    assert.strictEqual(table.lastIdentity(table.kernelStart, 2 ** 52, 0, 100), -1)
  })
})
