import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { wordsPointer } from "../../memory/KernelSpace.ts"
import { SchedText } from "./SchedText.ts"
import type { StackTop } from "./StackTop.ts"

/** Frames of the scheduler itself behind which `get_wchan_cb` gives up. */
const MOST_FRAMES = 16
/** `MIN_THREAD_SHIFT` without KASAN; a stack is a page at least. */
const STACK_SIZE = 16384
/** The caller's frame pointer, and where the function returns to. */
const RECORD = 16n

/**
 * As `/proc/PID/wchan` unwinds: by the frame records, which are linked by x29.
 * @see arch/arm64/kernel/process.c `__get_wchan`, arch/arm64/kernel/stacktrace.c `kunwind_next_frame_record`,
 * arch/arm64/include/asm/memory.h `THREAD_SHIFT`, arch/arm64/include/asm/pointer_auth.h `ptrauth_strip_kernel_insn_pac`, v6.12
 */
export class Arm64StackTop implements StackTop {
  readonly saved = "fp"
  readonly #kernel: GuestKernelService
  readonly #text: SchedText
  readonly #stackSize: bigint
  /** The bits that all kernel addresses have: in a return address they may hold its signature (PAC). */
  readonly #signature: bigint
  readonly #known = new Map<bigint, string | undefined>()

  constructor(kernel: GuestKernelService) {
    this.#kernel = kernel
    this.#text = new SchedText(kernel.symbols)
    const { kernelStart, pageSize } = kernel.space.table
    this.#stackSize = BigInt(Math.max(STACK_SIZE, pageSize))
    this.#signature = BigInt(kernelStart) << 12n
  }

  of(task: Uint32Array, fp: number, stackAt: number): string | undefined {
    const { space } = this.#kernel
    const stack = wordsPointer(task, stackAt)
    let lowest = stack
    let record = wordsPointer(task, fp)
    for (let frames = 0; frames < MOST_FRAMES; frames++) {
      // each lies above the one before it
      if (record < lowest || record + RECORD > stack + this.#stackSize || record % 8n !== 0n) return undefined
      const caller = space.u64(record)
      const signed = space.u64(record + 8n)
      if (caller === undefined || signed === undefined) return undefined
      const address = signed | this.#signature
      if (this.#text.isCaller(address)) return this.#nameOf(address)
      lowest = record + RECORD
      record = caller
    }
    return undefined
  }

  #nameOf(address: bigint): string | undefined {
    if (!this.#known.has(address)) this.#known.set(address, this.#kernel.symbols.at(address - 1n)?.name)
    return this.#known.get(address)
  }
}
