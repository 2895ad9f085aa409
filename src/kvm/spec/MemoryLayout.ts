import type * as Either from "effect/Either"
import { FormatError, parsing } from "../../core/FormatError.ts"
import { type BackingFile, type MemoryRegion, partOf } from "../../memory/GuestMemory.ts"

/** Guest-physical bytes `start` … `start + length` are the backend's bytes from `offset` on. */
export interface RamRange {
  readonly start: number
  readonly length: number
  readonly offset: number
}

/** `  00000000000c0000-00000000000dffff (prio 1, rom): mem @00000000000c0000 KVM`: last address inclusive. */
const rangeLine =
  /^\s+([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:nv-)?(?:ram|rom|romd)\): (\S+)(?: @([0-9a-f]{16}))?/

/**
 * Which guest-physical addresses the memory backend `backend` of `size` bytes answers, sorted and merged, out of what
 * QEMU's monitor prints for `info mtree -f`. Firmware's changes (shadow RAM) show there too, so ask anew after boot.
 * @see QEMU softmmu/memory.c `mtree_print_flatview`, 7.2
 */
export const ramRanges = (
  mtree: string,
  backend: string,
  size: number
): Either.Either<ReadonlyArray<RamRange>, FormatError> =>
  parsing(() => {
    const broken = (offset: number, expected: string) =>
      new FormatError({ format: "memory layout", subject: "QEMU's info mtree -f", offset, expected })
    const view = mtree.split(/^FlatView #\d+/m).find((part) => /^\s*AS "memory", root:/m.test(part))
    if (view === undefined) throw broken(0, `a flat view of the address space "memory"`)
    const ranges: Array<{ start: number; length: number; offset: number }> = []
    for (const line of view.split(/\r?\n/)) {
      const found = rangeLine.exec(line)
      if (found === null || found[3] !== backend) continue
      const [start, last, offset] = [found[1], found[2], found[4] ?? "0"].map((digits) => Number.parseInt(digits, 16))
      const length = last - start + 1
      const at = mtree.indexOf(line)
      if (last >= 2 ** 52 || length <= 0) throw broken(at, "an address range below 2^52")
      if (offset + length > size) throw broken(at, `a range inside the backend's ${size} bytes`)
      ranges.push({ start, length, offset })
    }
    if (ranges.length === 0) throw broken(0, `at least one range of "${backend}"`)
    return merged(ranges.sort((a, b) => a.start - b.start))
  })

/**
 * The pieces of `windows` (the backend's bytes in order, all but the last `windowBytes` long) that `ranges` name: none
 * crosses a window. `file` is the backend, if it can be read. This is what `GuestMemory` is built from.
 */
export const regionsOf = (
  ranges: ReadonlyArray<RamRange>,
  windows: ReadonlyArray<Uint8Array>,
  windowBytes: number,
  file?: BackingFile
): ReadonlyArray<MemoryRegion> =>
  ranges.flatMap((range) => {
    const regions: Array<MemoryRegion> = []
    for (let done = 0; done < range.length;) {
      const offset = range.offset + done
      const inWindow = offset % windowBytes
      const length = Math.min(range.length - done, windowBytes - inWindow)
      const window = windows[Math.floor(offset / windowBytes)]
      const region = { start: range.start + done, bytes: window.subarray(inWindow, inWindow + length) }
      regions.push(file === undefined ? region : { ...region, ...partOf(file, offset, length) })
      done += length
    }
    return regions
  })

const merged = (sorted: ReadonlyArray<RamRange>): ReadonlyArray<RamRange> =>
  sorted.reduce<Array<RamRange>>((out, range) => {
    const last = out.at(-1)
    if (
      last !== undefined && last.start + last.length === range.start && last.offset + last.length === range.offset
    ) out[out.length - 1] = { ...last, length: last.length + range.length }
    else out.push(range)
    return out
  }, [])
