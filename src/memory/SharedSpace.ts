import { Arm64PageTable, type Arm64Paging } from "./arch/Arm64PageTable.ts"
import { X86PageTable } from "./arch/X86PageTable.ts"
import { GuestMemory } from "./GuestMemory.ts"
import { KernelSpace } from "./KernelSpace.ts"

/** A kernel's virtual memory as plain data, whose bytes threads share: `openSharedSpace` makes a cursor over it in another thread. */
export interface SharedSpace {
  readonly regions: ReadonlyArray<{ readonly start: number; readonly bytes: Uint8Array }>
  readonly root: number
  /** Of x86-64 the number of levels. */
  readonly paging: Arm64Paging | 4 | 5
  readonly directBase: number | undefined
}

/** Undefined where threads cannot share the memory: it is read a page at a time, or mapped in pieces that belong to a thread. */
export const sharedSpace = ({ directBase, memory, table }: KernelSpace): SharedSpace | undefined => {
  const { regions } = memory
  if (regions.length === 0 || regions.some(({ bytes }) => !(bytes.buffer instanceof SharedArrayBuffer))) {
    return undefined
  }
  return {
    regions: regions.map(({ bytes, start }) => ({ start, bytes })),
    root: table.root,
    paging: table instanceof Arm64PageTable ? table.paging : table.levels === 5 ? 5 : 4,
    directBase
  }
}

/** The same memory, read by this thread. */
export const openSharedSpace = ({ directBase, paging, regions, root }: SharedSpace): KernelSpace => {
  const memory = new GuestMemory(regions)
  return new KernelSpace(
    typeof paging === "number" ? new X86PageTable(memory, root, paging) : new Arm64PageTable(memory, root, paging),
    directBase
  )
}
