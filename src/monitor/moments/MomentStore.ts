import type { TakenMoment } from "./TakenMoment.ts"

const MOST_MOMENTS = 64
const MOST_BYTES = 2 ** 29

const bytesOf = ({ reading }: TakenMoment): number =>
  "kind" in reading ? 0 : reading.reduce((bytes, piece) => bytes + piece.length, 0)

/**
 * Moments in the order in which they were taken: the newest 64, and of these as many as fit into 512 MiB. A name that was
 * given before gets a number: `name#2`.
 *
 * @since 0.1.0
 * @category models
 */
export class MomentStore {
  readonly #moments: Array<TakenMoment> = []
  readonly #times = new Map<string, number>()
  #bytes = 0
  #dropped = 0

  /** Keep a moment; gives it with the name that it has here. */
  add(moment: TakenMoment): TakenMoment {
    const times = (this.#times.get(moment.name) ?? 0) + 1
    this.#times.set(moment.name, times)
    const kept = times === 1 ? moment : { ...moment, name: `${moment.name}#${times}` }
    this.#moments.push(kept)
    this.#bytes += bytesOf(kept)
    while (this.#moments.length > MOST_MOMENTS || (this.#bytes > MOST_BYTES && this.#moments.length > 1)) {
      const [oldest] = this.#moments.splice(0, 1)
      this.#bytes -= bytesOf(oldest)
      this.#dropped++
    }
    return kept
  }

  /** The moments that are kept, the oldest first. */
  get moments(): ReadonlyArray<TakenMoment> {
    return [...this.#moments]
  }

  /** How many were dropped for newer ones. */
  get dropped(): number {
    return this.#dropped
  }
}
