import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Buffer } from "node:buffer"
import { Btf } from "../btf/Btf.ts"
import { Kva, Pa } from "../core/Address.ts"
import type { SyscallError } from "../core/Errors.ts"
import { type FormatError, parsing } from "../core/FormatError.ts"
import { Native } from "../core/Native.ts"
import type { Reason } from "../core/Reason.ts"
import { findDirectMap } from "./arch/PageTable.ts"
import { NoBtf, type NotAKernel, Unmapped, WrongKernel } from "./Errors.ts"
import { hasData, ProvedSymbols } from "./evidence/ProvedSymbols.ts"
import type { GuestMemory } from "./GuestMemory.ts"
import { Kallsyms } from "./kallsyms/Kallsyms.ts"
import { KernelSpace } from "./KernelSpace.ts"
import { isLocated, type KernelLocation, locateByVmcoreinfo } from "./LocateKernel.ts"
import { openMemoryImage } from "./MemoryImage.ts"
import { perCpuOffsets } from "./PerCpu.ts"
import { notAKernel } from "./RawMemory.ts"
import type { Symbols } from "./Symbols.ts"
import { locateByVmlinux, openVmlinux, type Vmlinux, VmlinuxSymbols } from "./Vmlinux.ts"

/** The BTF of a kernel with everything built in stays below this, in bytes. */
const MAX_BTF = 32 * 2 ** 20

/**
 * The service behind the tag `GuestKernel`.
 *
 * @since 0.1.0
 * @category models
 */
export interface GuestKernelService {
  readonly memory: GuestMemory
  readonly space: KernelSpace
  /** `6.12.117+deb12-cloud-amd64` */
  readonly release: string
  /** How far KASLR moved the image, in bytes. */
  readonly kaslrOffset: bigint
  readonly btf: Btf
  readonly symbols: Symbols
  /** A symbol's run-time address; undefined when there is none, or it is a per-CPU offset (`symbols` has those). */
  readonly symbol: (name: string) => Kva | undefined
  /** The nearest symbol of the image at or below an address, and the distance in bytes. */
  readonly symbolAt: (address: bigint) => { readonly name: string; readonly offset: number } | undefined
  /** By CPU number; undefined for a CPU that is not possible. */
  readonly perCpuOffsets: ReadonlyArray<bigint | undefined>
  /** Why `perCpuOffsets` is not complete, if so. */
  readonly perCpuProblem: Reason | undefined
  /** The address of CPU `cpu`'s copy of a per-CPU pointer or symbol; undefined if the CPU is not possible. */
  readonly perCpu: (pointer: bigint, cpu: number) => Kva | undefined
  /** The guest-physical address of a kernel virtual one. */
  readonly translate: (address: Kva) => Effect.Effect<Pa, Unmapped>
  /** A copy of `len` bytes, at most 64 MiB. */
  readonly read: (address: Kva, len: number) => Effect.Effect<Uint8Array, Unmapped>
}

/**
 * A kernel at an instant: its symbols, types and virtual memory. Everything here borrows the memory it was made from.
 * Loops use `space`; `translate` and `read` are for single looks.
 *
 * @since 0.1.0
 * @category services
 */
