import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { crc32 } from "node:zlib"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import {
  DIRECTORY_AT,
  LOG_PAGES,
  MAILBOX_MAGIC,
  MOST_WORKERS,
  PAGE_BYTES,
  PAGE_HEAD,
  PAGE_MAGIC,
  PROTOCOL_VERSION
} from "./Protocol.ts"

/**
 * The agent's mailbox in guest memory is not what it should be.
 *
 * @since 0.1.0
 * @category errors
 */
export class MailboxBroken extends Schema.TaggedError<MailboxBroken>("ktstr/MailboxBroken")("MailboxBroken", {
  why: Schema.String
}) {
  override get message() {
    return `the agent's mailbox in guest memory: ${this.why}; is the agent of this version of ktstr?`
  }
}

/** The agent's line on ttyS1 when the mailbox is there: the frame of its first page and the constant part's CRC. */
export const ANNOUNCEMENT = /^ktstr mailbox ([0-9a-f]{1,10}) ([0-9a-f]{1,8})$/
/** The line in place of it where there cannot be one. */
export const LAST_WORD = /^ktstr died (.{1,200})$/

/** How far the agent has come. */
export interface AgentState {
  readonly state: "starting" | "ready" | "done" | "stuck"
  /** The guest's monotonic clock when the agent was last awake. */
  readonly heartbeatNs: number
  /** Number of the operation that it is at. */
  readonly op: number
  /** Records that had no room. */
  readonly lost: number
}

/** A worker's counters as they stand in memory. */
export interface LiveCounters {
  readonly pid: number
  readonly units: number
  /** Latencies: how many, and by `bucketFloor` how many of each size. */
  readonly events: number
  readonly buckets: Uint32Array
}

/** Bytes of a bucket's counts, and where in a worker's page things are. */
const BUCKETS = 960
const WORKER_AT = { pid: 8, units: 16, events: 80, buckets: 128 } as const
const STATES = ["starting", "ready", "done", "stuck"] as const

/** The least value, in nanoseconds, that falls into a histogram's bucket: 32 buckets an octave, the first from 64 on. */
export const bucketFloor = (bucket: number): number => 2 ** (Math.floor(bucket / 32) + 6) * (1 + (bucket % 32) / 32)

/**
 * The agent's locked pages, read while the guest runs, stands or is dead. Everything in them comes from the guest: sizes are
 * checked once and counts are bounded at each read.
 */
export class Mailbox {
  readonly workers: number
  readonly #memory: GuestMemory
  /** Physical addresses of the pages. */
  readonly #pages: ReadonlyArray<number>

  private constructor(memory: GuestMemory, pages: ReadonlyArray<number>, workers: number) {
    this.#memory = memory
    this.#pages = pages
    this.workers = workers
  }

  /** The mailbox of an announcement. */
  static open(memory: GuestMemory, frame: number, crc: number): Either.Either<Mailbox, MailboxBroken> {
    const broken = (why: string) => Either.left(new MailboxBroken({ why }))
    const first = memory.bytes(frame * PAGE_BYTES, PAGE_BYTES)?.slice()
    if (first === undefined) return broken(`its page frame ${frame} is outside of memory`)
    const view = new DataView(first.buffer)
    const u32 = (at: number) => view.getUint32(at, true)
    if (Buffer.from(first.buffer, 8, 8).toString("latin1") !== MAILBOX_MAGIC) return broken("it is not there")
    if (u32(16) !== PROTOCOL_VERSION) return broken(`version ${u32(16)}, expected ${PROTOCOL_VERSION}`)
    const [pages, workersAt, workers, logAt, logPages] = [u32(20), u32(24), u32(28), u32(32), u32(36)]
    if (
      workers > MOST_WORKERS || logPages !== LOG_PAGES || workersAt !== 1 || logAt !== 1 + workers ||
      pages !== logAt + logPages
    ) return broken(`${pages} pages for ${workers} workers`)
    const directory = first.subarray(DIRECTORY_AT, DIRECTORY_AT + 4 * pages)
    const found = crc32(directory, crc32(first.subarray(8, 40)))
    if (found !== u32(40) || found !== crc) return broken("its checksum is wrong")
    const addresses: Array<number> = []
    for (let page = 0; page < pages; page++) {
      const pa = u32(DIRECTORY_AT + 4 * page) * PAGE_BYTES
      if (memory.u32(pa) !== PAGE_MAGIC || memory.u32(pa + 4) !== page) {
        return broken(`page ${page} is not where it was`)
      }
      addresses.push(pa)
    }
    return Either.right(new Mailbox(memory, addresses, workers))
  }

  get state(): AgentState {
    const at = this.#pages[0]
    const u32 = (offset: number) => Math.max(0, this.#memory.u32(at + offset))
    return {
      state: STATES[u32(44)] ?? "starting",
      heartbeatNs: Number(this.#memory.u64(at + 48) ?? 0n),
      op: u32(64),
      lost: u32(60)
    }
  }

  /** A copy of the log as far as it is written, in bytes of `decodeRecords`. */
  log(): Uint8Array {
    const room = PAGE_BYTES - PAGE_HEAD
    const bytes = Math.min(Math.max(0, this.#memory.u32(this.#pages[0] + 56)), LOG_PAGES * room)
    const out = new Uint8Array(bytes)
    for (let at = 0; at < bytes; at += room) {
      const page = this.#pages[1 + this.workers + at / room]
      this.#memory.copy(page + PAGE_HEAD, out.subarray(at, Math.min(bytes, at + room)))
    }
    return out
  }

  /** The counters of a worker as they stand now. */
  counters(worker: number): LiveCounters {
    const at = this.#pages[1 + worker]
    const bytes = new Uint8Array(4 * BUCKETS)
    this.#memory.copy(at + WORKER_AT.buckets, bytes)
    return {
      pid: this.#memory.u32(at + WORKER_AT.pid),
      units: Number(this.#memory.u64(at + WORKER_AT.units) ?? 0n),
      events: Number(this.#memory.u64(at + WORKER_AT.events) ?? 0n),
      buckets: new Uint32Array(bytes.buffer)
    }
  }
}
