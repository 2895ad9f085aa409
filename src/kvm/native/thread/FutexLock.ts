/**
 * A lock of the devices: spin-free, because who waits sleeps. A futex as in Drepper, "Futexes Are Tricky", mutex 2.
 *
 * Sent to vCPU threads as source text: it uses nothing from outside itself.
 */
export class FutexLock {
  readonly #words: Int32Array
  readonly #at: number

  /** The lock is word `at` of `words`: 0 free, 1 taken, 2 taken and waited for. */
  constructor(words: Int32Array, at: number) {
    this.#words = words
    this.#at = at
  }

  lock(): void {
    if (Atomics.compareExchange(this.#words, this.#at, 0, 1) === 0) return
    while (Atomics.exchange(this.#words, this.#at, 2) !== 0) Atomics.wait(this.#words, this.#at, 2)
  }

  unlock(): void {
    if (Atomics.exchange(this.#words, this.#at, 0) === 2) Atomics.notify(this.#words, this.#at, 1)
  }

  /** Run something under the lock. */
  hold<A>(run: () => A): A {
    this.lock()
    try {
      return run()
    } finally {
      this.unlock()
    }
  }
}
