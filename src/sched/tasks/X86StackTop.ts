import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { wordsOffset, wordsPage } from "../../memory/KernelSpace.ts"
import { SchedText } from "./SchedText.ts"
import { isCallSite } from "./StackCallers.ts"
import type { StackTop } from "./StackTop.ts"

/** Bytes of a sleeping task's kernel stack that are looked at. */
const DEPTH = 2048
/** `THREAD_SIZE` of x86-64 without KASAN, which doubles it; arch/x86/include/asm/page_64_types.h, v6.1 to v7.3. */
const STACK_SIZE = 16384
/** `struct inactive_task_frame`: six registers, then where `__switch_to_asm` returns to; arch/x86/include/asm/switch_to.h. */
const FRAME = 48

/**
 * The innermost return address on a kernel stack of x86-64 that is not of the scheduler itself. Return addresses are words
 * that point behind a call instruction of the kernel's text; as stale ones may lie on a stack too, this is a good guess
 * where `/proc/PID/wchan` unwinds.
 * @see arch/x86/kernel/process.c `__get_wchan`, v6.12
 */
export class X86StackTop implements StackTop {
  readonly saved = "sp"
  readonly #kernel: GuestKernelService
  readonly #text: SchedText
  /** The upper halves of all return addresses: the text is below 1 GiB and does not cross into another. */
  readonly #high: number
  /** The function by the lower half of a return address; empty if it is not one, or is the scheduler's own. */
  readonly #known = new Map<number, string>()

  constructor(kernel: GuestKernelService) {
    this.#kernel = kernel
    this.#text = new SchedText(kernel.symbols)
    this.#high = Number(this.#text.start >> 32n)
  }

  /** The two pointers are `thread.sp`, and the lowest address of the task's stack. */
  of(task: Uint32Array, sp: number, stack: number): string | undefined {
    const { space } = this.#kernel
    const page = wordsPage(task, sp)
    const offset = wordsOffset(task, sp)
    const below = (wordsPage(task, stack) - page) * 4096 + wordsOffset(task, stack) - offset
    const length = Math.min(DEPTH, below + STACK_SIZE)
    if ((offset & 7) !== 0 || length < FRAME + 8 || !space.wordWindow(page, offset, length)) return undefined
    const high = this.#high
    let { word, words } = space
    for (let i = FRAME / 4; i * 4 + 8 <= length; i += 2) {
      if (words[word + i + 1] !== high) continue
      const low = words[word + i]
      let name = this.#known.get(low)
      if (name === undefined) {
        name = this.#functionOf(low)
        this.#known.set(low, name)
        if (!space.wordWindow(page, offset, length)) return undefined // code was looked at
        word = space.word
        words = space.words
      }
      if (name !== "") return name
    }
    return undefined
  }

  #functionOf(low: number): string {
    const address = BigInt(this.#high) << 32n | BigInt(low)
    return this.#text.isCaller(address) && isCallSite(this.#kernel, address)
      ? this.#kernel.symbols.at(address - 1n)?.name ?? ""
      : ""
  }
}
