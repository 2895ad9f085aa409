import { corrupted, within } from "../../../core/Reason.ts"
import type { WalkProblems } from "../../../core/WalkProblems.ts"
import { type KernelSpace, pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import type { EntryWalk } from "../../EntryWalk.ts"

/** The target of the pointers in a walk's values. Offsets and lengths in bytes. */
export interface Target {
  /** Where the object that a value points at has a pointer to the next one, and so on. */
  readonly follow?: ReadonlyArray<number>
  /** How much of the last object is made readable, from its start. */
  readonly size: number
  /** Where in it lies what bpf(2) gives as the value, and how long that is: 0 where bpf(2) gives none. */
  readonly value: number
  /** A function finds the length in an object of no fixed one, given `size` bytes of it; at most `most`. */
  readonly length: number | ((view: DataView, at: number) => number)
  readonly most?: number
}

/**
 * The entries of a walk whose values are pointers, each with what its pointer leads to. Entries with a null pointer are
 * empty slots: left out. One whose object cannot be read is reported and left out.
 */
export class PointerSlotWalk implements EntryWalk {
  valueView: DataView
  valueAt = 0
  valueLength = 0
  private entry = -1

  /** `secondCursor` is another cursor than that of `pointers`, whose key stays valid. */
  constructor(
    private readonly pointers: EntryWalk,
    private readonly secondCursor: KernelSpace,
    private readonly target: Target
  ) {
    this.valueView = secondCursor.view
  }

  next(): boolean {
    const { pointers, problems } = this
    while (pointers.next()) {
      this.entry++
      if (!pointers.value(0)) continue
      const page = pointerPage(pointers.valueView, pointers.valueAt)
      const offset = pointerOffset(pointers.valueView, pointers.valueAt)
      if (page === 0 && offset === 0) continue
      if (this.reach(page, offset)) return true
      problems.add(within(`entry ${this.entry}`, this.secondCursor.faultReason))
    }
    return false
  }

  private reach(page: number, offset: number): boolean {
    const { secondCursor, target } = this
    for (const field of target.follow ?? []) {
      if (!secondCursor.window(page, offset + field, 8)) return false
      page = pointerPage(secondCursor.view, secondCursor.at)
      offset = pointerOffset(secondCursor.view, secondCursor.at)
    }
    if (!secondCursor.window(page, offset, target.size)) return false
    if (typeof target.length === "number") this.valueLength = target.length
    else {
      const length = target.length(secondCursor.view, secondCursor.at)
      const most = target.most ?? length
      if (length > most) {
        this.problems.add(corrupted(`entry ${this.entry}: has ${length} bytes, room for ${most}`))
      }
      this.valueLength = Math.min(length, most)
      if (!secondCursor.window(page, offset, Math.max(target.size, target.value + this.valueLength))) return false
    }
    this.valueView = secondCursor.view
    this.valueAt = secondCursor.at + target.value
    return true
  }

  value(): boolean {
    return true
  }

  get keyView(): DataView {
    return this.pointers.keyView
  }

  get keyAt(): number {
    return this.pointers.keyAt
  }

  get keyLength(): number {
    return this.pointers.keyLength
  }

  get problems(): WalkProblems {
    return this.pointers.problems
  }
}
