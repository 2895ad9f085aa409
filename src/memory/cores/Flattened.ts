import type * as Either from "effect/Either"
import { FormatError, parsing } from "../../core/FormatError.ts"
import type { MemoryRegion } from "../GuestMemory.ts"
import { type ImageFile, viewOf } from "./ImageFile.ts"

export const FLATTENED_SIGNATURE = "makedumpfile\0\0\0\0"
const HEADER = 4096
const TYPE = 1n
const VERSION = 1n
/** A piece's place and length before it, 8 bytes each. */
const PIECE_HEADER = 16
/** makedumpfile makes pieces of 64 KiB, QEMU of 16: enough for 256 GiB. */
const MAX_PIECES = 2 ** 24
/** Pieces that may lie over one another: headers are written a second time in the end. */
const MAX_DEPTH = 64
const MAX_SIZE = 2 ** 52

/** Pieces of the file that a stream stands for: where each begins there, its length, and where its bytes are in the stream. */
interface Pieces {
  readonly count: number
  readonly starts: Float64Array
  readonly lengths: Float64Array
  readonly places: Float64Array
}

/**
 * The file that a flattened core stands for (`makedumpfile -F`, and QEMU's `dump-guest-memory -z`, which writes no other form
 * before 8.2): what a program that cannot seek has written, each piece behind its place in the file. Where pieces overlap
 * the last one counts; where there is none the file has zeros. The last piece may be cut off.
 * @see makedumpfile's IMPLEMENTATION, "The flattened format", and makedumpfile.h `struct makedumpfile_header`, 1.7.2; QEMU
 * include/sysemu/dump.h `MakedumpfileDataHeader`, 7.2
 */
export const unflatten = (stream: ImageFile): Either.Either<ImageFile, FormatError> =>
  parsing(() => {
    const { count, lengths, places, starts } = onTop(stream.subject, piecesOf(stream))
    const size = count === 0 ? 0 : starts[count - 1] + lengths[count - 1]
    /** The last piece that begins at or before a byte, or -1. */
    const pieceBefore = (at: number): number => {
      let low = 0
      let high = count
      while (low < high) {
        const middle = (low + high) >>> 1
        if (starts[middle] <= at) low = middle + 1
        else high = middle
      }
      return low - 1
    }
    const regions: ImageFile["regions"] = (start, from, to) => {
      const regions: Array<MemoryRegion> = []
      for (let piece = Math.max(pieceBefore(from), 0); piece < count && starts[piece] < to; piece++) {
        const first = Math.max(from, starts[piece])
        const last = Math.min(to, starts[piece] + lengths[piece])
        if (first >= last) continue
        const place = places[piece] + first - starts[piece]
        regions.push(...stream.regions(start + first - from, place, place + last - first))
      }
      return regions
    }
    const bytes: ImageFile["bytes"] = (from, length) => {
      if (!(from >= 0 && length >= 0 && from + length <= size)) return undefined
      const piece = pieceBefore(from)
      if (piece >= 0 && from + length <= starts[piece] + lengths[piece]) {
        return stream.bytes(places[piece] + from - starts[piece], length)
      }
      if (length > stream.size) return undefined // most of it would be a gap
      const out = new Uint8Array(length)
      for (const { bytes, start } of regions(0, from, from + length)) out.set(bytes, start)
      return out
    }
    return { subject: stream.subject, size, regions, bytes }
  })

/** In the order of the stream. */
const piecesOf = (stream: ImageFile): Pieces => {
  const broken = (offset: number, expected: string) =>
    new FormatError({ format: "flattened core", subject: stream.subject, offset, expected })
  const numbers = (at: number) => {
    const bytes = stream.bytes(at, 16)
    const view = bytes && viewOf(bytes)
    return view && [view.getBigInt64(0), view.getBigInt64(8)] as const
  }
  const header = numbers(16)
  if (header === undefined || header[0] !== TYPE || header[1] !== VERSION) throw broken(16, "type 1, version 1")
  const starts = new Numbers()
  const lengths = new Numbers()
  const places = new Numbers()
  for (let at = HEADER;;) {
    const piece = numbers(at)
    if (piece === undefined || piece[0] < 0n) break // the end, or cut off
    const [start, length] = [Number(piece[0]), Number(piece[1])]
    if (!(length > 0 && start + length <= MAX_SIZE)) throw broken(at, "a piece of at least a byte, below 2^52")
    if (starts.count === MAX_PIECES) throw broken(at, `no more than ${MAX_PIECES} pieces`)
    at += PIECE_HEADER
    starts.push(start)
    lengths.push(Math.min(length, stream.size - at))
    places.push(at)
    at += length
  }
  return { count: starts.count, starts: starts.all, lengths: lengths.all, places: places.all }
}

/** The parts of each piece that can be seen when later ones lie on earlier ones, by their place in the file. */
const onTop = (subject: string, { count, lengths, places, starts }: Pieces): Pieces => {
  const order = Uint32Array.from({ length: count }, (_, index) => index).sort((a, b) => starts[a] - starts[b])
  const seen = { starts: new Numbers(), lengths: new Numbers(), places: new Numbers() }
  /** Pieces that have begun and not ended. */
  let open: Array<number> = []
  let at = 0
  const advance = (to: number): void => {
    for (;;) {
      open = open.filter((piece) => starts[piece] + lengths[piece] > at)
      if (open.length === 0 || at >= to) break
      const top = Math.max(...open)
      const end = Math.min(to, starts[top] + lengths[top])
      seen.starts.push(at)
      seen.lengths.push(end - at)
      seen.places.push(places[top] + at - starts[top])
      at = end
    }
    at = Math.max(at, to)
  }
  for (const piece of order) {
    advance(starts[piece])
    open.push(piece)
    if (open.length > MAX_DEPTH) {
      const expected = `at most ${MAX_DEPTH} pieces over one another`
      throw new FormatError({ format: "flattened core", subject, offset: places[piece], expected })
    }
  }
  advance(Infinity)
  return { count: seen.starts.count, starts: seen.starts.all, lengths: seen.lengths.all, places: seen.places.all }
}

/** Numbers whose count is not known beforehand. */
class Numbers {
  all = new Float64Array(1024)
  count = 0
  push(value: number): void {
    if (this.count === this.all.length) {
      const more = new Float64Array(this.count * 2)
      more.set(this.all)
      this.all = more
    }
    this.all[this.count++] = value
  }
}
