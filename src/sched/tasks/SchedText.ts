import type { Symbols } from "../../memory/Symbols.ts"

/** The kernel's text, and the part of it that is the scheduler's own: kernel/sched/core.c `in_sched_functions`, v6.12. */
export class SchedText {
  readonly start: bigint
  readonly #end: bigint
  readonly #schedStart: bigint
  readonly #schedEnd: bigint

  constructor(symbols: Symbols) {
    const at = (name: string): bigint => symbols.address(name) ?? 0n
    this.start = at("_stext")
    this.#end = at("_etext")
    this.#schedStart = at("__sched_text_start")
    this.#schedEnd = at("__sched_text_end")
  }

  /** May a return address be in the kernel's text? The first bytes have no call before them. */
  isText(address: bigint): boolean {
    return address >= this.start + 8n && address < this.#end
  }

  /** May a return address be in a function that is not the scheduler's own? */
  isCaller(address: bigint): boolean {
    return this.isText(address) && !(address > this.#schedStart && address <= this.#schedEnd)
  }
}
