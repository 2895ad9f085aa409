import * as Either from "effect/Either"
import { kvaFrom } from "../../../core/Address.ts"
import { absent, corrupted, type Reason, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { type KernelSpace, pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import type { PerCpuCopies } from "../../../memory/structs/PerCpuCopies.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { isPerCpu } from "../../MapType.ts"
import type { MapOpener, ValuePlaces } from "./GuestMap.ts"
import { roundUp8 } from "./HashTable.ts"

/**
 * Every element of an ARRAY (values in line), or of a PERCPU_ARRAY (a table of `__percpu` pointers). The key is the
 * index. An element's slot is the value's size rounded up to 8.
 * @see kernel/bpf/arraymap.c `array_map_alloc`, `bpf_percpu_array_copy`; include/linux/bpf.h `struct bpf_array`, v6.12
 */
export class ArrayWalk implements EntryWalk {
  readonly keyView = new DataView(new ArrayBuffer(4))
  readonly keyAt = 0
  readonly keyLength = 4
  readonly problems = new WalkProblems()
  valueView: DataView = this.keyView
  valueAt = 0
  private index = -1
  private readonly slot: number
  /** The element's `__percpu` pointer: its page number, and the offset in that. */
  private pointerPage = 0
  private pointerOffset = 0

  constructor(
    private readonly space: KernelSpace,
    /** Where `bpf_array.value` lies: page number and offset in it. */
    private readonly page: number,
    private readonly offset: number,
    readonly valueLength: number,
    private readonly maxEntries: number,
    private readonly copies: PerCpuCopies | undefined
  ) {
    this.slot = copies === undefined ? roundUp8(valueLength) : 8
  }

  next(): boolean {
    while (++this.index < this.maxEntries) {
      const at = this.offset + this.index * this.slot
      if (this.space.window(this.page, at, this.copies === undefined ? this.valueLength : 8)) {
        this.valueView = this.space.view
        this.valueAt = this.space.at
        this.keyView.setUint32(0, this.index, true)
        if (this.copies !== undefined) {
          this.pointerPage = pointerPage(this.space.view, this.space.at)
          this.pointerOffset = pointerOffset(this.space.view, this.space.at)
        }
        return true
      }
      this.problems.add(within(`element ${this.index}`, this.space.faultReason))
      // The next element that lies in another page: a hostile count must not cost a failing walk an element.
      const nextPage = (Math.floor(at / 4096) + 1) * 4096
      this.index = Math.max(this.index, Math.ceil((nextPage - this.offset) / this.slot) - 1)
    }
    return false
  }

  /** Where the value of a key lies. */
  find(key: Uint8Array): Either.Either<ValuePlaces, Reason> {
    const { copies, maxEntries, offset, page, slot, space } = this
    const index = new DataView(key.buffer, key.byteOffset, key.byteLength).getUint32(0, true)
    if (index >= maxEntries) return Either.left(absent(`it has elements 0 to ${maxEntries - 1}, not ${index}`))
    const at = offset + index * slot
    if (copies === undefined) return Either.right([kvaFrom(page, at)])
    if (!space.window(page, at, 8)) return Either.left(space.faultReason)
    return copies.places(pointerPage(space.view, space.at), pointerOffset(space.view, space.at))
  }

  value(copy: number): boolean {
    if (this.copies === undefined) return true
    if (!this.copies.isPossible(copy)) return false
    const page = this.pointerPage
    const offset = this.pointerOffset
    if (page === 0 && offset === 0) {
      this.problems.add(corrupted(`element ${this.index}: its per-CPU pointer is null`))
      return false
    }
    if (!this.copies.window(page, offset, copy, this.valueLength)) {
      this.problems.add(within(`element ${this.index}, CPU ${copy}`, this.space.faultReason))
      return false
    }
    this.valueView = this.space.view
    this.valueAt = this.space.at
    return true
  }
}

/** ARRAY, PERCPU_ARRAY. */
export const openArray: MapOpener = ({ copies, info, kernel, layouts, offset, page, space, type }) => {
  const { keySize, maxEntries, valueSize } = info
  if (keySize !== 4) return Either.left(corrupted(`an array with keys of ${keySize} bytes`))
  if (maxEntries * Math.min(valueSize, 8) > kernel.memory.size) {
    return Either.left(corrupted(`${maxEntries} elements do not fit the guest's memory`))
  }
  const start = offset + layouts.array.at.value
  const perCpu = isPerCpu(type) ? copies : undefined
  const walk = () => new ArrayWalk(space, page, start, valueSize, maxEntries, perCpu)
  return Either.right({ walk, find: (key) => walk().find(key) })
}
