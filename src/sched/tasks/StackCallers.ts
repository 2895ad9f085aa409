import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { SchedText } from "./SchedText.ts"

/** Callers that are of use beside the function that a CPU is in. */
const MOST_CALLERS = 8
/** Words of a stack that are looked at. */
const DEPTH = 256n
/** `THREAD_SIZE` and `IRQ_STACK_SIZE` of both without KASAN, which doubles them; stacks are aligned to it. */
const STACK_SIZE = 16384n

/**
 * The return addresses on the kernel stack of a stopped CPU, the innermost first. On arm64 by the frame records, which are
 * linked by x29; on x86-64 all words in front of which there is a call: as a stale one may lie there too, that is a good
 * guess. Those in modules and BPF programs are left out.
 * @param pointer the stack pointer; on arm64 x29
 * @see arch/x86/kernel/unwind_guess.c `unwind_next_frame`, arch/arm64/kernel/stacktrace.c `kunwind_next_frame_record`, v6.12
 *
 * @since 0.1.0
 * @category reading
 */
export const stackCallers = (kernel: GuestKernelService, pointer: bigint): ReadonlyArray<bigint> => {
  const { space } = kernel
  const text = new SchedText(kernel.symbols)
  const end = (pointer | STACK_SIZE - 1n) + 1n
  const found: Array<bigint> = []
  if (pointer % 8n !== 0n) return found
  if (space.table.arch !== "arm64") {
    for (let at = pointer; at < end && at < pointer + DEPTH * 8n && found.length < MOST_CALLERS; at += 8n) {
      const address = space.u64(at)
      if (address === undefined) break
      if (text.isText(address) && isCallSite(kernel, address)) found.push(address)
    }
    return found
  }
  const signature = BigInt(space.table.kernelStart) << 12n
  for (let record = pointer, lowest = pointer; found.length < MOST_CALLERS;) {
    if (record < lowest || record >= end || record % 8n !== 0n) break
    const signed = space.u64(record + 8n)
    if (signed === undefined || !text.isText(signed | signature)) break
    found.push(signed | signature)
    lowest = record + 16n
    record = space.u64(record) ?? 0n
  }
  return found
}

/** Is a call instruction of x86-64 in front of an address? */
export const isCallSite = ({ space }: GuestKernelService, address: bigint): boolean => {
  const before = space.read(address - 5n, 5)
  if (before === undefined) return false
  // call rel32; or call through a register or memory, which is FF /2 of 2 or more bytes
  return before[0] === 0xe8 || (before[3] === 0xff && (before[4] & 0x38) === 0x10)
}
