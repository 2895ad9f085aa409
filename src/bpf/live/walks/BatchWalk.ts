import { errnoName } from "../../../core/Errors.ts"
import { unreadable } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { Errno } from "../calls/BpfAbi.ts"
import type { BpfCalls, CallBuffer } from "../calls/BpfCalls.ts"

/** A map as its walks need it. */
export interface LiveTable {
  readonly fd: number
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  /**
   * In per-CPU maps, by CPU number: where its copy lies among those of a value, -1 for a CPU that cannot exist. The
   * kernel gives one copy a *possible* CPU, each rounded up to 8 bytes (kernel/bpf/syscall.c `bpf_map_value_size`, v6.12).
   */
  readonly copies: Int32Array | null
  /** Bytes of a whole value, as bpf(2) gives it. */
  readonly stride: number
  /** Bytes of it before those that are shown. */
  readonly header: number
}

/** Errors of a kernel that does not have the command (before v5.6), or not for this type of map. */
const NO_BATCHES: ReadonlySet<number> = new Set([-Errno.EINVAL, -Errno.ENOTSUPP, -Errno.EOPNOTSUPP])
/** Bytes of keys and values that one call asks for. */
const BATCH_BYTES = 1 << 20

/**
 * A map in batches: one call for thousands of entries. In hash maps the place between two batches is a bucket, and each
 * bucket is read under its lock: whatever vanishes or appears meanwhile, no key comes twice and none that stays is lost.
 * @see kernel/bpf/hashtab.c `__htab_map_lookup_and_delete_batch`; kernel/bpf/syscall.c `generic_map_lookup_batch`; v5.6
 */
export class BatchWalk implements EntryWalk {
  keyView: DataView
  keyAt = 0
  readonly keyLength: number
  valueView: DataView
  valueAt = 0
  readonly valueLength: number
  readonly problems = new WalkProblems()
  private from: CallBuffer
  private to: CallBuffer
  private keys: CallBuffer
  private values: CallBuffer
  private capacity: number
  private started = false
  private ended = false
  private count = 0
  private index = -1

  constructor(private readonly calls: BpfCalls, private readonly table: LiveTable) {
    const { keySize, maxEntries, stride, valueSize } = table
    this.keyLength = keySize
    this.valueLength = valueSize
    this.capacity = Math.max(1, Math.min(maxEntries, Math.floor(BATCH_BYTES / (keySize + stride))))
    this.from = calls.buffer(Math.max(4, keySize))
    this.to = calls.buffer(Math.max(4, keySize))
    this.keys = calls.buffer(this.capacity * keySize)
    this.values = calls.buffer(this.capacity * stride)
    this.keyView = this.keys.view
    this.valueView = this.values.view
  }

  /** The first batch. False: this kernel has no batches for such a map. */
  begin(): boolean {
    return !NO_BATCHES.has(this.fill())
  }

  next(): boolean {
    while (++this.index >= this.count) {
      if (this.ended) return false
      this.fill()
    }
    this.keyAt = this.index * this.table.keySize
    this.valueAt = this.index * this.table.stride
    return true
  }

  value(copy: number): boolean {
    const { copies, stride } = this.table
    if (copies === null) return true
    const place = copies[copy]
    this.valueAt = this.index * stride + place
    return place >= 0
  }

  /** Get the next batch: 0, or minus the errno of a failure. */
  private fill(): number {
    const { calls, table } = this
    this.index = -1
    this.count = 0
    for (;;) {
      const result = calls.lookupBatch(
        table.fd,
        this.started ? this.from : null,
        this.to,
        this.keys,
        this.values,
        this.capacity
      )
      if (result === -Errno.ENOSPC && this.grow()) continue // a bucket has more entries than there is room
      if (result < 0 && result !== -Errno.ENOENT) {
        this.ended = true
        this.problems.add(unreadable(`BPF_MAP_LOOKUP_BATCH: ${errnoName(-result)}; entries are missing`))
        return result
      }
      this.count = Math.min(calls.answer, this.capacity)
      this.ended = result === -Errno.ENOENT
      this.started = true
      const { from } = this
      this.from = this.to
      this.to = from
      return 0
    }
  }

  private grow(): boolean {
    const { calls, table } = this
    // No bucket has more than all; a few more while entries are replaced.
    if (this.capacity > table.maxEntries * 2 + 64) return false
    this.capacity = this.capacity * 2 + 64
    this.keys = calls.buffer(this.capacity * table.keySize)
    this.values = calls.buffer(this.capacity * table.stride)
    this.keyView = this.keys.view
    this.valueView = this.values.view
    return true
  }
}
