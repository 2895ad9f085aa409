import { wordsPointer } from "../../memory/KernelSpace.ts"

/**
 * The value behind the pointer asked for last, which the next task mostly has too: threads of a process come one after the
 * other. Two numbers are compared, no bigint is made.
 */
export class PointerCache<T> {
  #low = 0
  #high = 0
  #last: { readonly value: T } | undefined
  readonly #look: (pointer: bigint) => T

  constructor(look: (pointer: bigint) => T) {
    this.#look = look
  }

  /** By the pointer in the words at `at`. */
  at(words: Uint32Array, at: number): T {
    const low = words[at]
    const high = words[at + 1]
    if (this.#last === undefined || low !== this.#low || high !== this.#high) {
      this.#last = { value: this.#look(wordsPointer(words, at)) }
      this.#low = low
      this.#high = high
    }
    return this.#last.value
  }
}
