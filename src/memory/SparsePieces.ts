import { type MemoryRegion, writtenParts } from "./GuestMemory.ts"

/**
 * A piece of a file: bytes, borrowed until the next piece is asked for, or a number of zeros.
 *
 * @since 0.1.0
 * @category models
 */
export type SparsePiece = Uint8Array | { readonly zeros: number }

/** Zeros are told apart in pieces of this many bytes. */
const PIECE = 2 ** 16

/** The pieces of a region: what was never written, and what holds nothing but zeros, is told by its length. */
export function* sparsePieces(region: MemoryRegion): Generator<SparsePiece> {
  let done = 0
  for (const [from, to] of writtenParts(region)) {
    for (let at = from; at < to; at += PIECE) {
      const piece = region.bytes.subarray(at, Math.min(at + PIECE, to))
      if (isZero(piece)) continue
      if (at > done) yield { zeros: at - done }
      yield piece
      done = at + piece.length
    }
  }
  if (done < region.bytes.length) yield { zeros: region.bytes.length - done }
}

const zeros = Buffer.alloc(PIECE)

const isZero = (piece: Uint8Array): boolean => zeros.compare(piece, 0, piece.length, 0, piece.length) === 0
