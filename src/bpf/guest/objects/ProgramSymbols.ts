import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { kvaOffset, kvaPage } from "../../../core/Address.ts"
import { cString } from "../../../core/CString.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import { listNodes } from "../../../memory/structs/ListHead.ts"

/** Bytes `start` up to `end` are the code of `name`. */
interface CodeRange {
  readonly start: bigint
  readonly end: bigint
  readonly name: string
}

/**
 * The names of compiled BPF code: programs, their functions, trampolines. Empty where the kernel's symbols or BTF lack the
 * list; a list that breaks off is as long as it can be read.
 * @see kernel/bpf/core.c `bpf_kallsyms`; include/linux/bpf.h `struct bpf_ksym`; v5.8 and newer
 */
export class ProgramSymbols {
  private readonly ranges: ReadonlyArray<CodeRange>

  constructor(kernel: GuestKernelService, space: KernelSpace) {
    this.ranges = Array.from(symbolsOf(kernel, space)).sort((a, b) => a.start < b.start ? -1 : 1)
  }

  /** The symbol that an address lies in, and the distance in bytes from its start. */
  at(address: bigint): { readonly name: string; readonly offset: number } | undefined {
    const found = this.ranges.findLast(({ start }) => start <= address)
    return found !== undefined && address < found.end
      ? { name: found.name, offset: Number(address - found.start) }
      : undefined
  }
}

const symbolLayout = memoizeByBtf((btf) => layout(btf, "bpf_ksym", ["start", "end", "name", "lnode.next"]))

function* symbolsOf(kernel: GuestKernelService, space: KernelSpace): Generator<CodeRange> {
  const head = kernel.symbol("bpf_kallsyms")
  const found = symbolLayout(kernel.btf)
  if (head === undefined || Either.isLeft(found)) return
  const { at, size, sizeOf } = found.right
  for (const node of listNodes(space, head).nodes) {
    const symbol = node - BigInt(at["lnode.next"])
    if (!space.window(kvaPage(symbol), kvaOffset(symbol), size)) return
    yield {
      start: space.view.getBigUint64(space.at + at.start, true),
      end: space.view.getBigUint64(space.at + at.end, true),
      name: cString(space.view, space.at + at.name, sizeOf.name)
    }
  }
}
