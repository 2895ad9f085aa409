import * as Either from "effect/Either"
import { Buffer } from "node:buffer"
import { Btf } from "../../btf/Btf.ts"
import { longestBlobIn } from "../../btf/BtfHeader.ts"
import type { KernelSpace } from "../KernelSpace.ts"
import type { KernelSymbol, Symbols } from "../Symbols.ts"
import type { Vmcoreinfo } from "../Vmcoreinfo.ts"
import { addressesUsedBy } from "./AddressesInCode.ts"
import { readExports } from "./Exports.ts"
import { proofsOf, SCHED_CLASSES, schedClassIn } from "./Proofs.ts"

/** Read-only data of an image that is looked through, in bytes: one of arm64 has 8 MB. */
const MOST_DATA = 64 * 2 ** 20

/**
 * Has a table of symbols those of data? Without CONFIG_KALLSYMS_ALL it has functions only.
 * @see scripts/kallsyms.c `symbol_valid`, v6.1
 */
export const hasData = (symbols: Symbols): boolean => symbols.address("init_task") !== undefined

/**
 * A table of functions, with symbols of data found in other ways: in VMCOREINFO, in the kernel's exports to modules, BTF by its
 * form, and on arm64 in the code of functions that use a variable. A variable is taken where exactly one of the addresses in
 * that code holds what the variable must hold. All others stay unknown. Everything is looked for once: the memory may end before
 * names are asked for.
 */
export class ProvedSymbols implements Symbols {
  /** A line for people: the symbols that were found, and how. */
  readonly evidence: string
  readonly #functions: Symbols
  readonly #info: Vmcoreinfo
  readonly #data = new Map<string, bigint>()
  /** Where the nearest symbol below says nothing. */
  readonly #start: bigint
  readonly #end: bigint

  constructor(space: KernelSpace, info: Vmcoreinfo, functions: Symbols) {
    this.#functions = functions
    this.#info = info
    this.#start = functions.address("_etext") ?? 0n
    this.#end = functions.address("_sinittext") ?? 0n
    const image = bytesBetween(space, this.#start, this.#end)
    this.evidence = image === undefined
      ? "none: the kernel's read-only data, from _etext to _sinittext, cannot be read"
      : this.#look(space, image)
  }

  #look(space: KernelSpace, image: Buffer): string {
    const exports = readExports(image, this.#start, this.#functions)
    // of the names that are exported, VMCOREINFO has this one too
    if (exports.get("init_uts_ns") === this.#info.symbol("init_uts_ns")) {
      for (const [name, address] of exports) this.#data.set(name, address)
    }
    const exported = `${this.#data.size} are exported`
    const blob = longestBlobIn(image)
    const btf = blob === undefined ? undefined : Either.getOrUndefined(Btf.parse(blob, { subject: "the kernel's BTF" }))
    if (blob === undefined || btf === undefined || btf.idsByName("task_struct").length === 0) {
      return `${exported}; no BTF of a kernel is in the image`
    }
    const start = this.#start + BigInt(blob.byteOffset - image.byteOffset)
    this.#data.set("__start_BTF", start)
    this.#data.set("__stop_BTF", start + BigInt(blob.length))
    const kernel = { space, btf, symbols: this }
    const proved: Array<string> = []
    const unproved: Array<string> = []
    const take = (name: string, found: ReadonlyArray<bigint>): void => {
      if (this.address(name) !== undefined) return
      if (found.length === 1) this.#data.set(name, found[0])
      ;(found.length === 1 ? proved : unproved).push(name)
    }
    for (const name of SCHED_CLASSES) {
      take(`${name}_sched_class`, schedClassIn(image, this.#start, kernel, name))
    }
    for (const { holds, name, user } of proofsOf(kernel)) {
      const addresses = addressesUsedBy(space, this.#functions, user)
      take(name, [...addresses].filter((address) => holds(address, addresses)))
    }
    const others = unproved.length === 0 ? "" : `; not ${unproved.join(", ")}`
    return `${exported}, BTF by its form, by their users and what they hold ${proved.join(", ")}${others}`
  }

  address(name: string): bigint | undefined {
    return this.#functions.address(name) ?? this.#data.get(name) ?? this.#info.symbol(name)
  }

  at(address: bigint): { readonly name: string; readonly offset: number } | undefined {
    return address >= this.#start && address < this.#end ? undefined : this.#functions.at(address)
  }

  *entries(): Iterable<KernelSymbol> {
    yield* this.#functions.entries()
    for (const [name, address] of this.#data) {
      if (this.#functions.address(name) === undefined) yield { name, address }
    }
  }
}

const bytesBetween = (space: KernelSpace, start: bigint, end: bigint): Buffer | undefined => {
  const size = end - start
  const bytes = start > 0n && size > 0n && size <= BigInt(MOST_DATA) ? space.borrow(start, Number(size)) : undefined
  return bytes === undefined ? undefined : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
