import type { Enumerator } from "./BtfType.ts"

/** The range of the values of an enum without a sign flag: read as unsigned, and as signed. */
export interface EnumRange {
  readonly largest: number
  readonly signedLeast: number
  readonly signedLargest: number
}

/** Undefined where no sign is in question: there are values of more than 32 bits, or negative ones. */
export const enumRange = (values: ReadonlyArray<Enumerator>): EnumRange | undefined => {
  let [largest, signedLeast, signedLargest] = [0, 0, 0]
  for (const { value } of values) {
    if (typeof value === "bigint" || value < 0 || value > 0xffff_ffff) return undefined
    largest = Math.max(largest, value)
    signedLeast = Math.min(signedLeast, value | 0)
    signedLargest = Math.max(signedLargest, value | 0)
  }
  return { largest, signedLeast, signedLargest }
}

/**
 * Whether the values are negative where `bits` bits hold them: some do not fit unless they are, and then all do. clang
 * before 15 and pahole before 1.24 set no flag and write -1 as 0xffffffff, also of an enum of one byte. A bit-field that is
 * narrower than its enum shows the sign in the same way.
 * @see llvm commit "[BPF] Introduce a BTF_KIND_ENUM64 and kflag for enums" (LLVM 15)
 */
export const isSignedIn = ({ largest, signedLargest, signedLeast }: EnumRange, bits: number): boolean =>
  bits >= 1 && bits < 32 && largest >= 2 ** bits && signedLeast >= -(2 ** (bits - 1)) && signedLargest < 2 ** (bits - 1)

/** The same values, as 32 bits hold them with a sign. */
export const asSigned = (values: ReadonlyArray<Enumerator>): ReadonlyArray<Enumerator> =>
  values.map(({ name, value }) => ({ name, value: Number(value) | 0 }))
