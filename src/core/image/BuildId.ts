import { type ElfFile, SegmentType } from "./Elf.ts"

/** include/uapi/linux/elf.h NT_GNU_BUILD_ID, v6.12 */
const NT_GNU_BUILD_ID = 3

/**
 * The GNU build id of an ELF file in lower-case hex, or undefined: what `file` and `readelf -n` print.
 * @see the gABI, "Note Section": name size, description size, type, then both padded to 4 bytes
 * @since 0.1.0
 * @category writing
 */
export const buildIdOf = (elf: ElfFile): string | undefined => {
  for (const segment of elf.segments) {
    if (segment.type !== SegmentType.Note) continue
    const notes = elf.bytes.subarray(segment.offset, segment.offset + segment.filesz)
    const view = new DataView(notes.buffer, notes.byteOffset, notes.byteLength)
    for (let at = 0; at + 12 <= notes.length;) {
      const name = at + 12
      const description = name + padded(view.getUint32(at, true))
      const size = view.getUint32(at + 4, true)
      if (description + size > notes.length) break
      if (view.getUint32(at + 8, true) === NT_GNU_BUILD_ID && latin1(notes.subarray(name, name + 4)) === "GNU\0") {
        return Buffer.from(notes.subarray(description, description + size)).toString("hex")
      }
      at = description + padded(size)
    }
  }
  return undefined
}

const padded = (size: number): number => Math.ceil(size / 4) * 4
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")
