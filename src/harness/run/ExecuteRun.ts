import type * as FileSystem from "@effect/platform/FileSystem"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { join } from "node:path"
import type { HostLacks } from "../../core/Errors.ts"
import type { Native } from "../../core/Native.ts"
import { stage } from "../../core/Progress.ts"
import { bootQemu } from "../../kvm/qemu/Qemu.ts"
import { type Vm, type VmBootError } from "../../kvm/spec/VmEngine.ts"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import { type CapturedFailure, sealFailure } from "../../monitor/FailureDump.ts"
import { ANNOUNCEMENT, LAST_WORD, Mailbox } from "../agent/Mailbox.ts"
import { type AgentRecord, type DecodedLog, decodeRecords } from "../agent/Records.ts"
import { judgeRun } from "../claim/JudgeRun.ts"
import type { RunRecord } from "../claim/RunRecord.ts"
import { assembleRun, type ToldByAgent } from "./AssembleRun.ts"
import { captureAtEnd, watchRun } from "./FailedRunDump.ts"
import type { PreparedRun } from "./PrepareRun.ts"
import { keepRun, makeRunFolder, newRunId, type RunFolderError } from "./RunFolder.ts"
import { agentStarved } from "./StarvedAgent.ts"

/** The version of ktstr that a record is of. */
const VERSION = "0.1.0"

const boot = (run: PreparedRun): Effect.Effect<Vm, VmBootError | HostLacks, Native | Scope.Scope> => {
  const { qemu } = run.mode
  return qemu === undefined
    ? Effect.flatMap(Effect.promise(() => import("../../kvm/native/Kvm.ts")), ({ bootKvm }) => bootKvm(run.spec, {}))
    : bootQemu(run.spec, { by: "emulation", why: run.mode.why }, { program: qemu.program, emulation: run.emulation })
}

/** How the guest ended, what its agent wrote and what stands in its pages. */
interface Observed {
  readonly end: RunRecord["end"]
  readonly log: DecodedLog
  readonly told: ToldByAgent
  /** All that was read of the guest when its kernel or its scheduler failed. */
  readonly captured?: CapturedFailure | undefined
}

/** An observation of a guest whose mailbox was never there. */
const nothing = (run: PreparedRun, how: RunRecord["end"]["how"], why: string): Observed => {
  const log: DecodedLog = { records: [], damage: "the agent's mailbox was never there" }
  return { end: { how, at: 0, why }, log, told: assembleRun([], [], run.planned, run.scheduler) }
}

const endOf = (records: ReadonlyArray<AgentRecord>, otherwise: RunRecord["end"]): RunRecord["end"] => {
  const refused = records.find((record) => record.kind === "refused")
  if (refused !== undefined) return { how: "refused", at: refused.atNs, why: refused.why }
  const done = records.findLast((record) => record.kind === "done")
  return done === undefined ? otherwise : { how: "done", at: done.atNs, why: null }
}

/** The guest's memory, asked for at once: a busy host's QEMU may answer so late that a short guest has ended. */
type EarlyMemory = Fiber.Fiber<Either.Either<GuestMemory, { readonly message: string }>>

/** Watch a guest to its end. Its memory stays ours after that, so what a dead one left is read like any other's. */
const observe = (
  run: PreparedRun,
  vm: Vm,
  early: EarlyMemory,
  dumps: boolean
): Effect.Effect<Observed, never, Scope.Scope> =>
  Effect.gen(function*() {
    const late = Effect.as(Effect.sleep(run.limitMillis), undefined)
    const said = Effect.either(vm.awaitReport(new RegExp(`${ANNOUNCEMENT.source}|${LAST_WORD.source}`)))
    const first = yield* Effect.raceFirst(said, late)
    const tail = Effect.map(vm.consoleTail, (lines) => lines.findLast((line) => line.trim() !== "") ?? "nothing")
    if (first === undefined) {
      return nothing(
        run,
        "time limit",
        `no agent after ${run.limitMillis / 1000} s; the console last said: ${yield* tail}`
      )
    }
    if (Either.isLeft(first)) {
      const panicked = first.left._tag === "GuestPanicked"
      return nothing(run, panicked ? "panicked" : "ended", first.left.message)
    }
    const [, frame, crc] = ANNOUNCEMENT.exec(first.right) ?? []
    if (frame === undefined) return nothing(run, "ended", `the agent: ${LAST_WORD.exec(first.right)?.[1]}`)
    const memory = yield* Fiber.join(early)
    if (Either.isLeft(memory)) return nothing(run, "ended", memory.left.message)
    const opened = Mailbox.open(memory.right, Number.parseInt(frame, 16), Number.parseInt(crc, 16))
    if (Either.isLeft(opened)) return nothing(run, "ended", opened.left.message)
    const mailbox = opened.right

    const failed = dumps ? yield* watchRun(run, vm, memory.right) : Effect.succeed(undefined)
    const starved = Effect.map(
      agentStarved(memory.right, mailbox, run.limits.starved),
      (why) => ({ _tag: "AgentStarved" as const, why })
    )
    const over = yield* Effect.raceFirst(Effect.raceFirst(Effect.flip(vm.ended), starved), late)
    const { heartbeatNs, lost, op, state } = mailbox.state
    const log = decodeRecords(mailbox.log())
    const told = assembleRun(
      log.records,
      Array.from({ length: mailbox.workers }, (_, worker) => mailbox.counters(worker)),
      run.planned,
      run.scheduler
    )
    const at = `${run.planned.plan.ops[op]?.code ?? "its"} operation (${op + 1} of ${run.planned.plan.ops.length})`
    const otherwise: RunRecord["end"] = state === "stuck"
      ? { how: "ended", at: heartbeatNs, why: `the agent's system call did not return, at the ${at}` }
      : over === undefined
      ? { how: "time limit", at: heartbeatNs, why: `after ${run.limitMillis / 1000} s at the ${at}` }
      : over._tag === "AgentStarved"
      ? { how: "starved", at: heartbeatNs, why: `${over.why}, at the ${at}` }
      : {
        how: over._tag === "GuestPanicked" ? "panicked" : "ended",
        at: heartbeatNs,
        why: `at the ${at}: ${over.message}`
      }
    const damage = log.damage ?? (lost > 0 ? `${lost} records had no room in the agent's log` : null)
    const end = endOf(log.records, otherwise)
    return {
      end,
      told,
      captured: yield* failed,
      log: { ...log, damage: damage ?? (end.how === "done" && state !== "done" ? "the agent did not end" : null) }
    }
  })

