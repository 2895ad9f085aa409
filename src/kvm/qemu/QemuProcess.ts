import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { writeFileSync } from "node:fs"
import { resolve } from "node:path"
import type { HostLacks, SyscallError } from "../../core/Errors.ts"
import { Native } from "../../core/Native.ts"
import { requireProgram } from "../../core/Programs.ts"
import { type Disk, openDisks } from "../spec/Disks.ts"
import type { Topology } from "../spec/Topology.ts"
import { type Acceleration, VmBootError, type VmSpec } from "../spec/VmEngine.ts"
import { type ChildProcess, runChild } from "./ChildProcess.ts"
import type { SharedRam } from "./QemuFreeze.ts"
import { backendOf, qemuTopology } from "./QemuTopology.ts"

const MIB = 2 ** 20
/** One mapping of guest memory: what one ArrayBuffer of Node 20 holds with ease. */
const WINDOW = 2 ** 30
/**
 * All CPUs of an emulated guest take turns on one thread of QEMU. With a thread each, one guest in a hundred panicked in
 * its boot: a CPU ran the `int3` of a code patch that another had finished already (seen with QEMU 7.2 and Linux 6.12:
 * "Oops: int3" in a function just patched). Booting takes the same time either way.
 */
const EMULATION = "tcg,thread=single"
/** QEMU's own seccomp filter: it starts no program, changes no identity and no priority. */
const SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

/**
 * QEMU's descriptors. Everything that we and QEMU share is one: no path, no port, nothing left behind. `ram` is that of
 * node 0; the other nodes' follow, then the disks.
 */
export const fd = { stderr: 2, monitor: 3, console: 4, report: 5, initramfs: 6, ram: 7 } as const

/** A QEMU process and the guest memory that we share with it. */
export interface QemuProcess {
  readonly child: ChildProcess
  readonly ram: ReadonlyArray<SharedRam>
}

/** Start QEMU until the scope closes; its CPUs run. */
export const startQemu = (
  spec: VmSpec,
  topology: Topology,
  acceleration: Acceleration,
  cmdline: string
): Effect.Effect<QemuProcess, VmBootError | HostLacks, Native | Scope.Scope> =>
  Effect.gen(function*() {
    const qemu = yield* requireProgram("qemu-system-x86_64", "it runs the guest", "qemu-system-x86")
    const vmScope = yield* Effect.scope
    // the other descriptors close once QEMU has inherited them; memory and process live as long as the VM
    return yield* Effect.scoped(Effect.gen(function*() {
      const native = yield* Native
      const initramfs = yield* native.memfd("ktstr-initramfs", spec.initramfs.length)
      yield* Effect.try({
        try: () => writeFileSync(initramfs, spec.initramfs),
        catch: (error) => outOfMemory(spec, `its initramfs: ${String(error)}`)
      })
      const shared = yield* Effect.forEach(topology.nodes, ({ mib }, node) => shareRam(node, mib * MIB, vmScope))
      const disks = yield* openDisks(spec)
      const files = [initramfs, ...shared.map(({ file }) => file), ...disks.map((disk) => disk.fd)]
      const descriptors = ["null", "null", "socket", "socket", "socket", "socket", ...files] as const
      const parameters = parametersOf(spec, topology, acceleration, cmdline, disks)
      const child = yield* Scope.extend(runChild(qemu, parameters, descriptors), vmScope)
      return { child, ram: shared.map(({ ram }) => ram) }
    }))
  }).pipe(Effect.catchTag("SyscallError", (error) => cannotStart(spec, error)))

const outOfMemory = (spec: VmSpec, why: string) =>
  new VmBootError({ subject: spec.kernel, why, hint: "is the host out of memory?" })

const cannotStart = (spec: VmSpec, error: SyscallError): VmBootError =>
  error.code === "EMFILE" || error.code === "ENFILE"
    ? new VmBootError({
      subject: spec.kernel,
      why: `${error.syscall}: ${error.code}: too many files are open`,
      hint: "raise the limit (ulimit -n), or close some"
    })
    : outOfMemory(spec, error.message)

/** An anonymous file that is a node's memory, mapped a window at a time: other work gets its turn between them. */
const shareRam = (node: number, size: number, vmScope: Scope.Scope) =>
  Effect.gen(function*() {
    const native = yield* Native
    const file = yield* Scope.extend(native.memfd("ktstr-ram", size), vmScope)
    const windows: Array<ArrayBuffer> = []
    for (let at = 0; at < size; at += WINDOW) {
      const mapping = native.mmap(file, at, Math.min(WINDOW, size - at), "write")
      windows.push(yield* Scope.extend(mapping, vmScope))
      if (windows.length % 64 === 0) yield* Effect.sleep(0)
    }
    const nextWritten = (at: number) => native.nextData(file, at)
    const ram: SharedRam = { name: backendOf(node), size, windows, windowBytes: WINDOW, nextWritten }
    return { file, ram }
  })

const parametersOf = (
  spec: VmSpec,
  topology: Topology,
  acceleration: Acceleration,
  cmdline: string,
  disks: ReadonlyArray<Disk>
): ReadonlyArray<string> => {
  const firstDisk = fd.ram + topology.nodes.length
  return [
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", SANDBOX],
    ["-accel", acceleration.by === "kvm" ? "kvm" : EMULATION],
    qemuTopology(topology, spec.cpuModel ?? "max", acceleration.by, fd.ram),
    ["-kernel", resolve(spec.kernel), "-initrd", `/proc/self/fd/${fd.initramfs}`, "-append", cmdline],
    ["-chardev", `socket,id=monitor,fd=${fd.monitor}`, "-mon", "chardev=monitor,mode=control"],
    ["-chardev", `socket,id=console,fd=${fd.console}`, "-serial", "chardev:console"],
    ["-chardev", `socket,id=report,fd=${fd.report}`, "-serial", "chardev:report"],
    ...disks.map(({ readOnly }, index) => [
      "-drive",
      `if=none,id=disk${index},format=raw,file=/proc/self/fd/${firstDisk + index},readonly=${readOnly ? "on" : "off"}`,
      "-device",
      `virtio-blk-pci,drive=disk${index}`
    ])
  ].flat()
}
