import { readSync } from "node:fs"
import type { PagedSource } from "../GuestMemory.ts"
import type { FileSegment } from "../RawMemory.ts"
import { RecentPages } from "./RecentPages.ts"

const PAGE = 4096

/** Memory out of a file that is read and not mapped: of a process, or of the running kernel. */
export class FilePages implements PagedSource {
  readonly present: number
  readonly pages: number
  readonly vmcoreinfo: string | undefined
  readonly running: boolean
  readonly #fd: number
  /** Sorted and disjoint. */
  readonly #segments: ReadonlyArray<FileSegment>
  readonly #refused: string
  readonly #recent = new RecentPages()

  /**
   * @param segments disjoint
   * @param options.refused why a page that is there cannot be read, as the end of a sentence
   */
  constructor(
    fd: number,
    segments: ReadonlyArray<FileSegment>,
    options: { readonly refused: string; readonly running?: boolean; readonly vmcoreinfo?: string | undefined }
  ) {
    this.#fd = fd
    this.#segments = segments.filter((segment) => endOf(segment) > firstOf(segment)).sort((a, b) => a.start - b.start)
    this.#refused = options.refused
    this.running = options.running ?? false
    this.vmcoreinfo = options.vmcoreinfo
    this.present = this.#segments.reduce((sum, segment) => sum + endOf(segment) - firstOf(segment), 0)
    const last = this.#segments.at(-1)
    this.pages = last === undefined ? 0 : endOf(last)
  }

  page(page: number): DataView | undefined {
    return this.#recent.get(page, this.#make)
  }

  next(page: number): number {
    const segment = this.#segmentFrom(page)
    return segment === undefined ? -1 : Math.max(page, firstOf(segment))
  }

  absence(page: number): string {
    return this.#holds(this.#segmentFrom(page), page) ? this.#refused : "lies in memory that is not there"
  }

  /** The first segment with this page or one after it. */
  #segmentFrom(page: number): FileSegment | undefined {
    let low = 0
    let high = this.#segments.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (endOf(this.#segments[middle]) > page) high = middle
      else low = middle + 1
    }
    return this.#segments[low]
  }

  #holds(segment: FileSegment | undefined, page: number): segment is FileSegment {
    return segment !== undefined && page >= firstOf(segment)
  }

  readonly #make = (page: number): DataView | undefined => {
    const segment = this.#segmentFrom(page)
    if (!this.#holds(segment, page)) return undefined
    const bytes = new Uint8Array(PAGE)
    try {
      const read = readSync(this.#fd, bytes, 0, PAGE, segment.offset + page * PAGE - segment.start)
      return read === PAGE ? new DataView(bytes.buffer) : undefined
    } catch {
      return undefined // the process has ended, or the kernel refuses: `absence` says so
    }
  }
}

/** Whole pages alone are read. */
const firstOf = ({ start }: FileSegment): number => Math.ceil(start / PAGE)
const endOf = ({ end }: FileSegment): number => Math.floor(end / PAGE)