export class GuestKernel extends Context.Tag("ktstr/memory/GuestKernel")<GuestKernel, GuestKernelService>() {
  /** From memory alone. Needs VMCOREINFO with kallsyms (CONFIG_VMCORE_INFO, v6.0) and BTF in it. */
  static readonly fromMemory = (
    memory: GuestMemory,
    subject = "guest memory"
  ): Effect.Effect<GuestKernelService, NotAKernel | NoBtf | FormatError> =>
    Effect.gen(function*() {
      const location = yield* Effect.sync(() => locateByVmcoreinfo(memory)).pipe(Effect.withSpan("GuestKernel.locate"))
      if (!isLocated(location)) return yield* notAKernel(subject, memory.size, location.candidates, location.why)
      const { info } = location
      const space = spaceOf(location)
      const room = yield* roomForCopies
      const kallsyms = yield* Effect.suspend(() => parsing(() => new Kallsyms(space, info!, room))).pipe(
        Effect.withSpan("GuestKernel.kallsyms")
      )
      yield* Effect.logDebug(`${subject}: kallsyms: ${kallsyms.evidence}`)
      const proved = hasData(kallsyms) ? undefined : new ProvedSymbols(space, info!, kallsyms)
      if (proved !== undefined) yield* Effect.logDebug(`${subject}: symbols of data: ${proved.evidence}`)
      const symbols = proved ?? kallsyms
      return yield* Effect.suspend(() => assemble(memory, space, location, symbols, room)).pipe(
        Effect.withSpan("GuestKernel.btf")
      )
    }).pipe(Effect.withSpan("GuestKernel.fromMemory"))

  /** With the vmlinux that runs in it, for kernels that do not describe themselves. */
  static readonly fromVmlinux = (
    memory: GuestMemory,
    vmlinux: Vmlinux
  ): Effect.Effect<GuestKernelService, WrongKernel | NoBtf | FormatError> =>
    Effect.gen(function*() {
      const location = locateByVmlinux(memory, vmlinux)
      if (!isLocated(location)) return yield* wrongKernel(memory, vmlinux, location.candidates)
      const space = spaceOf(location)
      const { notes } = vmlinux
      const there = notes === undefined ? undefined : space.read(notes.address + location.shift, notes.bytes.length)
      if (notes !== undefined && there !== undefined && Buffer.compare(notes.bytes, there) !== 0) {
        return yield* new WrongKernel({
          vmlinux: vmlinux.subject,
          why: `both are ${location.release}, but the build ids differ`
        })
      }
      const symbols = new VmlinuxSymbols(vmlinux, location.shift)
      return yield* assemble(memory, space, location, symbols, yield* roomForCopies)
    }).pipe(Effect.withSpan("GuestKernel.fromVmlinux"))

  /** `fromMemory` as a layer. */
  static readonly layer = (memory: GuestMemory): Layer.Layer<GuestKernel, NotAKernel | NoBtf | FormatError> =>
    Layer.effect(GuestKernel, GuestKernel.fromMemory(memory))

  /** `fromVmlinux` as a layer. */
  static readonly layerVmlinux = (
    memory: GuestMemory,
    vmlinux: Vmlinux
  ): Layer.Layer<GuestKernel, WrongKernel | NoBtf | FormatError> =>
    Layer.effect(GuestKernel, GuestKernel.fromVmlinux(memory, vmlinux))

  /** From an image file, and its vmlinux if given. */
  static readonly open = (
    image: string,
    options: { readonly vmlinux?: string | undefined } = {}
  ): Effect.Effect<
    GuestKernelService,
    SyscallError | FormatError | NotAKernel | NoBtf | WrongKernel,
    Native | Scope.Scope
  > =>
    Effect.gen(function*() {
      if (options.vmlinux === undefined) return yield* GuestKernel.fromMemory(yield* openMemoryImage(image), image)
      const vmlinux = yield* openVmlinux(options.vmlinux)
      const memory = yield* openMemoryImage(image, {
        locate: (memory, early) => {
          const location = locateByVmlinux(memory, vmlinux)
          return isLocated(location) ? location : locateByVmcoreinfo(memory, early) // another kernel still tells where memory lies
        }
      })
      return yield* GuestKernel.fromVmlinux(memory, vmlinux)
    })

  /** `open` as a layer: the image stays mapped as long as the layer lives. */
  static readonly layerImage = (
    image: string,
    options: { readonly vmlinux?: string | undefined } = {}
  ): Layer.Layer<GuestKernel, SyscallError | FormatError | NotAKernel | NoBtf | WrongKernel, Native> =>
    Layer.scoped(GuestKernel, GuestKernel.open(image, options))
}

/** Makes the buffers for what is copied of a kernel. */
type Room = (bytes: number) => Uint8Array

