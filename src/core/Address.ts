import * as Brand from "effect/Brand"
import * as Schema from "effect/Schema"

/**
 * Guest-physical byte address. x86-64 stops at 52 bits, so every `Pa` is an exact `number`.
 *
 * @since 0.1.0
 * @category models
 */
export type Pa = number & Brand.Brand<"Pa">
/**
 * A guest-physical address in bytes, below 2^52.
 *
 * @since 0.1.0
 * @category constructors
 */
export const Pa = Brand.refined<Pa>((n) => n >= 0 && n < 2 ** 52 && n % 1 === 0, (n) => Brand.error(`not a Pa: ${n}`))

/**
 * Kernel virtual address: above 2^53, so a `bigint`. Loops use its page number (`kvaPage`, 52 bits) and the offset in the
 * page instead.
 * @see Documentation/arch/x86/x86_64/mm.rst, v6.12: with 5-level paging the kernel's half begins at 0xff00000000000000
 * @since 0.1.0
 * @category models
 */
export type Kva = bigint & Brand.Brand<"Kva">
/**
 * A kernel virtual address, 64 bits.
 *
 * @since 0.1.0
 * @category constructors
 */
export const Kva = Brand.refined<Kva>(
  (n) => n >> 56n === 0xffn,
  (n) => Brand.error(`not a kernel address: 0x${n.toString(16)}`)
)

/**
 * The page number (address / 4096) of an address, exact in a double.
 *
 * @since 0.1.0
 * @category utilities
 */
export const kvaPage = (kva: bigint): number => Number(BigInt.asUintN(64, kva) >> 12n)

/**
 * The offset in its 4 KiB page of an address.
 *
 * @since 0.1.0
 * @category utilities
 */
export const kvaOffset = (kva: bigint): number => Number(kva & 0xfffn)

/**
 * `0xffffffff81000000` from a page number and an offset.
 *
 * @since 0.1.0
 * @category utilities
 */
export const kvaFrom = (page: number, offset: number): bigint =>
  BigInt.asUintN(64, (BigInt(page) << 12n) + BigInt(offset))

/**
 * `0x…` with no padding, for messages and JSON.
 *
 * @since 0.1.0
 * @category rendering
 */
export const hex = (n: bigint | number): string => `0x${n.toString(16)}`

/**
 * `"0xffffffff81000000"` in argv and JSON, `Kva` in memory.
 *
 * @since 0.1.0
 * @category schemas
 */
export const KvaFromHex = /* @__PURE__ */ Schema.transform(
  Schema.String.pipe(Schema.pattern(/^0x[0-9a-f]{16}$/)),
  Schema.BigIntFromSelf.pipe(Schema.fromBrand(Kva)),
  { strict: true, decode: (text) => BigInt(text), encode: hex }
).annotations({ message: () => ({ message: "expected a kernel address, 0x and 16 hex digits", override: true }) })
