/**
 * The NUL-terminated text in a field of `size` bytes, as UTF-8; a byte that is not UTF-8 is written as `\xff` is. A field
 * without a NUL is text to its end.
 */
export const cString = (bytes: ArrayBufferView, at = 0, size = bytes.byteLength - at): string => {
  const field = Buffer.from(bytes.buffer, bytes.byteOffset + at, size)
  const end = field.indexOf(0)
  const text = field.toString("utf8", 0, end < 0 ? size : end)
  return text.includes(REPLACEMENT) ? withBytes(end < 0 ? field : field.subarray(0, end)) : text
}

/** The character that a decoder puts in place of bytes that are not UTF-8. */
const REPLACEMENT = "\ufffd"

const withBytes = (field: Buffer): string => {
  let text = ""
  for (let at = 0; at < field.length;) {
    const lead = field[at]
    const length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4
    const character = field.toString("utf8", at, at + length)
    const whole = Buffer.from(character).equals(field.subarray(at, at + length))
    text += whole ? character : `\\x${lead.toString(16).padStart(2, "0")}`
    at += whole ? length : 1
  }
  return text
}
