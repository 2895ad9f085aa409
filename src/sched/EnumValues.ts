import type { Btf } from "../btf/Btf.ts"
import { memoizeByBtf } from "../btf/MemoizeByBtf.ts"

type Names = ReadonlyMap<bigint, string>

const known = memoizeByBtf(() => new Map<string, Names>())

/** The names of an enum's values by number, as 64-bit unsigned values; empty where the kernel has no such enum. */
export const enumValues = (btf: Btf, name: string): Names => {
  const before = known(btf).get(name)
  if (before !== undefined) return before
  const names = new Map<bigint, string>()
  for (const id of btf.idsByName(name)) {
    const type = btf.type(id)
    if (type?.kind !== "ENUM" && type?.kind !== "ENUM64") continue
    for (const { name, value } of type.values) {
      const number = type.size === 4 ? BigInt.asUintN(32, BigInt(value)) : BigInt.asUintN(64, BigInt(value))
      if (!names.has(number)) names.set(number, name)
    }
  }
  known(btf).set(name, names)
  return names
}

/** The names of single bits that are set, without `prefix`; bits without a name as one hexadecimal number. */
export const flagNames = (names: Names, prefix: string, flags: bigint): ReadonlyArray<string> => {
  const found: Array<string> = []
  let rest = flags
  for (const [bit, name] of names) {
    const single = bit !== 0n && (bit & (bit - 1n)) === 0n
    if (!single || (rest & bit) === 0n || !name.startsWith(prefix)) continue
    found.push(name.slice(prefix.length))
    rest &= ~bit
  }
  if (rest !== 0n) found.push(`0x${rest.toString(16)}`)
  return found
}
