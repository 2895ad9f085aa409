import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { corrupted, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { MapType } from "../../MapType.ts"
import { indexCodec } from "../../values/IndexCodec.ts"
import type { MapOpener } from "./GuestMap.ts"

/**
 * The elements of a QUEUE or STACK in the order in which they would be popped. bpf(2) has no keys here: the key is the
 * number of pops before the element's.
 * @see kernel/bpf/queue_stack_maps.c `struct bpf_queue_stack`, `__queue_map_get`, `__stack_map_get`, v6.12
 */
class QueueWalk implements EntryWalk {
  readonly keyView = new DataView(new ArrayBuffer(4))
  readonly keyAt = 0
  readonly keyLength = 4
  valueView: DataView
  valueAt = 0
  readonly problems = new WalkProblems()
  private done = -1

  constructor(
    private readonly space: KernelSpace,
    /** Where `bpf_queue_stack.elements` lies. */
    private readonly page: number,
    private readonly offset: number,
    readonly valueLength: number,
    /** Slots of the ring; the first to be popped; +1 for a queue, -1 for a stack; elements. */
    private readonly slots: number,
    private readonly first: number,
    private readonly step: 1 | -1,
    private readonly count: number
  ) {
    this.valueView = space.view
  }

  next(): boolean {
    while (++this.done < this.count) {
      const slot = (this.first + this.step * this.done + this.slots) % this.slots
      if (this.space.window(this.page, this.offset + slot * this.valueLength, this.valueLength)) {
        this.valueView = this.space.view
        this.valueAt = this.space.at
        this.keyView.setUint32(0, this.done, true)
        return true
      }
      this.problems.add(within(`element ${this.done}`, this.space.faultReason))
    }
    return false
  }

  value(): boolean {
    return true
  }
}

const queueLayout = memoizeByBtf((btf) => layout(btf, "bpf_queue_stack", ["head", "tail", "size", "elements"]))

export const openQueue: MapOpener = ({ info, kernel, offset, page, space, type }) =>
  Either.gen(function*() {
    const { at, size } = yield* queueLayout(kernel.btf)
    if (!space.window(page, offset, size)) return yield* Either.left(space.faultReason)
    // one slot stays free, so that full and empty differ
    const [head, tail, slots] = [at.head, at.tail, at.size].map((field) => space.view.getUint32(space.at + field, true))
    if (
      slots !== info.maxEntries + 1 || slots * info.valueSize > kernel.memory.size || head >= slots || tail >= slots
    ) {
      return yield* Either.left(
        corrupted(`head ${head}, tail ${tail} of ${slots} slots for ${info.maxEntries} elements`)
      )
    }
    const count = (head - tail + slots) % slots
    const [first, step] = type === MapType.QUEUE ? [tail, 1] as const : [(head - 1 + slots) % slots, -1] as const
    const elements = offset + at.elements
    return {
      walk: () => new QueueWalk(space, page, elements, info.valueSize, slots, first, step, count),
      key: indexCodec,
      details: { elements: count, head, tail }
    }
  })
