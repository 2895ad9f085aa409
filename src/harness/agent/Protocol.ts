/**
 * The protocol between the agent and the host; guest-agent/protocol.h is the agent's side, and a test compares both.
 * Numbers are little-endian, sizes and offsets in bytes.
 */

export const PROTOCOL_VERSION = 1
export const PAGE_BYTES = 4096

/** An operand that stands for nothing. */
export const NOTHING = 0xffffffff

export const PLAN_MAGIC = "KTPLAN02"
export const PLAN_BYTES = { header: 72, group: 8, worker: 72, command: 16, op: 24 } as const
/** Most bytes of a plan. */
export const PLAN_LIMIT = 2 ** 20

/** Operations, by their code. */
export const OP_CODES = {
  cgroupAdd: 1,
  cgroupRemove: 2,
  cgroupWrite: 3,
  spawn: 4,
  stop: 5,
  move: 6,
  affinity: 7,
  nice: 8,
  attach: 9,
  detach: 10,
  hold: 11,
  phaseBegin: 12,
  phaseEnd: 13,
  run: 14,
  wait: 15,
  kill: 16,
  policy: 17
} as const
export type OpCode = keyof typeof OP_CODES

export const MAILBOX_MAGIC = "KTSTRMB1"
export const PAGE_MAGIC = 0x4750544b
export const PAGE_HEAD = 8
export const MOST_WORKERS = 512
export const LOG_PAGES = 256
export const DIRECTORY_AT = 120

export const RECORD_MAGIC = 0x3152544b
export const RECORD_HEADER = 32

export const RECORD_KINDS = {
  hello: 1,
  op: 2,
  phase: 3,
  worker: 4,
  workerEnded: 5,
  scheduler: 6,
  line: 7,
  commandEnded: 8,
  group: 9,
  refused: 10,
  done: 11
} as const

/** Bytes of each kind's fixed part. */
export const RECORD_BYTES = {
  hello: 88,
  op: 24,
  phase: 8,
  worker: 96,
  workerEnded: 16,
  scheduler: 160,
  line: 8,
  commandEnded: 8,
  group: 24,
  refused: 8,
  done: 0
} as const

/** Events of a scheduler's record, by number. */
export const SCHEDULER_EVENTS = [
  "unknown",
  "started",
  "attached",
  "died",
  "late",
  "noSchedExt",
  "other",
  "detached",
  "gone",
  "atEnd",
  "left"
] as const

/** Steps of a worker's set-up, by number. */
export const SETUP_STEPS = ["none", "cgroup", "affinity", "nice", "policy"] as const
