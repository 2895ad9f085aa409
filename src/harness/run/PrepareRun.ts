import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { createHash } from "node:crypto"
import { basename } from "node:path"
import type { CacheError } from "../../core/CacheDir.ts"
import { HostLacks, KernelIdInvalid } from "../../core/Errors.ts"
import { KernelResolver, type ResolveError } from "../../core/kernels/KernelResolver.ts"
import { stage } from "../../core/Progress.ts"
import { COMMON_WORDS } from "../../kvm/guest/CommandLine.ts"
import type { IncludeError } from "../../kvm/guest/HostFiles.ts"
import { minimumMemoryMib } from "../../kvm/guest/Initramfs.ts"
import { type Emulation, emulationParameters } from "../../kvm/qemu/Emulation.ts"
import { fd } from "../../kvm/qemu/QemuProcess.ts"
import { qemuTopology } from "../../kvm/qemu/QemuTopology.ts"
import { resolveTopology, type Topology, TopologyError, type TopologySpec } from "../../kvm/spec/Topology.ts"
import type { VmSpec } from "../../kvm/spec/VmEngine.ts"
import { agentInitramfs } from "../agent/AgentInitramfs.ts"
import { agentProgram } from "../agent/AgentProgram.ts"
import { encodePlan } from "../agent/Plan.ts"
import { PLAN_LIMIT } from "../agent/Protocol.ts"
import type { Claim } from "../claim/Claim.ts"
import { chooseMode, type ChosenMode, clockOf, type EngineMode, type ExactClock } from "../engine/EngineMode.ts"
import { type GuestLimits, guestLimits } from "../scenario/GuestLimits.ts"
import { payloadProgram, type PlannedScenario, planScenario } from "../scenario/PlanScenario.ts"
import type { Scenario } from "../scenario/Scenario.ts"
import { ScenarioInvalid, validateScenario } from "../scenario/ValidateScenario.ts"
import type { GivenScheduler } from "./AssembleRun.ts"
import { type ProgramInvalid, readProgram } from "./ProgramOfHost.ts"
import { readScheduler, type Scheduler } from "./SchedulerProgram.ts"

/**
 * A request for a run: a scenario on a kernel, under a scheduler or the kernel's own, and what must hold.
 *
 * @since 0.1.0
 * @category models
 */
export interface RunRequest {
  /** The test's name. */
  readonly test: string
  /** A kernel id: `debian:7.3-cloud`, or a path. */
  readonly kernel: string
  /** Not given, the kernel's own scheduler. */
  readonly scheduler?: Scheduler | undefined
  readonly scenario: Scenario
  readonly claims?: ReadonlyArray<Claim> | undefined
  /** 2 CPUs that share an LLC. */
  readonly topology?: TopologySpec | undefined
  /** Guest memory in MiB; 512, or more where the initramfs needs it. */
  readonly memoryMib?: number | undefined
  /** `auto`. */
  readonly mode?: EngineMode | "auto" | undefined
  /** A whole number from 0 on; 1. */
  readonly seed?: number | undefined
  /** The clock of an exact guest, as another run's record has it; that of its mode. */
  readonly clock?: ExactClock | undefined
}

/**
 * A run that is ready to be booted: nothing is left to be found out.
 *
 * @since 0.1.0
 * @category models
 */
export interface PreparedRun {
  readonly request: RunRequest
  readonly seed: number
  readonly mode: ChosenMode
  /** Null where time is the host's. */
  readonly clock: ExactClock | null
  readonly limits: GuestLimits
  readonly emulation: Emulation
  readonly topology: Topology
  readonly memoryMib: number
  readonly kernel: { readonly id: string; readonly release: string; readonly sha256: string }
  readonly scheduler: GivenScheduler | undefined
  readonly planned: PlannedScenario
  readonly spec: VmSpec
  readonly determinismKey: string
  /** Longest time that the host waits, in ms. */
  readonly limitMillis: number
}

/**
 * All that preparing a run can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type PrepareRunError =
  | ResolveError
  | CacheError
  | HostLacks
  | IncludeError
  | ScenarioInvalid
  | ProgramInvalid
  | TopologyError

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | KernelResolver

const sha256 = (bytes: Uint8Array | string): string => createHash("sha256").update(bytes).digest("hex")

const DEFAULT_TOPOLOGY: TopologySpec = { nodes: 1, llcs: 1, cores: 2, threads: 1 }
const DEFAULT_MEMORY = 512
/** In an exact guest more CPUs than that make each of them too slow for its ticks. */
const MOST_EXACT_CPUS = 32

/** How long the host waits for a guest's second, and for its boot, by mode. */
const PATIENCE: Readonly<Record<EngineMode, { readonly boot: number; readonly factor: number }>> = {
  "kvm": { boot: 60_000, factor: 1.5 },
  "exact": { boot: 240_000, factor: 20 },
  "exact-coarse": { boot: 240_000, factor: 20 },
  "emulated": { boot: 240_000, factor: 50 }
}

/** That many times longer a scheduler is waited for where the host's load shows. */
const EMULATED_PATIENCE = 6

/** Words of the command line that make a run the same each time, and its console quiet. */
const cmdlineOf = (mode: EngineMode): string =>
  mode === "exact" || mode === "exact-coarse" ? "loglevel=1 nokaslr" : "loglevel=1"

