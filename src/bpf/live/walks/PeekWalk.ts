import { errnoName } from "../../../core/Errors.ts"
import { unreadable, unsupported } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { Errno } from "../calls/BpfAbi.ts"
import type { BpfCalls, CallBuffer } from "../calls/BpfCalls.ts"

/**
 * The element of a QUEUE or STACK that would be popped next, without popping it: bpf(2) can show no other. Its key is the
 * number of pops before it, 0.
 * @see kernel/bpf/syscall.c `bpf_map_copy_value`: `map_peek_elem`, v6.12
 */
export class PeekWalk implements EntryWalk {
  readonly keyView = new DataView(new ArrayBuffer(4))
  readonly keyAt = 0
  readonly keyLength = 4
  readonly valueView: DataView
  readonly valueAt = 0
  readonly problems = new WalkProblems()
  private readonly found: CallBuffer
  private done = false

  constructor(private readonly calls: BpfCalls, private readonly fd: number, readonly valueLength: number) {
    this.found = calls.buffer(valueLength)
    this.valueView = this.found.view
  }

  next(): boolean {
    if (this.done) {
      this.problems.add(
        unsupported("bpf(2) shows only the next element; those behind it, if any, are seen only by popping it")
      )
      return false
    }
    const result = this.calls.lookup(this.fd, null, this.found)
    this.done = true
    if (result < 0 && result !== -Errno.ENOENT) {
      this.problems.add(unreadable(`BPF_MAP_LOOKUP_ELEM: ${errnoName(-result)}`))
    }
    return result >= 0
  }

  value(): boolean {
    return true
  }
}
