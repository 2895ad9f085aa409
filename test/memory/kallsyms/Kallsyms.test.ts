import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { parsing } from "../../../src/core/FormatError.ts"
import { Kallsyms } from "../../../src/memory/kallsyms/Kallsyms.ts"
import { KernelSpace } from "../../../src/memory/KernelSpace.ts"
import { isLocated, locateByVmcoreinfo } from "../../../src/memory/LocateKernel.ts"
import { Vmcoreinfo } from "../../../src/memory/Vmcoreinfo.ts"
import { LOADED, LONG_NAME, MadeKernel } from "../MadeKernel.ts"

const read = (made: MadeKernel, replace?: (text: string) => string) => {
  const location = locateByVmcoreinfo(made.memory())
  if (!isLocated(location)) return assert.fail(location.why)
  const info = new Vmcoreinfo(0, made.noteText(replace))
  return parsing(() => new Kallsyms(new KernelSpace(location.table, undefined), info))
}
const kallsyms = (made: MadeKernel) => Either.getOrThrow(read(made))
const refusal = (made: MadeKernel, replace?: (text: string) => string) =>
  Either.match(read(made, replace), { onLeft: (error) => error.message, onRight: () => "read" })

const ENCODINGS = ["absolute per-CPU", "relative to the base", "relative to its place"] as const

