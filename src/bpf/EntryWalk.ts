import type { WalkProblems } from "../core/WalkProblems.ts"

/**
 * A walk over one map's entries, one step at a time, without allocating: the walk itself is the cursor. The bytes at
 * `key…` and `value…` are borrowed: a key is valid until `value` or `next` is called, a value until the next of either.
 * Keys and values are those of bpf(2) where it has them; where it has none (a ring buffer's records have no key, a perf
 * event no value) the walk's maker says what stands for them.
 *
 * @since 0.1.0
 * @category models
 */
export interface EntryWalk {
  /** Step to the next entry; false at the end, or when the map is too broken to go on (see `problems`). */
  next(): boolean
  readonly keyView: DataView
  readonly keyAt: number
  /** Bytes of this entry's key. */
  readonly keyLength: number
  /**
   * Point at the entry's value: `copy` is the CPU's number in per-CPU maps, else 0. False: this CPU cannot exist
   * (`cpus` says so), or its bytes cannot be read (counted in `problems`).
   */
  value(copy: number): boolean
  readonly valueView: DataView
  readonly valueAt: number
  /** Bytes of this entry's value. The view has more of what lies around it, where the value's codec needs that. */
  readonly valueLength: number
  /** The problems found so far. */
  readonly problems: WalkProblems
}

/**
 * A walk that looks for entries in places one after another, each by itself: a hash table's buckets. Several walks over one
 * map can then share the work.
 *
 * @since 0.1.0
 * @category models
 */
export interface PlacedWalk extends EntryWalk {
  /** The number of places. */
  readonly places: number
  /** The first place that is not looked at yet; once the walk cannot go on, none of them. */
  readonly place: number
  /** Between two places: go on at `from` and end before `to`, as if `seen` entries had been met; as many as were if not given. */
  narrow(from: number, to: number, seen?: number): void
  /**
   * Pass over the places before `to`, in which another walk met `entries` and no problem. False: that is more than the map can
   * hold, and this walk has to see where.
   */
  skip(to: number, entries: number): boolean
}