const readBytes = (path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => fs.readFile(path)).pipe(
    Effect.mapError(({ message }) =>
      new HostLacks({ what: path, why: `it cannot be read (${message})`, hint: "check its permissions" })
    )
  )

/** Everything that decides what an exact run does, as one number. */
const keyOf = (parts: Readonly<Record<string, unknown>>): string => sha256(JSON.stringify(parts))

/**
 * Find and check all that a run needs, before anything boots.
 *
 * @since 0.1.0
 * @category constructors
 */
export const prepareRun = Effect.fn("PrepareRun.prepare")(
  function*(request: RunRequest): Effect.fn.Return<PreparedRun, PrepareRunError, Host> {
    const spec = request.topology ?? DEFAULT_TOPOLOGY
    const topology = yield* resolveTopology({ topology: spec, memoryMib: request.memoryMib ?? DEFAULT_MEMORY })
    const scenario = yield* validateScenario(request.scenario, topology, request.scheduler !== undefined)
    const mode = yield* chooseMode(request.mode ?? "auto", topology.cpus)
    const ownClock = clockOf(mode.mode)
    const clock = ownClock === null ? null : request.clock ?? ownClock
    const limits = guestLimits(clock)
    const scheduler = request.scheduler === undefined ? undefined : yield* readScheduler(request.scheduler, limits)
    if (mode.mode !== "kvm" && mode.mode !== "emulated" && topology.cpus > MOST_EXACT_CPUS) {
      return yield* new TopologyError({
        why: `${topology.cpus} CPUs in mode ${mode.mode}`,
        hint: `give at most ${MOST_EXACT_CPUS}, or another mode`
      })
    }
    const kernel = yield* stage(`kernel ${request.kernel}`, "kernel.resolve", { kernel: request.kernel })(
      Effect.flatMap(KernelResolver, (resolver) => resolver.resolve(request.kernel))
    )
    if (kernel.arch === "arm64") {
      const why =
        "it is an arm64 kernel, and the agent of runs is an x86-64 program; name an x86-64 one, or use `ktstr vm run`"
      return yield* new KernelIdInvalid({ given: "kernel id", id: request.kernel, why })
    }
    const seed = request.seed ?? 1
    // in an emulated guest a second is as long as the host's load makes it
    const attachNs = (scheduler?.attachLimit ?? 0) * (mode.mode === "emulated" ? EMULATED_PATIENCE : 1)
    const inGuest = scheduler === undefined ? undefined : basename(scheduler.path)
    const planned = planScenario(
      scenario,
      topology,
      scheduler === undefined
        ? undefined
        : { words: [`/bin/${inGuest}`, ...scheduler.arguments], ops: scheduler.ops, attachNs },
      seed,
      limits
    )
    const payloads = yield* Effect.forEach(
      Object.entries(scenario.payloads ?? {}),
      ([name, { program }]) =>
        Effect.map(readProgram("payload", program), ({ path }) => ({ name: payloadProgram(name), path }))
    )
    const programs = [
      ...(scheduler === undefined ? [] : [{ name: basename(scheduler.path), path: scheduler.path }]),
      ...payloads
    ]
    const plan = yield* Either.mapLeft(encodePlan(planned.plan), (bytes) => {
      const problem = `its plan has ${bytes} bytes, with all arguments of programs`
      return new ScenarioInvalid({ problems: [{ path: "", problem, fix: `give at most ${PLAN_LIMIT}` }] })
    })
    const initramfs = yield* agentInitramfs(yield* agentProgram, plan, programs)
    const memoryMib = Math.max(
      topology.memoryMib,
      request.memoryMib === undefined ? minimumMemoryMib(initramfs.length) : 0
    )
    const holds = planned.plan.ops.reduce(
      (sum, { code, ns }) => sum + (code === "hold" || code === "wait" ? ns ?? 0 : 0),
      0
    )
    const { boot, factor } = PATIENCE[mode.mode]
    const kernelHash = sha256(yield* readBytes(kernel.image))
    const cmdline = cmdlineOf(mode.mode)
    const emulation: Emulation = clock === null ? "threads" : { seed, ...clock }
    return {
      request,
      seed,
      mode,
      clock,
      limits,
      emulation,
      topology,
      memoryMib,
      scheduler,
      planned,
      kernel: { id: request.kernel, release: kernel.release, sha256: kernelHash },
      spec: { kernel: kernel.image, unpacked: kernel.unpacked, initramfs, memoryMib, topology: spec, cmdline },
      determinismKey: keyOf({
        qemu: mode.qemu === undefined ? null : [
          mode.qemu.version,
          sha256(yield* readBytes(mode.qemu.program.path)),
          ...emulationParameters(emulation, topology.cpus),
          ...qemuTopology({ ...topology, memoryMib }, "max", "emulation", fd.ram)
        ],
        kernel: kernelHash,
        initramfs: sha256(initramfs),
        machine: [spec.nodes, spec.llcs, spec.cores, spec.threads, memoryMib],
        mode: mode.mode,
        seed,
        cmdline: `${COMMON_WORDS} ${cmdline}`
      }),
      limitMillis: boot + ((holds + attachNs) / 1e6 + 30_000) * factor
    }
  }
)
