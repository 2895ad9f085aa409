import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { kvaPage } from "../../../src/core/Address.ts"
import { Arm64PageTable } from "../../../src/memory/arch/Arm64PageTable.ts"
import { findDirectMap, NOT_PRESENT, OUT_OF_MEMORY } from "../../../src/memory/arch/PageTable.ts"
import { GuestMemory } from "../../../src/memory/GuestMemory.ts"
import { type Arm64Form, MadeTables, START } from "./MadeTables.ts"

/** What Kconfig allows (arch/arm64/Kconfig, v6.12), and kernels of 52 bits on CPUs that have fewer. `blocks`: the highest level of one. */
const FORMS: ReadonlyArray<Arm64Form & { readonly levels: number; readonly blocks: number }> = [
  { pageBits: 12, vaBits: 39, usedBits: 39, levels: 3, blocks: 3 },
  { pageBits: 12, vaBits: 48, usedBits: 48, levels: 4, blocks: 3 },
  { pageBits: 12, vaBits: 52, usedBits: 52, levels: 5, blocks: 4 },
  { pageBits: 12, vaBits: 52, usedBits: 48, levels: 4, blocks: 3 },
  { pageBits: 14, vaBits: 36, usedBits: 36, levels: 2, blocks: 2 },
  { pageBits: 14, vaBits: 47, usedBits: 47, levels: 3, blocks: 2 },
  { pageBits: 14, vaBits: 48, usedBits: 48, levels: 4, blocks: 2 },
  { pageBits: 14, vaBits: 52, usedBits: 52, levels: 4, blocks: 3 },
  { pageBits: 14, vaBits: 52, usedBits: 47, levels: 3, blocks: 2 },
  { pageBits: 16, vaBits: 42, usedBits: 42, levels: 2, blocks: 2 },
  { pageBits: 16, vaBits: 48, usedBits: 48, levels: 3, blocks: 3 },
  { pageBits: 16, vaBits: 52, usedBits: 52, levels: 3, blocks: 3 },
  { pageBits: 16, vaBits: 52, usedBits: 48, levels: 3, blocks: 3 }
]

const tableOf = (made: MadeTables) => new Arm64PageTable(made.memory(), made.root, made.form)

