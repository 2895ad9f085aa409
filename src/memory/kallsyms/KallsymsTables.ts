import { Buffer } from "node:buffer"
import { FormatError } from "../../core/FormatError.ts"
import type { KernelSpace } from "../KernelSpace.ts"
import type { Vmcoreinfo } from "../Vmcoreinfo.ts"

/** Bounds on what a table may claim; a kernel with all options has about 300,000 symbols in 4 MB of names. */
export const MAX_SYMBOLS = 2 ** 21
const MAX_NAMES = 2 ** 26
export const TOKENS = 256
/** Bytes of each entry of `kallsyms_seqs_of_names`. */
export const SEQUENCE_BYTES = 3
const MAX_TOKENS = 2 ** 17

/** Where a table lies in the kernel's memory; its length in bytes. */
export interface TablePlace {
  readonly address: bigint
  readonly length: number
}

/** A place where a kernel may keep the offsets of its symbols, one s32 or u32 each. */
export interface OffsetTable extends TablePlace {
  /** `kallsyms_relative_base`; undefined where offsets count from their own place. */
  readonly base: bigint | undefined
}

/** A kernel's kallsyms tables; the two of the tokens are borrowed from its memory. What they say is not proved yet. */
export interface KallsymsTables {
  readonly foundBy: "VMCOREINFO" | "structure"
  readonly count: number
  /** Starts with the first name; may go on behind the last. */
  readonly names: TablePlace
  readonly tokenTable: Buffer
  readonly tokenIndex: Buffer
  readonly offsetTables: ReadonlyArray<OffsetTable>
  /**
   * Where kernels may keep `kallsyms_seqs_of_names`, 3 bytes for each symbol. Those without have something else there.
   */
  readonly orders: ReadonlyArray<TablePlace>
}

const SUBJECT = "the guest's kallsyms"

export const brokenKallsyms = (offset: number, expected: string): FormatError =>
  new FormatError({ format: "kallsyms", subject: SUBJECT, offset, expected })

/**
 * The tables where VMCOREINFO says that they are: v6.0, "kallsyms: export …" by `crash_save_vmcoreinfo_init`. Undefined
 * where it says nothing of kallsyms. Since v7.0, "kallsyms: Get rid of kallsyms relative base", it has no
 * `kallsyms_relative_base`.
 * @throws FormatError where a table is not in memory, or two contradict each other
 * @see kernel/vmcore_info.c, v6.12 and v7.3
 */
export const kallsymsFromNote = (space: KernelSpace, info: Vmcoreinfo): KallsymsTables | undefined => {
  if (info.symbol("kallsyms_names") === undefined) return undefined
  const address = (name: string): bigint => {
    const found = info.symbol(name)
    if (found === undefined) throw brokenKallsyms(0, `SYMBOL(${name}) in VMCOREINFO beside SYMBOL(kallsyms_names)`)
    return found
  }
  const borrow = (name: string, bytes: number): Buffer => {
    const found = space.borrow(address(name), bytes)
    if (found === undefined) throw brokenKallsyms(0, `${name} to be readable (${space.faultText})`)
    return Buffer.from(found.buffer, found.byteOffset, found.byteLength)
  }
  const extent = (from: string, to: string, limit: number): number => {
    const bytes = address(to) - address(from)
    if (bytes <= 0n || bytes > BigInt(limit)) throw brokenKallsyms(0, `${to} at most ${limit} bytes after ${from}`)
    return Number(bytes)
  }
  const count = borrow("kallsyms_num_syms", 4).readUInt32LE(0)
  if (count === 0 || count > MAX_SYMBOLS) throw brokenKallsyms(0, `1 to ${MAX_SYMBOLS} symbols, not ${count}`)
  const hasBase = info.symbol("kallsyms_relative_base") !== undefined
  // the last of the tables since v6.4: behind the offsets, or their base; aligned to 8, in v7.3 to 4
  const lastAt = hasBase ? address("kallsyms_relative_base") + 8n : address("kallsyms_offsets") + BigInt(count * 4)
  const beforeTokens = (address("kallsyms_token_table") - BigInt(count * SEQUENCE_BYTES)) & ~7n
  const places = [...new Set([(lastAt + 7n) & ~7n, (lastAt + 3n) & ~3n, beforeTokens])]
  return {
    foundBy: "VMCOREINFO",
    count,
    names: {
      address: address("kallsyms_names"),
      length: extent("kallsyms_names", "kallsyms_token_table", MAX_NAMES)
    },
    tokenTable: borrow("kallsyms_token_table", extent("kallsyms_token_table", "kallsyms_token_index", MAX_TOKENS)),
    tokenIndex: borrow("kallsyms_token_index", TOKENS * 2),
    offsetTables: [{
      address: address("kallsyms_offsets"),
      length: count * 4,
      base: hasBase ? borrow("kallsyms_relative_base", 8).readBigUInt64LE(0) : undefined
    }],
    orders: places.map((address) => ({ address, length: count * SEQUENCE_BYTES }))
  }
}
