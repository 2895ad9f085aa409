import { Buffer } from "node:buffer"
import { SEQUENCE_BYTES } from "./KallsymsTables.ts"
import { MAX_NAME, type SymbolNames } from "./SymbolNames.ts"

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

/** By the names of the same length: their order is made at once, in tens of milliseconds. */
export const findByLength = (names: SymbolNames): FindSymbol => {
  const { lengths, starts } = names.measure()
  // The names in the order of their lengths, those of a length in the order of the table, and where those of each begin.
  const byLength = new Uint32Array(names.count)
  const begin = new Uint32Array(MAX_NAME + 2)
  for (let i = 0; i < names.count; i++) begin[lengths[i] + 1]++
  for (let length = 1; length < begin.length; length++) begin[length] += begin[length - 1]
  const places = begin.slice()
  for (let i = 0; i < names.count; i++) byLength[places[lengths[i]]++] = i
  return (name) => {
    const wanted = Buffer.from(name, "latin1")
    const length = wanted.length + 1
    if (length > MAX_NAME) return -1
    for (let at = begin[length]; at < begin[length + 1]; at++) {
      if (names.compare(starts[byLength[at]], wanted) === 0) return byLength[at]
    }
    return -1
  }
}
