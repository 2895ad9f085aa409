import { assert, describe, it } from "@effect/vitest"
import { readExports } from "../../../src/memory/evidence/Exports.ts"

const START = 0xffff_8000_0900_0000n
const COUNT = 100
/** Functions at each 64 bytes before the data, then two variables behind it. */
const named = [
  ...Array.from({ length: COUNT }, (_, i) => [`function_${i}`, START - BigInt(64 * (COUNT - i))] as const),
  ["init_task", START + 0x100_0000n],
  ["nr_cpu_ids", START + 0x100_0040n]
] as const

/** Read-only data with strings and, at `table`, an entry for each name, made from the documents of the kernel. */
const made = (table = 8192): Buffer => {
  const image = Buffer.alloc(16384)
  let text = 1
  for (const [i, [name, address]] of named.entries()) {
    const entry = table + 12 * i
    image.writeInt32LE(Number(address - START) - entry, entry)
    image.writeInt32LE(text - (entry + 4), entry + 4)
    image.writeInt32LE(text + name.length - (entry + 8), entry + 8)
    image.write(`${name}\0`, text, "latin1")
    text += name.length + 1
  }
  return image
}

/** Kallsyms of the functions. */
const symbols = (shift = 0n) => {
  const known = new Map(named.slice(0, COUNT).map(([name, address]) => [name as string, address + shift]))
  return { address: (name: string) => known.get(name), at: () => undefined, entries: () => [] }
}

describe("what a kernel exports", () => {
  it("is read by name, functions and data", () => {
    assert.deepStrictEqual([...readExports(made(), START, symbols())], [...named])
  })

  it("is not believed where kallsyms has other addresses, or no functions of it", () => {
    assert.strictEqual(readExports(made(), START, symbols(4n)).size, 0)
    assert.strictEqual(readExports(made(), START, { ...symbols(), address: () => undefined }).size, 0)
  })

  it("is not there where its table is cut off, and is not looked for without end where all is full of it", () => {
    assert.strictEqual(readExports(made().subarray(0, 8192), START, symbols()).size, 0)
    assert.strictEqual(readExports(Buffer.alloc(0), START, symbols()).size, 0)
    assert.strictEqual(readExports(Buffer.alloc(2 ** 21, "\0init_task\0\0", "latin1"), START, symbols()).size, 0)
    const flood = Buffer.alloc(2 ** 21) // every word leads to the name at its start
    for (let at = 12; at < flood.length; at += 4) flood.writeInt32LE(1 - at, at)
    flood.write("\0init_task\0", "latin1")
    assert.strictEqual(readExports(flood, START, symbols()).size, 0)
  })
})
