/** Pages that stay, half of them those last read: 256 MiB, which a map of a million entries takes. */
const KEPT = 65536

/** Pages that were made, by number: the 32,768 that were read last are in it, and perhaps as many from before. */
export class RecentPages {
  #recent = new Map<number, DataView>()
  #older = new Map<number, DataView>()

  /** The page, made now unless it is here. */
  get(page: number, make: (page: number) => DataView | undefined): DataView | undefined {
    const recent = this.#recent.get(page)
    if (recent !== undefined) return recent
    const found = this.#older.get(page) ?? make(page)
    if (found === undefined) return undefined
    if (this.#recent.size >= KEPT / 2) {
      this.#older = this.#recent
      this.#recent = new Map()
    }
    this.#recent.set(page, found)
    return found
  }
}
