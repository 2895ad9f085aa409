import { Buffer } from "node:buffer"

export interface MadeSegment {
  readonly type?: number
  readonly vaddr?: bigint
  readonly paddr: number
  readonly bytes: Uint8Array
  /** `p_memsz`; that of the bytes if not given. */
  readonly memsz?: number
}

/** An ELF64 file: type 4 is a core, 2 an executable; machine 62 is x86-64. Symbols become `.symtab`. */
export const madeElf = (
  segments: ReadonlyArray<MadeSegment>,
  options: {
    readonly type?: number
    readonly machine?: number
    readonly symbols?: ReadonlyMap<string, bigint>
    readonly pad?: number
  } = {}
): Buffer => {
  const header = Buffer.alloc(64)
  header.write("\x7fELF\x02\x01\x01", "latin1")
  header.writeUInt16LE(options.type ?? 4, 16)
  header.writeUInt16LE(options.machine ?? 62, 18)
  header.writeUInt32LE(1, 20)
  header.writeBigUInt64LE(64n, 32)
  header.writeUInt16LE(64, 52)
  header.writeUInt16LE(56, 54)
  header.writeUInt16LE(segments.length, 56)
  header.writeUInt16LE(64, 58)
  const parts: Array<Buffer> = [header]
  let at = 64 + segments.length * 56 + (options.pad ?? 0)
  for (const { bytes, memsz, paddr, type, vaddr } of segments) {
    const program = Buffer.alloc(56)
    program.writeUInt32LE(type ?? 1, 0)
    program.writeBigUInt64LE(BigInt(at), 8)
    program.writeBigUInt64LE(vaddr ?? 0n, 16)
    program.writeBigUInt64LE(BigInt(paddr), 24)
    program.writeBigUInt64LE(BigInt(bytes.length), 32)
    program.writeBigUInt64LE(BigInt(memsz ?? bytes.length), 40)
    parts.push(program)
    at += bytes.length
  }
  parts.push(Buffer.alloc(options.pad ?? 0), ...segments.map(({ bytes }) => Buffer.from(bytes)))
  if (options.symbols !== undefined) {
    const names = Buffer.from(["", ...options.symbols.keys(), ""].join("\0"), "latin1")
    const table = Buffer.alloc(24 * (options.symbols.size + 1))
    let name = 1
    let row = 24
    for (const [text, value] of options.symbols) {
      table.writeUInt32LE(name, row)
      table[row + 4] = 0x11 // STB_GLOBAL, STT_OBJECT
      table.writeUInt16LE(0xfff1, row + 6)
      table.writeBigUInt64LE(value, row + 8)
      name += text.length + 1
      row += 24
    }
    const section = (type: number, offset: number, size: number, link: number, entry: number): Buffer => {
      const out = Buffer.alloc(64)
      out.writeUInt32LE(type, 4)
      out.writeBigUInt64LE(BigInt(offset), 24)
      out.writeBigUInt64LE(BigInt(size), 32)
      out.writeUInt32LE(link, 40)
      out.writeBigUInt64LE(BigInt(entry), 56)
      return out
    }
    parts.push(
      table,
      names,
      Buffer.alloc(64),
      section(2, at, table.length, 2, 24),
      section(3, at + table.length, names.length, 0, 0)
    )
    header.writeBigUInt64LE(BigInt(at + table.length + names.length), 40)
    header.writeUInt16LE(3, 60)
    header.writeUInt16LE(2, 62)
    return Buffer.concat(parts)
  }
  return Buffer.concat(parts)
}
