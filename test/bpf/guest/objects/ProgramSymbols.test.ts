import { assert, describe, it } from "@effect/vitest"
import { ProgramSymbols } from "../../../../src/bpf/guest/objects/ProgramSymbols.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeKernelObjects } from "../MadeKernelObjects.ts"

const CODE = 0xffff_ffff_c000_0000n
const NODE = 48n

/** The code of three programs, 0x100 bytes each, 0x1000 apart, in the kernel's list from the last to the first. */
const symbols = () => {
  const made = new MadeKernelObjects(({ list, long, struct, text }) => {
    struct("bpf_ksym", 64, [["start", 0, long], ["end", 8, long], ["name", 16, text(32)], ["lnode", 48, list]])
  })
  const head = made.symbol("bpf_kallsyms")
  const known = [0, 1, 2].map((index) => {
    const symbol = made.object(64)
    const start = CODE + BigInt(index * 0x1000)
    made.set64(symbol, start, start + 0x100n)
    made.put(symbol + 16n, Buffer.from(`bpf_prog_${index}`))
    return symbol
  })
  const [last, middle, first] = known.map((symbol) => symbol + NODE)
  made.setAt("bpf_kallsyms", 0, first, last)
  made.set64(first, middle, head)
  made.set64(middle, last, first)
  made.set64(last, head, middle)
  const names = () => {
    const { kernel } = made
    const read = new ProgramSymbols(kernel, kernel.space)
    return [0, 1, 2].map((index) => read.at(CODE + BigInt(index * 0x1000 + 8)))
  }
  return { made, head, known, first, middle, last, names }
}
const at = (index: number) => ({ name: `bpf_prog_${index}`, offset: 8 })

describe("ProgramSymbols", () => {
  it("names code by the program that it lies in, from its first byte to its last", () => {
    const { made, names } = symbols()
    assert.deepStrictEqual(names(), [at(0), at(1), at(2)])
    const { kernel } = made
    const read = new ProgramSymbols(kernel, kernel.space)
    assert.deepStrictEqual(read.at(CODE), { name: "bpf_prog_0", offset: 0 })
    assert.deepStrictEqual(read.at(CODE + 0xffn), { name: "bpf_prog_0", offset: 0xff })
    assert.deepStrictEqual([CODE - 1n, CODE + 0x100n, CODE + 0x2100n].map((address) => read.at(address)), [
      undefined,
      undefined,
      undefined
    ])
  })

  it("is as long as the list can be read: up to a pointer to nothing, or a node that points back elsewhere", () => {
    const { made, middle, names } = symbols()
    made.set64(middle, NOWHERE)
    assert.deepStrictEqual(names(), [undefined, at(1), at(2)])
    made.set64(middle, middle)
    assert.deepStrictEqual(names(), [undefined, at(1), at(2)])
  })

  it("is as long as the list can be read: up to a symbol that is not mapped, but for its node", () => {
    const { first, made, names } = symbols()
    // A page's start, with what is before it not mapped: the node is there, the rest of the symbol is not.
    const page = made.made.page()
    const alone = 0xffff_c900_0000_0000n
    made.made.map(alone, page)
    made.set64(first, alone)
    made.set64(made.made.direct(page), made.symbol("bpf_kallsyms"), first)
    made.setAt("bpf_kallsyms", 8, alone)
    assert.deepStrictEqual(names(), [undefined, undefined, at(2)])
  })

  it("is empty before the first program", () => {
    const { made, names } = symbols()
    made.setAt("bpf_kallsyms", 0, 0n, 0n)
    assert.deepStrictEqual(names(), [undefined, undefined, undefined])
  })
})
