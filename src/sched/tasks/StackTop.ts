import { kvaOffset, kvaPage } from "../../core/Address.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"

/** Bytes of a sleeping task's kernel stack that are looked at. */
const DEPTH = 2048
/** `struct inactive_task_frame`: six registers, then where `__switch_to_asm` returns to; arch/x86/include/asm/switch_to.h. */
const FRAME = 48

/**
 * Where a task that does not run sleeps: the function of the innermost return address on its kernel stack that is not of
 * the scheduler itself (`in_sched_functions`). Return addresses are words that point behind a call instruction of the
 * kernel's text; as stale ones may lie on a stack too, this is a good guess where `/proc/PID/wchan` unwinds.
 * @see kernel/sched/core.c `get_wchan`, arch/x86/kernel/process.c `__get_wchan`, v6.12
 */
export class StackTop {
  readonly #kernel: GuestKernelService
  readonly #text: readonly [bigint, bigint]
  readonly #sched: readonly [bigint, bigint]
  /** The function by return address; undefined if it is not one, or is the scheduler's own. */
  readonly #known = new Map<bigint, string | undefined>()

  constructor(kernel: GuestKernelService) {
    this.#kernel = kernel
    const range = (
      from: string,
      to: string
    ): readonly [bigint, bigint] => [kernel.symbols.address(from) ?? 0n, kernel.symbols.address(to) ?? 0n]
    this.#text = range("_stext", "_etext")
    this.#sched = range("__sched_text_start", "__sched_text_end")
  }

  /** `sp` is the task's saved stack pointer, `thread.sp`. */
  of(sp: bigint): string | undefined {
    const { space } = this.#kernel
    const length = Math.min(DEPTH, 4096 - kvaOffset(sp))
    if ((sp & 7n) !== 0n || length < FRAME + 8 || !space.window(kvaPage(sp), kvaOffset(sp), length)) return undefined
    const { at, view } = space
    // copies: looking at code moves the window
    const high = Number(this.#text[0] >> 32n)
    const words: Array<bigint> = []
    for (let i = FRAME; i + 8 <= length; i += 8) {
      if (view.getUint32(at + i + 4, true) === high) words.push(view.getBigUint64(at + i, true))
    }
    for (const word of words) {
      const name = this.#functionOf(word)
      if (name !== undefined) return name
    }
    return undefined
  }

  #functionOf(address: bigint): string | undefined {
    if (this.#known.has(address)) return this.#known.get(address)
    const name = this.#isCallSite(address) ? this.#kernel.symbols.at(address - 1n)?.name : undefined
    this.#known.set(address, name)
    return name
  }

  /** Is it behind a call, in the text but not in the scheduler's own? */
  #isCallSite(address: bigint): boolean {
    const [from, to] = this.#text
    if (address < from + 8n || address >= to) return false
    if (address > this.#sched[0] && address <= this.#sched[1]) return false
    const before = this.#kernel.space.read(address - 5n, 5)
    if (before === undefined) return false
    // call rel32; or call through a register or memory, which is FF /2 of 2 or more bytes
    return before[0] === 0xe8 || (before[3] === 0xff && (before[4] & 0x38) === 0x10)
  }
}
