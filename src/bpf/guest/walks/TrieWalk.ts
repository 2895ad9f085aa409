import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { corrupted, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { type KernelSpace, pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import type { GuestMap, MapOpener } from "./GuestMap.ts"

/** Where a trie's nodes keep their parts: `struct lpm_trie_node`, in bytes. */
interface TrieShape {
  readonly child: number
  readonly prefixLength: number
  readonly flags: number
  readonly data: number
}

/** `LPM_TREE_NODE_FLAG_IM`: a node that only joins two others; kernel/bpf/lpm_trie.c, v6.12. */
const INTERMEDIATE = 1
/** Levels of a subtree that are prefetched together. */
const LEVELS = 8
/** `LPM_DATA_SIZE_MAX`: bytes of a key behind its prefix length. */
const MOST_DATA = 256

/**
 * Every element of an LPM_TRIE, shorter prefixes before the longer ones they contain. The key is a `struct
 * bpf_lpm_trie_key`: the prefix's length, then its bytes.
 *
 * Below a node prefixes only get longer: a child that breaks that is reported and left, which ends every cycle. Branches
 * that lead into one another end with `nodeLimit`.
 * @see kernel/bpf/lpm_trie.c `struct lpm_trie`, `struct lpm_trie_node`, v6.12
 */
class TrieWalk implements EntryWalk {
  readonly keyView: DataView
  readonly keyAt = 0
  readonly keyLength: number
  valueView: DataView
  valueAt = 0
  readonly problems = new WalkProblems()
  /** Nodes to be visited: page, offset, the least prefix length they may have, prefetched levels from them on. */
  private readonly pages: Float64Array
  private readonly offsets: Int32Array
  private readonly least: Int32Array
  private readonly levels: Uint8Array
  /** Physical addresses of a subtree's nodes, level by level. */
  private readonly places = new Float64Array(2 ** LEVELS)
  private readonly nodeBytes: number
  private depth = 0
  private visited = 0

  constructor(
    private readonly space: KernelSpace,
    private readonly shape: TrieShape,
    rootPage: number,
    rootOffset: number,
    private readonly dataSize: number,
    readonly valueLength: number,
    private readonly nodeLimit: number
  ) {
    this.keyLength = 4 + dataSize
    this.keyView = new DataView(new ArrayBuffer(this.keyLength))
    this.valueView = space.view
    const deepest = dataSize * 8 + 3
    this.pages = new Float64Array(deepest)
    this.offsets = new Int32Array(deepest)
    this.least = new Int32Array(deepest)
    this.levels = new Uint8Array(deepest)
    this.nodeBytes = shape.data + dataSize + valueLength
    this.push(rootPage, rootOffset, 0, 0)
  }

  next(): boolean {
    const { shape, space } = this
    while (this.depth > 0) {
      const page = this.pages[--this.depth]
      const offset = this.offsets[this.depth]
      const least = this.least[this.depth]
      let levels = this.levels[this.depth]
      if (++this.visited > this.nodeLimit) {
        this.problems.add(corrupted(`more nodes than the map can have (${this.nodeLimit}); walk ended`))
        this.depth = 0
        return false
      }
      if (levels === 0) {
        this.lookAhead(page, offset)
        levels = LEVELS
      }
      if (!space.window(page, offset, this.nodeBytes)) {
        this.problems.add(within(`node below prefix length ${least}`, space.faultReason))
        continue
      }
      const { at, view } = space
      const length = view.getUint32(at + shape.prefixLength, true)
      if (length < least || length > this.dataSize * 8) {
        this.problems.add(
          corrupted(`a node of prefix length ${length} where ${least} to ${this.dataSize * 8} can be; left`)
        )
        continue
      }
      const flags = view.getUint32(at + shape.flags, true)
      for (let side = 1; side >= 0; side--) {
        const child = at + shape.child + side * 8
        this.push(pointerPage(view, child), pointerOffset(view, child), length + 1, levels - 1)
      }
      if ((flags & INTERMEDIATE) !== 0) continue
      this.keyView.setUint32(0, length, true)
      for (let byte = 0; byte < this.dataSize; byte++) {
        this.keyView.setUint8(4 + byte, view.getUint8(at + shape.data + byte))
      }
      this.valueView = view
      this.valueAt = at + shape.data + this.dataSize
      return true
    }
    return false
  }

  value(): boolean {
    return true
  }

  /** There is room: a node is taken off before its two children, and prefixes grow. */
  private push(page: number, offset: number, least: number, levels: number): void {
    if (page === 0 && offset === 0) return
    this.pages[this.depth] = page
    this.offsets[this.depth] = offset
    this.levels[this.depth] = levels
    this.least[this.depth++] = least
  }

  /** Prefetch the first levels of the subtree of a node, each level at once. */
  private lookAhead(page: number, offset: number): void {
    const { places, shape, space } = this
    const { memory } = space
    const root = space.translatePage(page)
    if (root < 0) return
    places[0] = root + offset
    let count = 1
    for (let level = 0, first = 0; level < LEVELS && first < count; level++) {
      const last = count
      memory.prefetch(places, first, last, this.nodeBytes)
      if (level + 1 === LEVELS) return
      for (; first < last; first++) {
        if (!memory.seek(places[first] + shape.child, 16)) continue
        const { at, view } = memory
        for (let side = 0; side < 2; side++) {
          const child = at + side * 8
          const childOffset = pointerOffset(view, child)
          const childPage = pointerPage(view, child)
          if (childPage === 0 && childOffset === 0) continue
          const place = space.translatePage(childPage)
          if (place >= 0) places[count++] = place + childOffset
        }
      }
    }
  }
}

const trieLayouts = memoizeByBtf((btf) =>
  Either.gen(function*() {
    return {
      trie: yield* layout(btf, "lpm_trie", ["root"]),
      node: yield* layout(btf, "lpm_trie_node", ["child", "prefixlen", "flags", "data"])
    }
  })
)

export const openTrie: MapOpener = ({ info, kernel, offset, page, space }: GuestMap) =>
  Either.gen(function*() {
    const { node, trie } = yield* trieLayouts(kernel.btf)
    const { keySize, maxEntries, valueSize } = info
    const dataSize = keySize - 4
    if (dataSize < 1 || dataSize > MOST_DATA) return yield* Either.left(corrupted(`keys of ${keySize} bytes`))
    if (!space.window(page, offset + trie.at.root, 8)) return yield* Either.left(space.faultReason)
    const rootPage = pointerPage(space.view, space.at)
    const rootOffset = pointerOffset(space.view, space.at)
    // n elements need at most n - 1 nodes that join them.
    const limit = Math.min(maxEntries, Math.ceil(kernel.memory.size / (node.at.data + dataSize + valueSize))) * 2
    const shape = { child: node.at.child, prefixLength: node.at.prefixlen, flags: node.at.flags, data: node.at.data }
    return { walk: () => new TrieWalk(space, shape, rootPage, rootOffset, dataSize, valueSize, limit) }
  })
