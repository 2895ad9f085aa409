import { Buffer } from "node:buffer"
import { SEQUENCE_BYTES, TOKENS } from "./KallsymsTables.ts"
import type { SymbolNames } from "./SymbolNames.ts"

/** The index of the first symbol of a name, or -1; undefined where this way cannot tell. */
export type FindSymbol = (name: string) => number | undefined

/**
 * By the indices in the order of the names, which the kernel keeps for its own lookups: v6.2, "kallsyms: Improve the
 * performance of kallsyms_lookup_name()". Equal names are in the order of the table. A kernel of Clang's LTO orders names
 * by what is before their first dot: where a dot is in the wanted name, or follows it in its neighbour, not to find it says
 * nothing.
 * @param sequences 3 bytes for each symbol, big-endian
 * @see scripts/kallsyms.c `sort_symbols_by_name`, `compare_names`; kernel/kallsyms.c `kallsyms_lookup_names`, v6.12
 */
export const findByOrder = (names: SymbolNames, sequences: Buffer): FindSymbol => (name) => {
  const wanted = Buffer.from(name, "latin1")
  const sequence = (place: number) => sequences.readUIntBE(place * SEQUENCE_BYTES, SEQUENCE_BYTES)
  let low = 0
  let high = names.count
  while (low < high) { // ends at the first that is not before the wanted one
    const middle = (low + high) >>> 1
    const i = sequence(middle)
    if (i >= names.count) return undefined
    if (names.compare(names.start(i), wanted) < 0) low = middle + 1
    else high = middle
  }
  if (low === names.count) return name.includes(".") ? undefined : -1
  const i = sequence(low)
  if (i >= names.count) return undefined
  if (names.compare(names.start(i), wanted) === 0) return i
  return name.includes(".") || names.name(names.start(i)).startsWith(`${name}.`) ? undefined : -1
}

/** By the names that begin with the same two tokens: which these are is found at once, in milliseconds. */
export const findByTokens = (names: SymbolNames): FindSymbol => {
  const starts = new Uint32Array(names.count)
  // By two tokens the last symbol that begins with them, by each symbol the one before it that does; -1: there is none.
  const last = new Int32Array(TOKENS * TOKENS).fill(-1)
  const before = new Int32Array(names.count)
  for (let i = 0, start = 0; i < names.count; i++, start = names.next(start)) {
    const tokens = names.firstTokens(start)
    starts[i] = start
    before[i] = last[tokens]
    last[tokens] = i
  }
  return (name) => {
    const wanted = Buffer.from(name, "latin1")
    let first = names.count
    for (const tokens of names.firstTokensOf(name)) {
      for (let i = last[tokens]; i >= 0; i = before[i]) {
        if (i < first && names.compare(starts[i], wanted) === 0) first = i
      }
    }
    return first === names.count ? -1 : first
  }
}
