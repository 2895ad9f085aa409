/**
 * The NUL-terminated text in a field of `size` bytes, as UTF-8 with replacement characters for anything else. A field
 * without a NUL is text to its end.
 */
export const cString = (bytes: ArrayBufferView, at = 0, size = bytes.byteLength - at): string => {
  const field = Buffer.from(bytes.buffer, bytes.byteOffset + at, size)
  const end = field.indexOf(0)
  return field.toString("utf8", 0, end < 0 ? size : end)
}
