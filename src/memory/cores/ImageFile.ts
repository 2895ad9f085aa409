import { type BackingFile, type MemoryRegion, partOf } from "../GuestMemory.ts"

/** A file is mapped in pieces of this many bytes: each costs the host 10 ms, and threads share only mappings below 4 GiB. */
export const WINDOW = 3 * 2 ** 30
/** The longest region of a `GuestMemory`, which divides a window. */
const REGION = 2 ** 30

/** A file whose bytes can be borrowed while it is mapped. */
export interface ImageFile {
  /** Its name in errors. */
  readonly subject: string
  /** In bytes. */
  readonly size: number
  /** The bytes `from` up to `to`, as regions from physical address `start` on; none where the file has no bytes. */
  readonly regions: (start: number, from: number, to: number) => Array<MemoryRegion>
  /** `length` bytes from `from` on, borrowed where they lie in one piece, else copied; undefined where the file ends before. */
  readonly bytes: (from: number, length: number) => Uint8Array | undefined
}

/** A file that is mapped whole, in windows of `WINDOW` bytes. */
export const mappedFile = (
  subject: string,
  size: number,
  windows: ReadonlyArray<Uint8Array>,
  file: BackingFile
): ImageFile => {
  // cut at each GiB of the file
  const regions: ImageFile["regions"] = (start, from, to) => {
    const regions: Array<MemoryRegion> = []
    for (let at = from; at < Math.min(to, size);) {
      const index = Math.floor(at / WINDOW)
      const end = Math.min(to, size, (Math.floor(at / REGION) + 1) * REGION)
      regions.push({
        start: start + at - from,
        bytes: windows[index].subarray(at - index * WINDOW, end - index * WINDOW),
        ...partOf(file, at, end - at)
      })
      at = end
    }
    return regions
  }
  const bytes: ImageFile["bytes"] = (from, length) => {
    if (!(from >= 0 && length >= 0 && from + length <= size)) return undefined
    const window = Math.floor(from / WINDOW)
    const at = from - window * WINDOW
    if (at + length <= WINDOW) return windows[window]?.subarray(at, at + length) ?? new Uint8Array(0)
    const out = new Uint8Array(length)
    for (const { bytes, start } of regions(0, from, from + length)) out.set(bytes, start)
    return out
  }
  return { subject, size, regions, bytes }
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
