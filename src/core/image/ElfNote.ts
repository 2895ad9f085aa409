const HEADER = 12

/**
 * The description of the first note of a name and a type among the bytes of a note segment, borrowed; undefined if there
 * is none.
 * @param name without its NUL
 * @see include/uapi/linux/elf.h `struct elf64_note`, v6.12: sizes of name and description, type, then both padded to 4 bytes
 * @since 0.1.0
 * @category reading
 */
export const elfNote = (notes: Uint8Array, name: string, type: number): Uint8Array | undefined => {
  const view = new DataView(notes.buffer, notes.byteOffset, notes.byteLength)
  for (let at = 0; at + HEADER <= notes.length;) {
    const description = at + HEADER + padded(view.getUint32(at, true))
    const size = view.getUint32(at + 4, true)
    if (description + size > notes.length) return undefined
    if (view.getUint32(at + 8, true) === type && latin1(notes, at + HEADER, name.length + 1) === `${name}\0`) {
      return notes.subarray(description, description + size)
    }
    at = description + padded(size)
  }
  return undefined
}

/**
 * A note as it stands in a segment.
 * @param name without its NUL
 * @since 0.1.0
 * @category writing
 */
export const makeElfNote = (name: string, type: number, description: Uint8Array): Buffer => {
  const at = HEADER + padded(name.length + 1)
  const note = Buffer.alloc(at + padded(description.length))
  note.writeUInt32LE(name.length + 1, 0)
  note.writeUInt32LE(description.length, 4)
  note.writeUInt32LE(type, 8)
  note.write(name, HEADER, "latin1")
  note.set(description, at)
  return note
}

const padded = (size: number): number => Math.ceil(size / 4) * 4
const latin1 = (bytes: Uint8Array, at: number, length: number): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1", at, at + length)
