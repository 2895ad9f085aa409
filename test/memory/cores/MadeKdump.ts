import { Buffer } from "node:buffer"

const PAGE = 4096

/** The page's flags and bytes as they lie in the core; undefined: it is left out of it. */
export type Packer = (page: Uint8Array, index: number) => readonly [flags: number, bytes: Uint8Array] | undefined

/** Where a core of at most 32,768 pages has its bitmaps, and its descriptors. */
export const BITMAPS = 3 * PAGE
export const DESCRIPTORS = 5 * PAGE

/**
 * A kdump-compressed core of `memory`, which lies at page `first`, as makedumpfile's diskdump_mod.h has it. `vmcoreinfo` is
 * in the sub-header.
 */
export const madeKdump = (memory: Uint8Array, first: number, pack: Packer, vmcoreinfo = ""): Buffer => {
  const count = memory.length / PAGE
  const header = Buffer.alloc(3 * PAGE)
  header.write("KDUMP   ", "latin1")
  header.writeUInt32LE(6, 8)
  header.write("x86_64", 272, "latin1")
  header.writeUInt32LE(PAGE, 428)
  header.writeUInt32LE(2, 432)
  header.writeUInt32LE(2, 436)
  header.writeUInt32LE(first + count, 440)
  header.writeBigUInt64LE(BigInt(2 * PAGE), PAGE + 32)
  header.writeBigUInt64LE(BigInt(header.write(vmcoreinfo, 2 * PAGE, "latin1")), PAGE + 40)
  header.writeBigUInt64LE(BigInt(first + count), PAGE + 96)
  const bitmaps = Buffer.alloc(2 * PAGE)
  const packed = Array.from({ length: count }, (_, at) => pack(memory.subarray(at * PAGE, (at + 1) * PAGE), at))
  const descriptors = Buffer.alloc(packed.filter((each) => each !== undefined).length * 24)
  const bodies: Array<Uint8Array> = []
  let end = DESCRIPTORS + descriptors.length
  packed.forEach((each, at) => {
    const page = first + at
    bitmaps[page >> 3] |= 1 << (page & 7)
    if (each === undefined) return
    const [flags, bytes] = each
    bitmaps[PAGE + (page >> 3)] |= 1 << (page & 7)
    descriptors.writeBigUInt64LE(BigInt(end), bodies.length * 24)
    descriptors.writeUInt32LE(bytes.length, bodies.length * 24 + 8)
    descriptors.writeUInt32LE(flags, bodies.length * 24 + 12)
    bodies.push(bytes)
    end += bytes.length
  })
  return Buffer.concat([header, bitmaps, descriptors, ...bodies])
}

/** A flattened core of these pieces, in this order; `end` is its last header. */
export const madeFlattened = (
  pieces: ReadonlyArray<{ readonly at: number; readonly bytes: Uint8Array }>,
  end = true
): Buffer => {
  const header = Buffer.alloc(PAGE)
  header.write("makedumpfile", "latin1")
  header.writeBigInt64BE(1n, 16)
  header.writeBigInt64BE(1n, 24)
  const head = (at: number, length: number): Buffer => {
    const out = Buffer.alloc(16)
    out.writeBigInt64BE(BigInt(at), 0)
    out.writeBigInt64BE(BigInt(length), 8)
    return out
  }
  return Buffer.concat([
    header,
    ...pieces.flatMap(({ at, bytes }) => [head(at, bytes.length), bytes]),
    ...(end ? [head(-1, -1)] : [])
  ])
}