describe.each(FORMS)("Arm64PageTable, pages of $pageBits bits, $usedBits of $vaBits bits used", (form) => {
  const { blocks, levels, pageBits, usedBits } = form
  const lowest = -(1n << BigInt(usedBits)) & 0xffff_ffff_ffff_ffffn
  /** Somewhere in the upper half of the kernel's addresses. */
  const high = lowest + (1n << BigInt(usedBits - 1))
  const pageSize = 2 ** pageBits
  /** The highest physical address that an entry can hold. */
  const most = 2 ** (pageBits === 16 || usedBits > 48 ? 52 : 48)

  it("walks pages and blocks of each level to the byte, in 4 KiB steps", () => {
    const made = new MadeTables(form)
    const table = tableOf(made)
    assert.strictEqual(table.levels, levels)
    assert.strictEqual(table.pageSize, pageSize)
    assert.strictEqual(BigInt(table.kernelStart) << 12n, lowest)
    for (let leaf = 1; leaf <= Math.min(blocks, levels); leaf++) {
      const span = made.span(leaf)
      // the last entry of the kernel's addresses, the first, and one between
      for (const address of [-BigInt(span) & 0xffff_ffff_ffff_ffffn, lowest, high]) {
        const fresh = new MadeTables(form)
        const pa = most - span
        fresh.map(address, pa, leaf)
        const walks = tableOf(fresh)
        for (const within of [0, 4096, span / 2 + 4096, span - 4096]) {
          if (within >= span) continue
          assert.strictEqual(walks.walk(kvaPage(address + BigInt(within))), pa + within)
          assert.strictEqual(walks.level, leaf)
        }
        const page = kvaPage(address)
        walks.walk(page)
        assert.strictEqual(walks.behind(page), page + span / 4096)
      }
    }
  })

  it("takes no block where the architecture has none, and no page without its bit", () => {
    const made = new MadeTables(form)
    for (let leaf = blocks + 1; leaf <= levels; leaf++) {
      const fresh = new MadeTables(form)
      fresh.map(high, 0, leaf)
      const table = tableOf(fresh)
      assert.strictEqual(table.walk(kvaPage(high)), NOT_PRESENT)
      assert.strictEqual(table.level, leaf)
    }
    const at = made.map(high, START)
    made.set64(at, made.descriptor(START, 0b01))
    assert.strictEqual(tableOf(made).walk(kvaPage(high)), NOT_PRESENT)
    made.set64(at, made.descriptor(START, 0b11) & ~1n)
    assert.strictEqual(tableOf(made).walk(kvaPage(high)), NOT_PRESENT)
  })

  it("refuses addresses that are not the kernel's", () => {
    const made = new MadeTables(form)
    made.map(high, START)
    made.map(lowest, START)
    const table = tableOf(made)
    for (const page of [kvaPage(lowest) - 1, kvaPage(high & ((1n << BigInt(usedBits)) - 1n)), 0, 2 ** 52, -1, NaN]) {
      assert.strictEqual(table.walk(page), NOT_PRESENT)
    }
  })

  it("tells a table that the image lacks, and goes on behind it", () => {
    const made = new MadeTables(form)
    const at = made.place(made.root, high, levels)
    made.set64(at, made.descriptor(most - pageSize, 0b11))
    const table = tableOf(made)
    assert.strictEqual(table.walk(kvaPage(high)), OUT_OF_MEMORY)
    assert.include(table.absence, "is mapped by a page table that lies in memory that is not there")
    assert.strictEqual(table.behind(kvaPage(high)), kvaPage(high) + made.span(levels) / 4096)
    const lost = new Arm64PageTable(made.memory(), most - pageSize, form)
    assert.strictEqual(lost.walk(kvaPage(high)), OUT_OF_MEMORY)
    assert.strictEqual(lost.nextMapped(lost.kernelStart, 2 ** 52, 2), -1)
  })

  it("ends on tables that point at themselves", () => {
    const made = new MadeTables(form)
    for (let at = 0; at < pageSize; at += 8) made.set64(START + at, made.descriptor(START, 0b11))
    const table = tableOf(made)
    assert.strictEqual(table.walk(kvaPage(high)), START)
    assert.strictEqual(table.nextMapped(table.kernelStart, 2 ** 52, 10), table.kernelStart)
    assert.strictEqual(table.lastIdentity(table.kernelStart, 2 ** 52, 0, 10), -1)
  })

  it("finds the mapping of all memory, whose base may lie below the kernel's addresses", () => {
    const made = new MadeTables(form)
    for (let at = 0; at < made.bytes.length; at += pageSize) made.map(lowest + BigInt(at), START + at)
    made.map(high, START)
    const base = kvaPage(lowest) - START / 4096
    assert.strictEqual(findDirectMap(tableOf(made)), base)
    // where the first page leads elsewhere, the root is not at its place
    made.map(lowest, START + 2 ** 29)
    assert.strictEqual(findDirectMap(tableOf(made)), undefined)
  })

  it.prop("gives no address outside what entries can hold, whatever is in the tables", [
    FastCheck.array(FastCheck.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { minLength: 32, maxLength: 32 }),
    FastCheck.array(FastCheck.nat(2 ** 30), { minLength: 8, maxLength: 8 })
  ], ([words, probes]) => {
    const bytes = new Uint8Array(pageSize)
    const view = new DataView(bytes.buffer)
    for (let at = 0; at < pageSize; at += 8) view.setBigUint64(at, words[(at / 8) % words.length], true)
    const table = new Arm64PageTable(new GuestMemory([{ start: 0, bytes }]), 0, form)
    for (const probe of probes) {
      const pa = table.walk(2 ** 52 - 1 - probe)
      assert.isTrue(pa === NOT_PRESENT || pa === OUT_OF_MEMORY || (pa >= 0 && pa < 2 ** 52 && pa % 4096 === 0))
      assert.isAtMost(table.level, levels + 1)
    }
  })
})
