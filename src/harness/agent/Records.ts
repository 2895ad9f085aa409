import { crc32 } from "node:zlib"
import { cString } from "../../core/CString.ts"
import { RECORD_BYTES, RECORD_HEADER, RECORD_KINDS, RECORD_MAGIC, SCHEDULER_EVENTS, SETUP_STEPS } from "./Protocol.ts"

/** Counters of a worker at the beginning or the end of a phase. Times are in nanoseconds; `events` are its latencies. */
export interface WorkerCounters {
  readonly worker: number
  readonly step: number
  readonly end: boolean
  readonly units: number
  /** Undefined: the kernel did not tell. */
  readonly cpuNs: number | undefined
  readonly gapMaxNs: number
  readonly gapAtNs: number
  readonly gapCpu: number
  readonly migrations: number
  readonly cpusUsed: bigint
  readonly events: number
  readonly eventMaxNs: number
  readonly runDelayNs: number
  /** How often it was given a CPU. */
  readonly runs: number
}

/** A record of the agent's log, by kind; `atNs` is the guest's monotonic clock. */
export type AgentRecord =
  & { readonly atNs: number }
  & (
    | {
      readonly kind: "hello"
      readonly version: number
      readonly cpus: number
      readonly controllers: number
      readonly features: number
      readonly release: string
      /** When init began; the record is of when it was ready. */
      readonly initNs: number
    }
    | {
      readonly kind: "op"
      readonly op: number
      readonly error: number
      readonly subject: number
      /** The state of the subject's process that was waited for in vain, as in /proc/PID/stat; undefined: it is not there. */
      readonly state: string | undefined
      /** Workers that failed like the subject. */
      readonly others: number
    }
    | { readonly kind: "phase"; readonly step: number; readonly end: boolean }
    | { readonly kind: "worker"; readonly counters: WorkerCounters }
    | {
      readonly kind: "workerEnded"
      readonly worker: number
      readonly status: number
      readonly setupErrno: number
      readonly setupStep: typeof SETUP_STEPS[number]
    }
    | {
      readonly kind: "scheduler"
      readonly command: number
      readonly what: typeof SCHEDULER_EVENTS[number]
      readonly status: number
      readonly enabled: boolean
      /** It has the tasks of the ordinary classes too, not only those of SCHED_EXT. */
      readonly switchAll: boolean
      readonly ops: string
      /** CPU time of its process; undefined: it had ended, or the kernel did not tell. */
      readonly cpuNs: number | undefined
    }
    | { readonly kind: "line"; readonly source: "kernel" | "command"; readonly command: number; readonly text: string }
    | { readonly kind: "commandEnded"; readonly command: number; readonly status: number }
    | {
      readonly kind: "group"
      readonly group: number
      readonly step: number
      readonly end: boolean
      readonly usageMicros: number | undefined
    }
    | { readonly kind: "refused"; readonly offset: number; readonly why: string }
    | { readonly kind: "done" }
    | { readonly kind: "unknown"; readonly number: number; readonly bytes: number }
  )

/** A log's records. `damage` says in one line what is missing; null: nothing. */
export interface DecodedLog {
  readonly records: ReadonlyArray<AgentRecord>
  readonly damage: string | null
}

const NAMES = new Map<number, keyof typeof RECORD_KINDS>(
  Object.entries(RECORD_KINDS).map(([name, number]) => [number, name as keyof typeof RECORD_KINDS])
)

/** Units or latencies of one worker: weeks of a billion a second would be more, and so is the sum of all. */
const MOST_COUNT = 2 ** 43

/** A time or a count of 64 bits; one above 2^53 is rounded, and nothing in a guest of hours is. */
const countAt = (view: DataView, at: number): number => Number(view.getBigUint64(at, true))

/** A worker's counters in a record of it. */
const countersOf = (body: DataView): WorkerCounters => {
  const u32 = (at: number) => body.getUint32(at, true)
  return {
    worker: u32(0),
    step: u32(4),
    end: u32(8) !== 0,
    units: countAt(body, 16),
    cpuNs: u32(12) === 0 ? undefined : countAt(body, 24),
    gapMaxNs: countAt(body, 32),
    gapAtNs: countAt(body, 40),
    gapCpu: u32(48),
    migrations: u32(52),
    cpusUsed: body.getBigUint64(56, true),
    events: countAt(body, 64),
    eventMaxNs: countAt(body, 72),
    runDelayNs: countAt(body, 80),
    runs: u32(92)
  }
}

const isPlausible = ({ events, units }: WorkerCounters): boolean => units <= MOST_COUNT && events <= MOST_COUNT

