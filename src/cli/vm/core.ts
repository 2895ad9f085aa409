import * as Effect from "effect/Effect"
import { plural } from "../../core/Plural.ts"
import { stage } from "../../core/Progress.ts"
import { attachQemu } from "../../kvm/qemu/QemuAttach.ts"
import type { Vm } from "../../kvm/spec/VmEngine.ts"
import { makeVmcore, type VmcoreCpu } from "../../memory/cores/Vmcore.ts"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import { openMemoryImage } from "../../memory/MemoryImage.ts"
import type { Target } from "../source/options.ts"
import { bootTarget, imageOf, Live, qemuOf } from "../source/snapshot.ts"
import { checkWritable, writeBinary } from "../source/writeFile.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import * as Stages from "../terminal/Stages.ts"
import { writeMessage } from "../terminal/Streams.ts"

/** Write the memory that the options name as an ELF core. */
export const core = (config: Target & { readonly out: string }) =>
  Effect.gen(function*() {
    yield* checkWritable(config.out)
    yield* writeCore(config.out, yield* standing(config))
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

interface Standing {
  readonly memory: GuestMemory
  readonly cpus: ReadonlyArray<VmcoreCpu>
}

/** Write memory that stands still as an ELF core, and say what is in it. */
export const writeCore = (path: string, { cpus, memory }: Standing) =>
  Effect.gen(function*() {
    const core = makeVmcore(memory, cpus)
    yield* stage("write", "Ktstr.core", { path })(writeBinary(path, core.pieces))
    const kernel = core.release === undefined
      ? "no kernel was found in it, so it has no VMCOREINFO"
      : `VMCOREINFO of ${core.release}`
    const registers = cpus.length === 0 ? "no registers" : `registers of ${plural(cpus.length, "CPU")}`
    writeMessage(`  ${escapeLine(path)}: ${Math.ceil(memory.size / 2 ** 20)} MiB of memory, ${registers}, ${kernel}\n`)
  })

/** Memory that stands still until the scope closes, and its CPUs as far as they are known. */
const standing = (config: Target) =>
  Effect.gen(function*() {
    const qemu = yield* qemuOf(config)
    if (qemu !== undefined) {
      const attached = yield* stage("freeze", "Ktstr.freeze", { qemu })(attachQemu(qemu))
      return { memory: attached.memory, cpus: yield* attached.registers }
    }
    const image = yield* imageOf(config)
    if (image !== undefined) {
      const memory = yield* openMemoryImage(image.path)
      return { memory, cpus: [] as ReadonlyArray<VmcoreCpu> }
    }
    const { vm } = yield* bootTarget(config)
    return yield* stage("freeze", "Ktstr.freeze")(standingVm(vm))
  })

/** The memory and the CPUs of a VM, which stands still until the scope closes. */
export const standingVm = (vm: Vm) =>
  Effect.gen(function*() {
    const { memory, registers } = yield* vm.freeze
    const cpus: ReadonlyArray<VmcoreCpu> = yield* registers
    return { memory, cpus }
  })
