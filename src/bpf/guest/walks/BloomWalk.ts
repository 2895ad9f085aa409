import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { corrupted } from "../../../core/Reason.ts"
import { derivedCodec, pointerOf } from "../../values/DerivedCodec.ts"
import { indexCodec } from "../../values/IndexCodec.ts"
import { ArrayWalk } from "./ArrayWalk.ts"
import type { MapOpener } from "./GuestMap.ts"

/** The 64-bit words of a bit set that are not 0. The key is the word's number: bit n of the set is bit n % 64 of word n / 64. */
class BloomWalk extends ArrayWalk {
  override next(): boolean {
    while (super.next()) {
      if (
        this.valueView.getUint32(this.valueAt, true) !== 0 || this.valueView.getUint32(this.valueAt + 4, true) !== 0
      ) {
        return true
      }
    }
    return false
  }
}

const wordCodec = derivedCodec((view, at) => pointerOf(view.getBigUint64(at, true)))

/** How many bits of 32 are set. */
const bitsIn = (word: number): number => {
  let count = 0
  for (; word !== 0; word &= word - 1) count++
  return count
}

const bloomLayout = memoizeByBtf((btf) =>
  layout(btf, "bpf_bloom_filter", ["bitset_mask", "hash_seed", "nr_hash_funcs", "bitset"])
)

/**
 * A BLOOM_FILTER: what was pushed cannot be told from it, only its bits and the parameters that find them. Hash function i
 * of a value is `jhash(value, hashSeed + i) & (bits - 1)`.
 * @see kernel/bpf/bloom_filter.c `struct bpf_bloom_filter`, v6.12
 */
export const openBloom: MapOpener = ({ info, kernel, offset, page, space }) =>
  Either.gen(function*() {
    const { at, size } = yield* bloomLayout(kernel.btf)
    if (!space.window(page, offset, size)) return yield* Either.left(space.faultReason)
    const [mask, hashSeed, hashFunctions] = [at.bitset_mask, at.hash_seed, at.nr_hash_funcs]
      .map((field) => space.view.getUint32(space.at + field, true))
    const bits = mask + 1
    // 7 / 5 bits an entry and function, rounded up to a power of two; at least 64, at most 2^32.
    const most = Math.max(64, 4 * info.maxEntries * hashFunctions)
    if (bits > most || Math.log2(bits) % 1 !== 0) {
      return yield* Either.left(
        corrupted(`a set of ${bits} bits for ${info.maxEntries} entries, ${hashFunctions} functions`)
      )
    }
    const walk = () => new BloomWalk(space, page, offset + at.bitset, 8, Math.ceil(bits / 64), undefined)
    let bitsSet = 0
    for (const words = walk(); words.next();) {
      bitsSet += bitsIn(words.valueView.getInt32(words.valueAt, true))
        + bitsIn(words.valueView.getInt32(words.valueAt + 4, true))
    }
    return { walk, key: indexCodec, value: wordCodec, details: { bits, bitsSet, hashFunctions, hashSeed } }
  })
