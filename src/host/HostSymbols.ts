import { readFileSync } from "node:fs"
import type { KernelSymbol, Symbols } from "../memory/Symbols.ts"

/**
 * The running kernel's symbols, with those of modules and BPF programs. Empty when the kernel hides addresses from this
 * user (they read as zero), which is not an error.
 * @see kernel/kallsyms.c `s_show`, `kallsyms_show_value`; Documentation/admin-guide/sysctl/kernel.rst `kptr_restrict`; v6.12
 * @since 0.1.0
 * @category models
 */
export class HostSymbols implements Symbols {
  private readonly list: ReadonlyArray<KernelSymbol>
  private readonly byName = new Map<string, bigint>()

  /** `text` is that of `/proc/kallsyms`; lines of another form, and addresses of 0, are skipped. */
  constructor(text: string) {
    const list: Array<KernelSymbol> = []
    for (const line of text.split("\n")) {
      const [, digits, name] = LINE.exec(line) ?? []
      if (digits === undefined) continue
      const address = BigInt(`0x${digits}`)
      if (address !== 0n) list.push({ name, address })
    }
    this.list = list.sort((a, b) => a.address < b.address ? -1 : a.address > b.address ? 1 : 0)
    for (const { address, name } of this.list) if (!this.byName.has(name)) this.byName.set(name, address)
  }

  /** Those of /proc/kallsyms as it is now. */
  static readonly read = (): HostSymbols => {
    try {
      return new HostSymbols(readFileSync("/proc/kallsyms", "latin1"))
    } catch {
      return new HostSymbols("") // without /proc, or CONFIG_KALLSYMS, nothing has a name
    }
  }

  get size(): number {
    return this.list.length
  }

  address(name: string): bigint | undefined {
    return this.byName.get(name)
  }

  /** The nearest symbol at or below a kernel address, and the distance in bytes; the first of those at one address. */
  at(address: bigint): { readonly name: string; readonly offset: number } | undefined {
    if (address < KERNEL_HALF) return undefined
    const { list } = this
    let low = 0
    for (let high = list.length; low < high;) {
      const middle = (low + high) >>> 1
      if (list[middle].address <= address) low = middle + 1
      else high = middle
    }
    if (low === 0 || list[low - 1].address < KERNEL_HALF) return undefined
    let index = low - 1
    while (index > 0 && list[index - 1].address === list[index].address) index--
    return { name: list[index].name, offset: Number(address - list[index].address) }
  }

  /** All symbols, by ascending address. */
  entries(): Iterable<KernelSymbol> {
    return this.list
  }
}

/** Symbols below are offsets of per-CPU variables (before v6.15); Documentation/arch/x86/x86_64/mm.rst, v6.12. */
const KERNEL_HALF = 0xff00_0000_0000_0000n
/** `ffffffff81000000 T _text`, and behind a tab a module's name. */
const LINE = /^([0-9a-f]{1,16}) \S (\S+)/i
