import { Buffer } from "node:buffer"
import type { KernelSpace } from "../KernelSpace.ts"
import type { Vmcoreinfo } from "../Vmcoreinfo.ts"
import { type KallsymsTables, MAX_SYMBOLS, type OffsetTable, TOKENS } from "./KallsymsTables.ts"

/** How much of the image is searched, from `_stext` on, in bytes. The largest seen has 77 MB. */
const MAX_IMAGE = 2 ** 28
/** Names and markers lie at most so far before the tokens, in bytes. */
const MAX_BEFORE_TOKENS = 2 ** 25
/** Digits are never merged into other tokens, and stand side by side. */
const DIGITS = Buffer.from(`\0${[..."0123456789"].join("\0")}\0`, "latin1")
/** Symbols from one marker to the next; their bytes, with length bytes, are within these. */
const GROUP = 256
const MIN_GROUP_BYTES = 2 * GROUP
const MAX_GROUP_BYTES = 600 * GROUP
/** No kernel has fewer symbols. */
const MIN_MARKERS = 8

/**
 * The tables by their structure alone, for kernels whose VMCOREINFO does not tell (before v6.0): the tokens of the digits
 * give the token table, which its index must agree with; before it is an array of rising markers, one for each 256
 * names, which the lengths of the names must agree with. The offsets are behind the token index (since v6.4) or before
 * the names; which of these, and how they count, is for `Kallsyms` to prove.
 * @see scripts/kallsyms.c `write_src`, v5.10 to v7.3
 */
export const findKallsyms = (space: KernelSpace, info: Vmcoreinfo): KallsymsTables | undefined => {
  const start = info.symbol("_stext")
  if (start === undefined) return undefined
  const image = imageFrom(space, start)
  if (image === undefined) return undefined
  for (let at = image.indexOf(DIGITS); at >= 0; at = image.indexOf(DIGITS, at + 1)) {
    const tokens = tokensAround(image, at + 1)
    if (tokens === undefined) continue
    const names = namesBefore(image, tokens.table)
    if (names === undefined) continue
    return {
      foundBy: "structure",
      count: names.count,
      names: { address: start + BigInt(names.start), length: tokens.table - names.start },
      tokenTable: image.subarray(tokens.table, tokens.index),
      tokenIndex: image.subarray(tokens.index, tokens.index + TOKENS * 2),
      offsetTables: offsetTables(image, start, tokens.index + TOKENS * 2, names.countAt, names.count),
      orders: [] // kernels that VMCOREINFO says nothing of have none
    }
  }
  return undefined
}

/** The image's bytes from a virtual address on. It lies in physical memory in one piece. */
const imageFrom = (space: KernelSpace, start: bigint): Buffer | undefined => {
  const pa = space.translate(start)
  if (pa < 0) return undefined
  const bytes = space.memory.run(pa, MAX_IMAGE)
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** The token table and its index around the token `0`, if these are that. */
const tokensAround = (image: Buffer, zero: number): { readonly table: number; readonly index: number } | undefined => {
  let end = zero
  for (let token = 0x30; token < TOKENS; token++) {
    const nul = image.indexOf(0, end)
    if (nul < 0 || nul - end > 255) return undefined
    end = nul + 1
  }
  for (let index = end; index < end + 16 && index + TOKENS * 2 <= image.length; index++) {
    const table = zero - image.readUInt16LE(index + 0x30 * 2)
    if (table >= 0 && agrees(image, table, index)) return { table, index }
  }
  return undefined
}

/** Is each token where the index says? */
const agrees = (image: Buffer, table: number, index: number): boolean => {
  let at = table
  for (let token = 0; token < TOKENS; token++) {
    if (image.readUInt16LE(index + token * 2) !== at - table) return false
    at = image.indexOf(0, at) + 1
    if (at === 0 || at - table > 0xffff) return false
  }
  return true
}

interface Names {
  readonly start: number
  readonly countAt: number
  readonly count: number
}

/** The names: those that end where an array of markers begins, and agree with all of them. */
const namesBefore = (image: Buffer, table: number): Names | undefined => {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const lowest = Math.max(0, table - MAX_BEFORE_TOKENS)
  // Back to front: markers lie near the tokens.
  for (let at = (table - 8) & ~3; at >= lowest; at -= 4) {
    if (view.getUint32(at, true) !== 0) continue
    const first = at + 8 <= table ? view.getUint32(at + 4, true) : 0
    if (first < MIN_GROUP_BYTES || first > MAX_GROUP_BYTES) continue
    const markers = [0, first]
    for (let next = at + 8; next + 4 <= table; next += 4) {
      const marker = view.getUint32(next, true)
      const step = marker - markers[markers.length - 1]
      if (step < MIN_GROUP_BYTES || step > MAX_GROUP_BYTES) break
      markers.push(marker)
    }
    if (markers.length < MIN_MARKERS) continue
    const found = namesOf(image, view, at, markers)
    if (found !== undefined) return found
  }
  return undefined
}

/** The names that these markers, at `markersAt`, are of. What follows the last marker has 1 to 256 names. */
const namesOf = (
  image: Buffer,
  view: DataView,
  markersAt: number,
  markers: ReadonlyArray<number>
): Names | undefined => {
  const whole = markers[markers.length - 1]
  const lowest = Math.max(8, markersAt - whole - MAX_GROUP_BYTES)
  for (let start = (markersAt - whole) & ~3; start >= lowest; start -= 4) {
    for (const countAt of [start - 4, start - 8]) {
      const count = view.getUint32(countAt, true)
      if (count <= (markers.length - 1) * GROUP || count > markers.length * GROUP || count > MAX_SYMBOLS) continue
      const end = endOfNames(image, start, count, markers)
      if (end >= 0 && markersAt - end >= 0 && markersAt - end < 8) return { start, countAt, count }
    }
  }
  return undefined
}

/** Where the names end, or -1 where they do not agree with the markers. */
const endOfNames = (image: Buffer, start: number, count: number, markers: ReadonlyArray<number>): number => {
  let at = start
  for (let i = 0; i < count; i++) {
    if (i % GROUP === 0 && at - start !== markers[i / GROUP]) return -1
    let length = image[at++]
    if (length >= 0x80) length = (length & 0x7f) | (image[at++] << 7) // since v6.1
    if (!(length > 0)) return -1
    at += length
  }
  return at
}

/** All places where the offsets may be, with the base that would then be theirs. */
const offsetTables = (
  image: Buffer,
  start: bigint,
  behindIndex: number,
  countAt: number,
  count: number
): ReadonlyArray<OffsetTable> => {
  const tables: Array<OffsetTable> = []
  const add = (at: number, baseAt: number | undefined): void => {
    if (at < 0 || at + count * 4 > image.length) return
    if (baseAt !== undefined && !(baseAt >= 0 && baseAt + 8 <= image.length)) return
    tables.push({
      address: start + BigInt(at),
      length: count * 4,
      base: baseAt === undefined ? undefined : image.readBigUInt64LE(baseAt)
    })
  }
  for (const align of [4, 8]) {
    const at = Math.ceil(behindIndex / align) * align
    add(at, Math.ceil((at + count * 4) / 8) * 8)
    add(at, undefined)
  }
  const baseAt = Math.floor((countAt - 8) / 8) * 8
  for (const padding of [0, 4]) add(baseAt - padding - count * 4, baseAt)
  return tables
}
