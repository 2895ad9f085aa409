import * as Effect from "effect/Effect"
import { listLinks } from "../../bpf/guest/links/Links.ts"
import type { MapAccessorService } from "../../bpf/MapAccessor.ts"
import type { MapReader } from "../../bpf/MapReader.ts"
import type { Header } from "../../bpf/Report.ts"
import { jsonDocument } from "../../bpf/report/DumpWriter.ts"
import { hex } from "../../core/Address.ts"
import { Losses, lossesIn } from "../../core/Losses.ts"
import { type Reason, truncated, unreadable } from "../../core/Reason.ts"
import type { Arm64Registers, CpuRegisters } from "../../kvm/spec/VcpuRegisters.ts"
import { GuestKernel, type GuestKernelService } from "../../memory/GuestKernel.ts"
import { readSched } from "../../sched/SchedState.ts"
import { stackCallers } from "../../sched/tasks/StackCallers.ts"
import type { FailedCpu, Reading } from "./Reading.ts"

/** Entries of each map, and bytes of all maps, that a reading has at most. */
const MOST_ENTRIES = 4096
const MOST_BYTES = 48 * 2 ** 20

/**
 * A guest that was stopped, ready to be read.
 *
 * @since 0.1.0
 * @category models
 */
export interface StoppedGuest {
  readonly header: Header
  readonly kernel: GuestKernelService
  readonly maps: MapAccessorService
  readonly registers: ReadonlyArray<CpuRegisters | Arm64Registers> | Reason
}

/**
 * Read all of a stopped guest: a `Reading` as UTF-8, which begins with the members of `front`. What cannot be read is a
 * `Reason` in its place.
 */
export const captureReading = (guest: StoppedGuest, front: object): Effect.Effect<ReadonlyArray<Uint8Array>> =>
  Effect.gen(function*() {
    const { header, kernel, maps } = guest
    const sched = readSched(kernel)
    const links = yield* Effect.provideService(listLinks, GuestKernel, kernel).pipe(
      Effect.catchAll((error) => Effect.succeed(unreadable(error.message)))
    )
    const listed = yield* Effect.gen(function*() {
      const { items, problems } = yield* maps.list
      const programs = yield* maps.programs
      return {
        readers: yield* Effect.forEach(items, maps.reader),
        programs: programs.items,
        problems: [...problems, ...programs.problems]
      }
    }).pipe(
      Effect.catchAll((error) => Effect.succeed({ readers: [], programs: [], problems: [unreadable(error.message)] }))
    )
    const read: Pick<Reading, "vcpus" | "sched" | "links"> = {
      vcpus: "kind" in guest.registers
        ? guest.registers
        : guest.registers.map((registers, cpu) => failedCpu(kernel, registers, cpu)),
      sched,
      links: "kind" in links ? links : links.items
    }
    const problems = [...listed.problems, ...("kind" in links ? [] : links.problems)]
    const losses = new Losses()
    losses.include(lossesIn(read))
    let bytes = 0
    const readers = function*(): Generator<MapReader> {
      for (const reader of listed.readers) {
        const { id, name } = reader.info
        if (bytes < MOST_BYTES) yield reader
        else problems.push(truncated(`map ${id} ${name}: left out, the maps before it have ${bytes} bytes`))
      }
    }
    const pieces: Array<Uint8Array> = []
    const dump = { header: { ...header, ...front, ...read }, readers: readers(), limit: MOST_ENTRIES }
    for (const piece of jsonDocument({ ...dump, programs: listed.programs, problems, losses })) {
      pieces.push(piece.slice())
      bytes += piece.length
    }
    return pieces
  }).pipe(Effect.withSpan("Monitor.captureReading"))

const failedCpu = (
  kernel: GuestKernelService,
  stopped: CpuRegisters | Arm64Registers,
  cpu: number
): FailedCpu => {
  const { at, isUser, named, stack } = "x" in stopped
    ? {
      at: stopped.pc,
      stack: stopped.x[29],
      isUser: (stopped.pstate & 0xfn) === 0n, // EL0: arch/arm64/include/uapi/asm/ptrace.h `PSR_MODE_MASK`, v6.12
      named: [
        ...stopped.x.map((value, index) => [`x${index}`, value] as const),
        ["sp", stopped.sp] as const,
        ["pc", stopped.pc] as const,
        ["pstate", stopped.pstate] as const
      ]
    }
    : {
      at: stopped.general.rip,
      stack: stopped.general.rsp,
      isUser: (stopped.segments.cs.selector & 3) === 3, // the requested privilege level
      named: [...Object.entries(stopped.general), ...Object.entries(stopped.control)]
    }
  const placeOf = (address: bigint, behind = 0) => {
    const symbol = kernel.symbolAt(address - BigInt(behind))
    return symbol === undefined ? null : `${symbol.name}+${hex(symbol.offset + behind)}`
  }
  return {
    cpu,
    mode: isUser ? "user" : "kernel",
    place: isUser ? null : placeOf(at),
    callers: isUser ? [] : stackCallers(kernel, stack).flatMap((address) => placeOf(address, 1) ?? []), // behind a call, maybe the last
    registers: Object.fromEntries(named.map(([name, value]) => [name, hex(value)]))
  }
}