/** A run's record, before it is judged, of what was observed. */
const recordOf = (
  run: PreparedRun,
  { end, log, told }: Observed,
  host: RunRecord["host"]
): RunRecord => ({
  schema: "ktstr.run/1",
  test: run.request.test,
  determinismKey: run.determinismKey,
  seed: run.seed,
  mode: { mode: run.mode.mode, why: run.mode.why, qemu: run.mode.qemu?.version ?? null, clock: run.clock },
  kernel: run.kernel,
  machine: {
    cpus: run.topology.cpus,
    nodes: run.topology.nodes.length,
    llcs: run.topology.llcs,
    cores: run.topology.cores,
    threads: run.topology.threads,
    memoryMib: run.memoryMib
  },
  scenario: run.request.scenario,
  claims: run.request.claims ?? [],
  ...told,
  end,
  damage: log.damage,
  verdict: { outcome: "inconclusive", details: [] },
  host
})

/** A judged run, and where it failed and `dumps` are wanted all that was read of its guest. */
const execute = (run: PreparedRun, dumps: boolean) =>
  Effect.gen(function*() {
    const startedAt = yield* Clock.currentTimeMillis
    const vm = yield* boot(run)
    const early = yield* Effect.fork(Effect.either(vm.memory))
    const observed = yield* observe(run, vm, early, dumps)
    const record = recordOf(run, observed, {
      id: newRunId(startedAt),
      startedAt: new Date(startedAt).toISOString(),
      wallMillis: (yield* Clock.currentTimeMillis) - startedAt,
      ktstr: VERSION,
      directory: null,
      dump: null
    })
    const judged = { ...record, verdict: judgeRun(record) }
    if (!dumps || judged.verdict.outcome !== "fail") return { record: judged, captured: undefined }
    const memory = Option.getOrUndefined(Either.getRight(yield* Fiber.join(early)))
    return { record: judged, captured: observed.captured ?? (yield* captureAtEnd(run, vm, memory, judged)) }
  }).pipe(
    Effect.scoped,
    stage(
      `run ${run.request.scenario.name}${
        run.scheduler === undefined ? "" : ` under ${run.scheduler.name}`
      }, ${run.mode.mode}, seed ${run.seed}`,
      "harness.run",
      { seed: run.seed }
    )
  )

/**
 * Boot a prepared run, watch it to its end and judge it. Whatever the guest does is in the record; it fails only where there
 * is no guest.
 *
 * @since 0.1.0
 * @category constructors
 */
export const executeRun: (run: PreparedRun) => Effect.Effect<RunRecord, VmBootError | HostLacks, Native> = Effect.fn(
  "ExecuteRun.execute"
)((run) => Effect.map(execute(run, false), ({ record }) => record))

/** The file of a run's folder that gets the guest's console as it comes. */
const CONSOLE = "console.log"

/**
 * Execute a run in a folder of its own below `directory`: the guest's console is there as `console.log`, also of a run that
 * is cut off, and the record as `run.json`. A run that failed leaves a dump of its guest as `failure.json`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const executeAndKeep = Effect.fn("ExecuteRun.executeAndKeep")(
  function*(
    run: PreparedRun,
    directory: string
  ): Effect.fn.Return<RunRecord, VmBootError | HostLacks | RunFolderError, Native | FileSystem.FileSystem> {
    const folder = yield* makeRunFolder(directory)
    const spec = { ...run.spec, consoleFile: join(folder.path, CONSOLE) }
    const { captured, record } = yield* execute({ ...run, spec }, true)
    return yield* keepRun(record, folder, captured === undefined ? undefined : sealFailure(captured))
  }
)