describe.each(ENCODINGS)("Kallsyms, offsets %s", (encoding) => {
  const made = new MadeKernel({ encoding })

  it("tells the encoding by what VMCOREINFO says of a few symbols", () => {
    const symbols = kallsyms(made)
    assert.strictEqual(symbols.encoding, encoding)
    assert.match(
      symbols.evidence,
      /^\d+ symbols, found by VMCOREINFO, offsets .*: the address of _stext, init_uts_ns, swapper_pg_dir is /
    )
  })

  // no kernel has offsets that are relative to their place before its names
  it.each(encoding === "relative to its place" ? [true] : [true, false])(
    "is found by its structure alone, offsets behind the tokens %s",
    (offsetsLast) => {
      const made = new MadeKernel({ encoding, offsetsLast, fillers: 3000 })
      const symbols = Either.getOrThrow(read(made, (text) => text.replaceAll(/SYMBOL\(kallsyms_.*\n/g, "")))
      assert.include(symbols.evidence, "found by structure")
      assert.strictEqual(symbols.encoding, encoding)
      assert.deepStrictEqual(
        [...symbols.entries()],
        made.expectedSymbols().map((symbol) => ({ ...symbol, type: "D" }))
      )
    }
  )

  it("lists the symbols that were put in, in order", () => {
    assert.deepStrictEqual(
      [...kallsyms(made).entries()],
      made.expectedSymbols().map((symbol) => ({ ...symbol, type: "D" }))
    )
  })

  it("finds each by its name, also one of 300 letters", () => {
    const symbols = kallsyms(made)
    for (const { address, name } of made.expectedSymbols()) assert.strictEqual(symbols.address(name), address, name)
    assert.strictEqual(symbols.address(LONG_NAME), made.symbols.get(LONG_NAME))
    for (const absent of ["", "_stex", "_stext_", "D_stext", "Xstext", LONG_NAME.slice(1), "x".repeat(5000)]) {
      assert.strictEqual(symbols.address(absent), undefined, absent)
    }
  })

  it("names an address by the first of the symbols at or below it", () => {
    const symbols = kallsyms(made)
    const image = made.expectedSymbols().filter(({ address }) => address > 2n ** 63n)
    for (const { address } of image) {
      const name = image.find((symbol) => symbol.address === address)!.name
      assert.deepStrictEqual(symbols.at(address), { name, offset: 0 })
    }
    assert.deepStrictEqual(symbols.at(made.symbols.get("_stext")! + 1n), { name: "_stext", offset: 1 })
    assert.strictEqual(symbols.at(image[0].address - 1n), undefined)
    assert.strictEqual(symbols.at(image.at(-1)!.address + 1n), undefined)
    assert.strictEqual(symbols.at(0n), undefined)
    assert.strictEqual(symbols.at(0x3_6400n), undefined)
  })
})

describe("Kallsyms with the kernel's order of names", () => {
  const byOrder = "names are found by the kernel's order"

  it.each([
    ...ENCODINGS.map((encoding) => ({ encoding, offsetsLast: true })),
    { encoding: ENCODINGS[0], offsetsLast: false } // v6.2 and v6.3
  ])("finds each name by it, offsets $encoding and last: $offsetsLast", (options) => {
    const made = new MadeKernel({
      ...options,
      ordered: "whole",
      fillers: 1500,
      objects: { "_stext.cold": 8, zz: 8, "a.b": 8 }
    })
    const symbols = kallsyms(made)
    assert.include(symbols.evidence, byOrder)
    for (const { address, name } of made.expectedSymbols()) assert.strictEqual(symbols.address(name), address, name)
    for (const absent of ["", "_stex", "_stext_", "Xstext", LONG_NAME.slice(1), "zzz", "\xff", "x".repeat(5000)]) {
      assert.strictEqual(symbols.address(absent), undefined, absent)
    }
  })

  it("finds what Clang's LTO does not order by all of its name", () => {
    const objects = { "foo.llvm.7": 8, "foo.b": 8, "foo.a": 8, foo: 8, foo_bar: 8, "foo.c": 8 }
    const made = new MadeKernel({ ordered: "to the dot", objects, fillers: 600 })
    const symbols = kallsyms(made)
    assert.include(symbols.evidence, byOrder)
    for (const { address, name } of made.expectedSymbols()) assert.strictEqual(symbols.address(name), address, name)
    assert.deepStrictEqual(["foo.", "foo.d", "fo", "foo.llvm"].map((name) => symbols.address(name)), [
      undefined,
      undefined,
      undefined,
      undefined
    ])
  })

  it("does without one that is broken", () => {
    for (const byte of [0xff, 0]) {
      const made = new MadeKernel({ ordered: "whole", fillers: 300 })
      const at = made.physical("kallsyms_seqs_of_names") - LOADED
      made.bytes.fill(byte, at, at + 3 * made.expectedSymbols().length)
      const symbols = kallsyms(made)
      assert.include(symbols.evidence, "names are found by their first tokens")
      for (const { address, name } of made.expectedSymbols()) assert.strictEqual(symbols.address(name), address, name)
    }
  })
})

describe("Kallsyms", () => {
  it("refuses tables that contradict themselves", () => {
    const broken = (change: (made: MadeKernel) => void) => {
      const made = new MadeKernel()
      change(made)
      return refusal(made)
    }
    const set32 = (name: string, value: number) => (made: MadeKernel) =>
      made.view.setUint32(made.physical(name) - LOADED, value, true)
    assert.include(broken(set32("kallsyms_num_syms", 0)), "1 to 2097152 symbols, not 0")
    assert.include(broken(set32("kallsyms_num_syms", 0xffff_ffff)), "not 4294967295")
    assert.include(broken(set32("kallsyms_num_syms", 2 ** 21)), "2097152 names inside their table")
    assert.include(broken(set32("kallsyms_num_syms", 1000)), "1000 names inside their table")
    assert.include(broken(set32("kallsyms_names", 0)), "names inside their table")
    assert.match(
      broken(set32("kallsyms_relative_base", 0)),
      /give _stext at 0x[0-9a-f]+, as VMCOREINFO does: absolute per-CPU it is at 0x[0-9a-f]+; relative to the base it is at 0x/
    )
    assert.include(
      broken((made) => made.view.setUint16(made.physical("kallsyms_token_index") - LOADED, 0xffff, true)),
      "token 0 inside"
    )
  })

  it("says what VMCOREINFO lacks, and when that is normal", () => {
    const made = new MadeKernel()
    assert.include(
      refusal(made, (text) => text.replace(/SYMBOL\(kallsyms_offsets\).*\n/, "")),
      "SYMBOL(kallsyms_offsets) in VMCOREINFO beside SYMBOL(kallsyms_names)"
    )
    assert.include( // too few symbols for markers
      refusal(made, (text) => text.replaceAll(/SYMBOL\(kallsyms_.*\n/g, "")),
      "kallsyms tables, in VMCOREINFO (v6.0 and newer) or by their structure"
    )
    const far = (name: string) => (text: string) => text.replace(new RegExp(`(${name}\\)=).*`), "$1ffffffffff000000")
    assert.include(refusal(made, far("kallsyms_num_syms")), "is not mapped")
    assert.include(refusal(made, far("kallsyms_token_table")), "at most 67108864 bytes after kallsyms_names")
    assert.include(refusal(made, far("kallsyms_token_index")), "at most 131072 bytes after kallsyms_token_table")
  })
})
