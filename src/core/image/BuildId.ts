import { type ElfFile, SegmentType } from "./Elf.ts"
import { elfNote } from "./ElfNote.ts"

/** include/uapi/linux/elf.h NT_GNU_BUILD_ID, v6.12 */
const NT_GNU_BUILD_ID = 3

/**
 * The GNU build id of an ELF file in lower-case hex, or undefined: what `file` and `readelf -n` print.
 * @since 0.1.0
 * @category reading
 */
export const buildIdOf = (elf: ElfFile): string | undefined => {
  for (const { filesz, offset, type } of elf.segments) {
    if (type !== SegmentType.Note) continue
    const id = elfNote(elf.bytes.subarray(offset, offset + filesz), "GNU", NT_GNU_BUILD_ID)
    if (id !== undefined) return Buffer.from(id).toString("hex")
  }
  return undefined
}
