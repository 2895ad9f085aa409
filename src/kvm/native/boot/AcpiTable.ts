const text = new TextEncoder()

/** A table with its common head of 36 bytes. @see ACPI Specification 6.5, 5.2.6 */
export const acpiTable = (signature: string, revision: number, body: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(36 + body.length)
  const view = new DataView(bytes.buffer)
  bytes.set(text.encode(signature), 0)
  view.setUint32(4, bytes.length, true)
  bytes[8] = revision
  bytes.set(text.encode("KTSTR KTSTR   "), 10)
  view.setUint32(24, 1, true) // OEM revision
  bytes.set(text.encode("KTST"), 28)
  view.setUint32(32, 1, true) // creator revision
  bytes.set(body, 36)
  bytes[9] = checksum(bytes)
  return bytes
}

/** The byte that makes the sum of all 0. */
export const checksum = (bytes: Uint8Array): number => -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff

/** The bytes of little-endian numbers of 16, 32 and 64 bits. */
export const u16 = (value: number): ReadonlyArray<number> => [value & 0xff, (value >>> 8) & 0xff]
export const u32 = (value: number): ReadonlyArray<number> => [...u16(value), ...u16(value >>> 16)]
export const u64 = (value: number): ReadonlyArray<number> => [...u32(value), ...u32(Math.floor(value / 2 ** 32))]
