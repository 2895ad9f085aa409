/** What came of a worker's cases. */
export interface Report {
  /** All that a case may be of: a map (`hash hash_4096`), or something else that is read. */
  readonly tasks: ReadonlyArray<string>
  /** Cases within which each of them is tried at least once. */
  readonly round: number
  /** By task, how many cases were of it. */
  readonly tries: Readonly<Record<string, number>>
  /** Cases in which something else was said than of undamaged memory. */
  readonly changed: number
  /** In a CPU's time: others may have had the CPU as well. */
  readonly slowest: { readonly millis: number; readonly number: number; readonly task: string }
  /** The process's resident memory at its highest, and how far above what reading undamaged memory took. */
  readonly peakMib: number
  readonly grownMib: number
  /** Tasks that said something else in the end, when all damage was undone. */
  readonly notUndone: ReadonlyArray<string>
}

/** A line of a worker's output. */
export type Line =
  | { readonly trying: number }
  | { readonly number: number; readonly task: string; readonly failure: string }
  | Report
