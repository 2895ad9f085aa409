import * as NodeContext from "@effect/platform-node/NodeContext"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import * as Qemu from "../../src/kvm/qemu/Qemu.ts"

/** Everything that a test guest needs of the host. */
export const HostLive = Layer.mergeAll(Qemu.layer, KernelResolver.layer).pipe(
  Layer.provideMerge(NativeKoffi.layer),
  Layer.provideMerge(NodeContext.layer)
)

/** A temporary directory that goes with the scope. */
export const scratch = Effect.flatMap(
  FileSystem.FileSystem,
  (files) => files.makeTempDirectoryScoped({ prefix: "ktstr-test-" })
)

/** Compile BPF sources of test/bpf-src into `directory`; gives the objects' paths. */
export const compileBpf = (directory: string, ...names: ReadonlyArray<string>) =>
  Effect.forEach(names, (name) =>
    Effect.promise(async () => {
      const object = join(directory, `${name}.bpf.o`)
      const source = new URL(`../bpf-src/${name}.bpf.c`, import.meta.url).pathname
      const flags = ["-O2", "-g", "-target", "bpf", "-D__TARGET_ARCH_x86", "-I/usr/include/x86_64-linux-gnu"]
      await promisify(execFile)("clang", [...flags, "-c", source, "-o", object])
      return object
    }))

/** The compilers of programs for guests: scripts/arm64.sh installs the second. */
const COMPILERS = { "x86-64": "gcc", arm64: "aarch64-linux-gnu-gcc" }
export type GuestArch = keyof typeof COMPILERS

/** Compile a C source of test/bpf-src into `directory`, for a guest; gives the program's path. */
const compileC = (directory: string, name: string, arch: GuestArch = "x86-64") =>
  Effect.promise(async () => {
    const program = join(directory, name)
    const source = new URL(`../bpf-src/${name}.c`, import.meta.url).pathname
    await promisify(execFile)(COMPILERS[arch], ["-static", "-O1", "-Wall", "-Werror", source, "-o", program])
    return program
  })

/** Compile test/bpf-src/kinds-fill.c, which fills maps in the guest. */
export const compileKindsFill = (directory: string, arch?: GuestArch) => compileC(directory, "kinds-fill", arch)

/** Compile test/bpf-src/attach.c, which attaches programs in the guest. */
export const compileAttach = (directory: string, arch?: GuestArch) => compileC(directory, "attach", arch)

/** Compile test/bpf-src/special-fill.c, which fills the maps of special.bpf.c and objects.bpf.c in the guest. */
export const compileSpecialFill = (directory: string) => compileC(directory, "special-fill")

/** Compile test/bpf-src/park.c, which makes tasks for the scheduler of park.bpf.c in the guest. */
export const compilePark = (directory: string) => compileC(directory, "park")
