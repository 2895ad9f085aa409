import { errnoName } from "../../../core/Errors.ts"
import { truncated, unreadable } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { Errno } from "../calls/BpfAbi.ts"
import type { BpfCalls, CallBuffer } from "../calls/BpfCalls.ts"
import type { LiveTable } from "./BatchWalk.ts"

/** Restarts after which the walk gives up. */
const MOST_RESTARTS = 1000

/**
 * A map key by key. When the key to continue from has vanished, the kernel starts over: keys that were given already are
 * skipped, so none comes twice, and later ones are still reached. A slot without a value (of a map of programs,
 * devices, sockets) is not an entry.
 *
 * The key is repeated after the value's `stride` bytes, for codecs that show it.
 * @see kernel/bpf/syscall.c `map_get_next_key`; kernel/bpf/lpm_trie.c `trie_get_next_key`; v6.12
 */
export class KeyWalk implements EntryWalk {
  keyView: DataView
  readonly keyAt = 0
  readonly keyLength: number
  readonly valueView: DataView
  valueAt = 0
  readonly valueLength: number
  readonly problems = new WalkProblems()
  private key: CallBuffer
  private following: CallBuffer
  private readonly found: CallBuffer
  private started = false
  private restarts = 0
  private again = false

  /** The keys that came; null where a key cannot vanish. */
  private readonly seen: Set<string> | null

  constructor(
    private readonly calls: BpfCalls,
    private readonly table: LiveTable,
    indexed: boolean
  ) {
    this.keyLength = table.keySize
    this.valueLength = table.valueSize
    this.key = calls.buffer(table.keySize)
    this.following = calls.buffer(table.keySize)
    this.found = calls.buffer(table.stride + table.keySize)
    this.keyView = this.key.view
    this.valueView = this.found.view
    this.seen = indexed ? null : new Set()
  }

  next(): boolean {
    const { calls, found, seen, table } = this
    for (;;) {
      const step = calls.nextKey(table.fd, this.started ? this.key : null, this.following)
      if (step < 0) return step === -Errno.ENOENT ? false : this.fail("BPF_MAP_GET_NEXT_KEY", step)
      const { key } = this
      this.key = this.following
      this.following = key
      this.started = true
      if (seen !== null && this.hasCome(seen)) {
        if (this.restarts > MOST_RESTARTS) {
          this.problems.add(truncated(`keys vanished under the walk ${MOST_RESTARTS} times: entries are missing`))
          return false
        }
        continue
      }
      const result = calls.lookup(table.fd, this.key, found)
      if (result === -Errno.ENOENT) continue // an empty slot, or gone since
      if (result < 0) return this.fail("BPF_MAP_LOOKUP_ELEM", result)
      found.bytes.set(this.key.bytes.subarray(0, table.keySize), table.stride)
      this.keyView = this.key.view
      this.valueAt = table.header
      return true
    }
  }

  value(copy: number): boolean {
    const { copies } = this.table
    if (copies === null) return true
    this.valueAt = copies[copy]
    return this.valueAt >= 0
  }

  private hasCome(seen: Set<string>): boolean {
    const name = Buffer.from(this.key.bytes.buffer, 0, this.table.keySize).toString("latin1")
    if (!seen.has(name)) {
      seen.add(name)
      this.again = false
      return false
    }
    if (!this.again) this.restarts++
    this.again = true
    return true
  }

  private fail(command: string, result: number): false {
    this.problems.add(unreadable(`${command}: ${errnoName(-result)}; entries are missing`))
    return false
  }
}
