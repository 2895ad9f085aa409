import { assert, describe, it } from "@effect/vitest"
import { LOADED, PAGES } from "../../../memory/MadeKernel.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { hex, MadeMaps } from "../MadeMaps.ts"

const USER = 0x7f00_0001_0000n
const AREA = 0xffff_c900_0000_0000n
/** `GUARD_SZ / 2`; kernel/bpf/arena.c, v6.12. */
const GUARD = 0x8000n

/** An arena of six pages, of which the first and the third are there; a page's first byte is its number. */
const arena = (pages = 6) => {
  const made = new MadeMaps()
  const map = made.map({ type: "ARENA", keySize: 0, valueSize: 0, maxEntries: pages, bytes: 96 })
  const area = made.object(24)
  made.set64(map + 72n, USER, area)
  made.set64(area + 8n, AREA, 2n ** 32n + 0x10_0000n)
  /** Where the kernel has the page of a number: the low 32 bits are those of user space. */
  const at = (page: number) => AREA + GUARD + (USER & 0xffff_ffffn) + BigInt(page * 4096)
  const populate = (page: number) => {
    const pa = made.made.page()
    made.made.bytes[pa - LOADED] = page
    made.made.map(at(page), pa)
  }
  for (const page of [0, 2]) populate(page)
  return { made, map, area, at, populate }
}
/** Where the entry that leads to the page table of an address is: physical. */
const entryOf = ({ made }: MadeMaps, address: bigint): number => {
  const place = (table: number, level: number) => table + Number((address >> BigInt(3 + 9 * level)) & 511n) * 8
  const next = (at: number) => Number(made.get64(at) & 0xf_ffff_ffff_f000n)
  return place(next(place(next(place(made.root, 4)), 3)), 2)
}
const pages = (made: MadeMaps) => {
  const { entries, problem } = made.read()
  return [entries.map(([key, value]) => [key, String(value).slice(0, 4), String(value).length]), problem]
}

describe("ArenaWalk", () => {
  it("gives the pages that are there, by their addresses for user space", () => {
    const { made } = arena()
    assert.deepStrictEqual(pages(made), [[["0x7f0000010000", "0000", 8192], ["0x7f0000012000", "0200", 8192]], null])
    assert.deepStrictEqual(made.read().details, {
      pages: 6,
      userAddress: "0x7f0000010000",
      kernelAddress: hex(AREA + GUARD)
    })
  })

  it("leaves a page that lies outside the memory, and gives those before and behind it", () => {
    const { at, made, populate } = arena()
    populate(3)
    made.made.map(at(2), LOADED + PAGES * 4096)
    assert.deepStrictEqual(pages(made), [
      [["0x7f0000010000", "0000", 8192], ["0x7f0000013000", "0300", 8192]],
      `unreadable: ${hex(at(2))} lies in memory that is not there`
    ])
  })

  it("leaves what a page table that lies outside the memory would map, and gives the pages behind it", () => {
    // The area's first page table maps 512 pages: 8 of the guard, 16 below the arena, 488 of its own.
    const { at, made, populate } = arena(600)
    populate(500)
    made.made.set64(entryOf(made, at(0)), BigInt(LOADED + PAGES * 4096) | 0x67n)
    assert.deepStrictEqual(pages(made), [
      [["0x7f0000204000", "f400", 8192]],
      `unreadable: ${hex(at(0))} is mapped by a page table that lies in memory that is not there`
    ])
  })

  it("does not follow an arena over the end of its 4 GiB", () => {
    const { made } = arena(2 ** 20)
    const [found, problem] = pages(made)
    assert.strictEqual(found?.length, 2)
    assert.strictEqual(problem, "truncated: had 1048560 pages below a 4 GiB line, needed 1048576")
  })

  it("does not believe an area that no arena has", () => {
    const nonsense = [
      [16n, 2n ** 32n - 1n, "an arena's area of 4294967295 bytes"],
      [8n, AREA + 8n, `an arena at ${hex(AREA + 8n)}, ${hex(USER)} for user space: not aligned to a page`]
    ] as const
    for (const [field, value, text] of nonsense) {
      const { area, made } = arena()
      made.set64(area + field, value)
      assert.deepStrictEqual(pages(made), [[], `corrupted: ${text}`])
    }
  })

  it("says that its area cannot be read", () => {
    const { made, map } = arena()
    made.set64(map + 80n, NOWHERE)
    assert.deepStrictEqual(pages(made), [[], "unreadable: 0xffffdeadbeef0000 is not mapped"])
  })
})