const recordOf = (kind: keyof typeof RECORD_KINDS, body: DataView, atNs: number): AgentRecord => {
  const u32 = (at: number) => body.getUint32(at, true)
  const s32 = (at: number) => body.getInt32(at, true)
  const rest = () => cString(body, RECORD_BYTES[kind], body.byteLength - RECORD_BYTES[kind])
  switch (kind) {
    case "hello":
      return {
        kind,
        atNs,
        version: u32(0),
        cpus: u32(4),
        controllers: u32(8),
        features: u32(12),
        release: cString(body, 16, 64),
        initNs: countAt(body, 80)
      }
    case "op":
      return {
        kind,
        atNs,
        op: u32(0),
        error: s32(8),
        subject: u32(12),
        state: u32(16) === 0 ? undefined : String.fromCharCode(u32(16) & 0x7f),
        others: u32(20)
      }
    case "phase":
      return { kind, atNs, step: u32(0), end: u32(4) !== 0 }
    case "worker":
      return { kind, atNs, counters: countersOf(body) }
    case "workerEnded":
      return {
        kind,
        atNs,
        worker: u32(0),
        status: s32(4),
        setupErrno: s32(8),
        setupStep: SETUP_STEPS[u32(12)] ?? "none"
      }
    case "scheduler":
      return {
        kind,
        atNs,
        command: u32(0),
        what: SCHEDULER_EVENTS[u32(4)] ?? "unknown",
        status: s32(8),
        enabled: (u32(12) & 1) !== 0,
        switchAll: (u32(12) & 2) !== 0,
        ops: cString(body, 16, 128),
        cpuNs: u32(152) === 0 ? undefined : countAt(body, 144)
      }
    case "line":
      return { kind, atNs, source: u32(0) === 1 ? "kernel" : "command", command: u32(4), text: rest() }
    case "commandEnded":
      return { kind, atNs, command: u32(0), status: s32(4) }
    case "group":
      return {
        kind,
        atNs,
        group: u32(0),
        step: u32(4),
        end: u32(8) !== 0,
        usageMicros: u32(12) === 0 ? undefined : countAt(body, 16)
      }
    case "refused":
      return { kind, atNs, offset: u32(0), why: rest() }
    case "done":
      return { kind, atNs }
  }
}

/**
 * The records of a log, as far as they are whole. Reading ends at the first that is not: what follows cannot be trusted.
 * Never throws, and allocates no more than a few times the log's size.
 */
export const decodeRecords = (log: Uint8Array): DecodedLog => {
  const view = new DataView(log.buffer, log.byteOffset, log.byteLength)
  const records: Array<AgentRecord> = []
  let skipped = 0
  let next = 0
  for (let at = 0; at < log.length;) {
    const broken = (why: string): DecodedLog => ({ records, damage: `the agent's log at byte ${at}: ${why}` })
    if (log.length - at < RECORD_HEADER) return broken("a record's header is cut off")
    if (view.getUint32(at, true) !== RECORD_MAGIC) return broken("not a record")
    const length = view.getUint32(at + 8, true)
    if (length > log.length - at - RECORD_HEADER) return broken(`a record of ${length} bytes is cut off`)
    const body = at + RECORD_HEADER
    if (checksumOf(log.subarray(at, body + length)) !== view.getUint32(at + 24, true)) {
      return broken("a record's checksum is wrong")
    }
    const sequence = view.getUint32(at + 12, true)
    skipped += sequence > next ? sequence - next : 0
    if (sequence < next) return broken(`record ${sequence} comes behind ${next - 1}`)
    next = sequence + 1
    const atNs = countAt(view, at + 16)
    const number = view.getUint16(at + 4, true)
    const kind = NAMES.get(number)
    if (kind === undefined) records.push({ kind: "unknown", atNs, number, bytes: length })
    else if (length < RECORD_BYTES[kind]) return broken(`a record of kind ${kind} has ${length} bytes`)
    else {
      const record = recordOf(kind, new DataView(log.buffer, log.byteOffset + body, length), atNs)
      if (record.kind === "worker" && !isPlausible(record.counters)) return broken("a worker's counters are too large")
      records.push(record)
    }
    at = body + Math.ceil(length / 8) * 8
  }
  return { records, damage: skipped === 0 ? null : `${skipped} records had no room in the agent's log` }
}

/** CRC-32 of a record's header, with zeros where the checksum itself is, and of its payload. */
const checksumOf = (record: Uint8Array): number => {
  const header = Uint8Array.from(record.subarray(0, RECORD_HEADER)) // slice() of a Buffer shares its bytes
  header.fill(0, 24, 28)
  return crc32(record.subarray(RECORD_HEADER), crc32(header))
}
