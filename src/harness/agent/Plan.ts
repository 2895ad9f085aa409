import * as Either from "effect/Either"
import { crc32 } from "node:zlib"
import { MOST_WORKERS, NOTHING, OP_CODES, type OpCode, PLAN_BYTES, PLAN_LIMIT, PLAN_MAGIC } from "./Protocol.ts"

/**
 * A worker of a plan: numbers and texts as the agent takes them, nothing left to choose.
 *
 * @since 0.1.0
 * @category models
 */
export interface PlanWorker {
  /** By its place in `WORK_TYPES`. */
  readonly type: number
  readonly group: number | undefined
  readonly comm: string
  /** As in cpuset.cpus. */
  readonly cpus: string | undefined
  readonly nice: number
  readonly policy: number
  readonly priority: number
  /** The first of the workers that work together, and how many they are. */
  readonly leader: number
  readonly size: number
  readonly params: ReadonlyArray<number>
}

/**
 * A program of a plan; `ops`: it is a scheduler whose name in sysfs begins so.
 *
 * @since 0.1.0
 * @category models
 */
export interface PlanCommand {
  readonly words: ReadonlyArray<string>
  readonly ops: string | undefined
  readonly group: number | undefined
}

/**
 * An operation of a plan. `a` to `c` are numbers, or texts where the operation takes one; see guest-agent/protocol.h.
 *
 * @since 0.1.0
 * @category models
 */
export interface PlanOp {
  readonly code: OpCode
  /** Which step of the scenario it belongs to, from 1; 0: to none. */
  readonly step: number
  readonly a?: number
  readonly b?: number | string
  readonly c?: number | string
  readonly ns?: number
}

/**
 * All that an agent is told.
 *
 * @since 0.1.0
 * @category models
 */
export interface Plan {
  readonly seed: number
  /** Nanoseconds after which a system call of the agent's is taken for one that never returns. */
  readonly callNs: number
  /** Paths below the work cgroup, parents before children. */
  readonly groups: ReadonlyArray<string>
  readonly workers: ReadonlyArray<PlanWorker>
  readonly commands: ReadonlyArray<PlanCommand>
  readonly ops: ReadonlyArray<PlanOp>
}

/** Texts, each once, and the offset of each. */
class Texts {
  readonly #offsets = new Map<string, number>()
  readonly #parts: Array<Uint8Array> = []
  bytes = 0

  /** Several texts, one behind the other. */
  addAll(texts: ReadonlyArray<string>): number {
    const joined = texts.join("\0")
    const known = this.#offsets.get(joined)
    if (known !== undefined) return known
    const part = new TextEncoder().encode(`${joined}\0`)
    const at = this.bytes
    this.#offsets.set(joined, at)
    this.#parts.push(part)
    this.bytes += part.length
    return at
  }

  write(out: Uint8Array, at: number): void {
    for (const part of this.#parts) {
      out.set(part, at)
      at += part.length
    }
  }
}

const aligned = (at: number): number => Math.ceil(at / 8) * 8

/**
 * A plan as the agent reads it; the same plan gives the same bytes. Left: its bytes, which are more than the agent takes.
 * @throws RangeError where it has more workers than the agent takes; `validateScenario` says so before
 */
export const encodePlan = (plan: Plan): Either.Either<Uint8Array<ArrayBuffer>, number> => {
  if (plan.workers.length > MOST_WORKERS) throw new RangeError(`a plan of ${plan.workers.length} workers`)
  const texts = new Texts()
  texts.addAll([""])
  const text = (value: string | undefined): number => value === undefined ? NOTHING : texts.addAll([value])
  const operand = (value: number | string | undefined): number =>
    typeof value === "string" ? text(value) : (value ?? 0) >>> 0
  const groups = plan.groups.map((path) => [text(path), 0])
  const workers = plan.workers.map((worker) => ({
    words: [
      worker.type,
      worker.group ?? NOTHING,
      text(worker.comm),
      text(worker.cpus),
      worker.nice >>> 0,
      worker.policy,
      worker.priority,
      worker.leader,
      worker.size,
      0
    ],
    params: worker.params
  }))
  const commands = plan.commands.map(({ group, ops, words }) => [
    texts.addAll(words),
    words.length,
    text(ops),
    group ?? NOTHING
  ])
  const ops = plan.ops.map((op) => ({
    head: OP_CODES[op.code] | (op.step << 16),
    words: [operand(op.a), operand(op.b), operand(op.c)],
    ns: op.ns ?? 0
  }))

  let end: number = PLAN_BYTES.header
  const place = (bytes: number): number => {
    const at = aligned(end)
    end = at + bytes
    return at
  }
  const textsAt = place(texts.bytes)
  const groupsAt = place(groups.length * PLAN_BYTES.group)
  const workersAt = place(workers.length * PLAN_BYTES.worker)
  const commandsAt = place(commands.length * PLAN_BYTES.command)
  const opsAt = place(ops.length * PLAN_BYTES.op)
  if (end > PLAN_LIMIT) return Either.left(end)

  const out = new Uint8Array(end)
  const view = new DataView(out.buffer)
  const put = (at: number, words: ReadonlyArray<number>) =>
    words.forEach((word, index) => view.setUint32(at + 4 * index, word, true))
  new TextEncoder().encodeInto(PLAN_MAGIC, out)
  put(8, [end, 0, textsAt, texts.bytes, groupsAt, groups.length, workersAt, workers.length])
  put(40, [commandsAt, commands.length, opsAt, ops.length])
  view.setBigUint64(56, BigInt(plan.seed), true)
  view.setBigUint64(64, BigInt(plan.callNs), true)
  texts.write(out, textsAt)
  groups.forEach((words, index) => put(groupsAt + index * PLAN_BYTES.group, words))
  workers.forEach(({ params, words }, index) => {
    const at = workersAt + index * PLAN_BYTES.worker
    put(at, words)
    params.forEach((param, n) => view.setBigUint64(at + 40 + 8 * n, BigInt(param), true))
  })
  commands.forEach((words, index) => put(commandsAt + index * PLAN_BYTES.command, words))
  ops.forEach(({ head, ns, words }, index) => {
    const at = opsAt + index * PLAN_BYTES.op
    put(at, [head, ...words])
    view.setBigUint64(at + 16, BigInt(ns), true)
  })
  view.setUint32(12, crc32(out), true)
  return Either.right(out)
}