/** Some 7 MiB are copied: in pages of 4 KiB that are new to the process, most of an attach would be page faults. */
const roomForCopies: Effect.Effect<Room> = Effect.map(Effect.serviceOption(Native), (native) =>
  Option.match(native, {
    onNone: () => (bytes) => new Uint8Array(bytes),
    onSome: ({ largeBuffer }) => largeBuffer
  }))

const spaceOf = ({ table }: KernelLocation): KernelSpace => new KernelSpace(table, findDirectMap(table))

const wrongKernel = (memory: GuestMemory, vmlinux: Vmlinux, candidates: number): WrongKernel => {
  const location = locateByVmcoreinfo(memory)
  const why = isLocated(location)
    ? location.release === vmlinux.release
      ? `both are ${location.release}, but of different builds`
      : `it is of ${vmlinux.release}, the memory of ${location.release}`
    : candidates > 0
    ? `${vmlinux.release} is in the memory, but no page tables map it`
    : `"Linux version ${vmlinux.release} …" is nowhere in the memory`
  return new WrongKernel({ vmlinux: vmlinux.subject, why })
}

const assemble = (
  memory: GuestMemory,
  space: KernelSpace,
  { release, shift }: KernelLocation,
  symbols: Symbols,
  room: Room
): Either.Either<GuestKernelService, NoBtf | FormatError> =>
  Either.map(readBtf(space, release, symbols, room), (btf) => {
    const [mask] = btf.idsByName("cpumask").flatMap((id) => btf.sizeOf(id) ?? [])
    const perCpus = perCpuOffsets(space, symbols, (mask ?? 1024) * 8)
    const unmapped = () => new Unmapped(space.fault)
    return {
      memory,
      space,
      release,
      kaslrOffset: shift,
      btf,
      symbols,
      symbol: (name) => kernelAddress(symbols.address(name)),
      symbolAt: (address) => symbols.at(address),
      perCpuOffsets: perCpus.offsets,
      perCpuProblem: perCpus.problem,
      perCpu: (pointer, cpu) => {
        const offset = perCpus.offsets[cpu]
        return offset === undefined ? undefined : kernelAddress(BigInt.asUintN(64, pointer + offset))
      },
      translate: (address) =>
        Effect.suspend(() => {
          const pa = space.translate(address)
          return pa < 0 ? unmapped() : Effect.succeed(Pa(pa))
        }),
      read: (address, len) =>
        Effect.suspend(() => {
          const bytes = space.read(address, len)
          return bytes === undefined ? unmapped() : Effect.succeed(bytes)
        })
    }
  })

const kernelAddress = (address: bigint | undefined): Kva | undefined =>
  address !== undefined && Kva.is(address) ? address : undefined

/** `.BTF` of the image, which lies between two symbols; include/asm-generic/vmlinux.lds.h `BTF`, v5.4 and newer. */
const readBtf = (
  space: KernelSpace,
  release: string,
  symbols: Symbols,
  room: Room
): Either.Either<Btf, NoBtf | FormatError> => {
  const none = (why: string, hint = "build it with CONFIG_DEBUG_INFO_BTF=y and CONFIG_KALLSYMS_ALL=y") =>
    Either.left(new NoBtf({ release, why, hint }))
  const start = symbols.address("__start_BTF")
  const stop = symbols.address("__stop_BTF")
  if (start === undefined || stop === undefined) return none("its symbols lack __start_BTF")
  const size = stop - start
  if (size <= 0n || size > BigInt(MAX_BTF)) return none(`__start_BTF and __stop_BTF are ${size} bytes apart`)
  const bytes = space.read(start, Number(size), room) // a copy: types are asked for after the memory has ended
  if (bytes === undefined) {
    return none(`it cannot be read (${space.faultText})`, "the image seems cut short: give all of it")
  }
  return Btf.parse(bytes, { subject: `BTF of kernel ${release}`, room })
}
