import { closeSync, constants, openSync, readSync } from "node:fs"

/**
 * One line of the kernel's log.
 *
 * @since 0.1.0
 * @category models
 */
export interface LogLine {
  /** Microseconds since boot; null where the log says none. */
  readonly atMicros: number | null
  readonly text: string
}

/** The longest record of /dev/kmsg; kernel/printk/printk.c `PRINTK_MESSAGE_MAX`, v6.12. */
const RECORD_BYTES = 1 << 13

/**
 * The running kernel's log as it is now. Fails with what `open` fails with: `EPERM` where `kernel.dmesg_restrict` is set
 * and the caller is not privileged.
 * @see Documentation/ABI/testing/dev-kmsg
 * @since 0.1.0
 * @category reading
 */
export const readKernelLog = (): ReadonlyArray<LogLine> => {
  const fd = openSync("/dev/kmsg", constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const record = Buffer.alloc(RECORD_BYTES)
    const lines: Array<LogLine> = []
    for (;;) {
      try {
        const length = readSync(fd, record)
        lines.push(...parseRecord(record.toString("utf8", 0, length)))
      } catch (error) {
        const code = error instanceof Error && "code" in error ? error.code : undefined
        if (code === "EAGAIN") return lines
        if (code !== "EPIPE") throw error // records were overwritten before we came to them
      }
    }
  } finally {
    closeSync(fd)
  }
}

/** A line's time as it was written; null where that is not an exact number, as a hostile kernel may write. */
export const microsOf = (micros: number): number | null => Number.isSafeInteger(micros) ? micros : null

/** `6,339,5140900,-;NET: Registered…`, and lines of further facts that begin with a space. */
const parseRecord = (record: string): ReadonlyArray<LogLine> => {
  const [first = ""] = record.split("\n")
  const end = first.indexOf(";")
  const atMicros = microsOf(Number(first.slice(0, end).split(",")[2]))
  const text = first.slice(end + 1).replaceAll(
    /\\x([0-9a-f]{2})/g,
    (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16))
  )
  return end < 0 ? [] : text.split("\n").map((line) => ({ atMicros, text: line }))
}

/**
 * The lines of what `dmesg` or a serial console printed: `[   12.345678] …`, or without a time.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseLogText = (text: string): ReadonlyArray<LogLine> =>
  text.split(/\r?\n/).filter((line) => line !== "").map((line) => {
    const [, seconds, micros, rest] = /^\[ *(\d+)\.(\d{6})\](?:\[ *[TC]\d+\])? (.*)$/.exec(line) ?? []
    return rest === undefined
      ? { atMicros: null, text: line }
      : { atMicros: microsOf(Number(seconds) * 1e6 + Number(micros)), text: rest }
  })
