import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { existsSync, writeFileSync } from "node:fs"
import { Socket } from "node:net"
import { resolve } from "node:path"
import { HostLacks, type SyscallError } from "../../core/Errors.ts"
import { Native } from "../../core/Native.ts"
import { requireProgram } from "../../core/process/Programs.ts"
import { backingFile } from "../../memory/GuestMemory.ts"
import { type Disk, openDisks } from "../spec/Disks.ts"
import { openShares } from "../spec/OpenShares.ts"
import { shareTag } from "../spec/Share.ts"
import type { Topology } from "../spec/Topology.ts"
import { type Acceleration, VmBootError, type VmSpec } from "../spec/VmEngine.ts"
import { type ChildProcess, runChild } from "./ChildProcess.ts"
import { type Emulation, emulationParameters, type QemuProgram } from "./Emulation.ts"
import type { SharedRam } from "./QemuFreeze.ts"
import { ARM64_CPU, arm64Machine, backendOf, qemuTopology } from "./QemuTopology.ts"
import { serveShare } from "./ShareServer.ts"

const MIB = 2 ** 20
/** One mapping of guest memory: what one ArrayBuffer of Node 20 holds with ease. */
const WINDOW = 2 ** 30
/** QEMU's own seccomp filter: it starts no program, changes no identity and no priority. */
const SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

/**
 * QEMU's descriptors. Everything that we and QEMU share is one: no path, no port, nothing left behind. `ram` is that of
 * node 0; the other nodes' follow, then the disks, then the connections to the servers of shares.
 *
 * The console's output is a pipe, which holds 64 KiB: a UNIX socket holds 278 writes, and QEMU writes each byte by itself.
 * The kernel waits 10 ms for room (`wait_for_lsr`, drivers/tty/serial/8250/8250_port.c), then overwrites what QEMU still has.
 */
export const fd = { input: 0, console: 1, stderr: 2, monitor: 3, report: 4, debugger: 5, initramfs: 6, ram: 7 } as const

/** The connection that QEMU's gdb server gets once it is wanted. */
export const DEBUGGER = "debugger"

/** Where a process has its descriptors as files. */
const OUR_FILES = "/proc/self/fd"

/** A QEMU process and the guest memory that we share with it. */
export interface QemuProcess {
  readonly child: ChildProcess
  readonly ram: ReadonlyArray<SharedRam>
  /** Waits for the server of a shared folder to fail, and says why. */
  readonly shareFailed: Effect.Effect<string>
}

/** Start QEMU until the scope closes; its CPUs run. */
export const startQemu = (
  spec: VmSpec,
  topology: Topology,
  acceleration: Acceleration,
  cmdline: string,
  options: {
    readonly program?: QemuProgram | undefined
    readonly emulation?: Emulation | undefined
    readonly isArm64?: boolean
  } = {}
): Effect.Effect<QemuProcess, VmBootError | HostLacks, Native | Scope.Scope> =>
  Effect.gen(function*() {
    const isArm64 = options.isArm64 === true
    const [name, from] = isArm64
      ? ["qemu-system-aarch64", "qemu-system-arm"]
      : ["qemu-system-x86_64", "qemu-system-x86"]
    const qemu = (isArm64 ? undefined : options.program) ?? {
      path: yield* requireProgram(name, "it runs the guest", from),
      firmware: []
    }
    if (!existsSync(OUR_FILES)) {
      return yield* new HostLacks({
        what: OUR_FILES,
        why: "not there; QEMU opens the guest's memory through it",
        hint: "mount -t proc proc /proc"
      })
    }
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
      const shares = yield* Effect.forEach(yield* openShares(spec), (share) => serveShare(spec, share, vmScope))
      const files = [
        initramfs,
        ...shared.map(({ file }) => file),
        ...disks.map((disk) => disk.fd),
        ...shares.map((share) => share.connection)
      ]
      const output = yield* outputPipe(vmScope)
      const descriptors = ["socket", output, "socket", "socket", "socket", "socket", ...files] as const
      const accelerator = acceleration.by === "kvm"
        ? ["-accel", "kvm"]
        : emulationParameters(options.emulation ?? "turns", topology.cpus)
      const parameters = [
        ...qemu.firmware.flatMap((directory) => ["-L", directory]),
        ...parametersOf(spec, topology, acceleration, cmdline, disks, isArm64),
        ...accelerator
      ]
      const child = yield* Scope.extend(runChild(qemu.path, parameters, descriptors), vmScope)
      const shareFailed = Effect.raceAll([Effect.never, ...shares.map(({ failed }) => failed)])
      return { child, ram: shared.map(({ ram }) => ram), shareFailed }
    }))
  }).pipe(Effect.catchTag("SyscallError", (error) => cannotStart(spec, error)))

const outOfMemory = (spec: VmSpec, why: string) =>
  new VmBootError({ subject: spec.kernel, why, hint: "is the host out of memory, or its use limited (ulimit -v)?" })

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
    const windows: Array<Uint8Array> = []
    for (let at = 0; at < size; at += WINDOW) {
      const mapping = native.mmap(file, at, Math.min(WINDOW, size - at), "write")
      windows.push(yield* Scope.extend(mapping, vmScope))
      if (windows.length % 64 === 0) yield* Effect.sleep(0)
    }
    const ram: SharedRam = {
      name: backendOf(node),
      size,
      windows,
      windowBytes: WINDOW,
      file: backingFile(native, file)
    }
    return { file, ram }
  })

/** A pipe for QEMU to write: its end closes with the scope, ours with the VM. */
const outputPipe = (vmScope: Scope.Scope) =>
  Effect.flatMap(Native, (native) => {
    const made = Effect.map(
      native.pipe(),
      ({ read, write }) => ({ read: new Socket({ fd: read, writable: false }), write })
    )
    const pipe = Effect.acquireRelease(made, ({ write }) => Effect.sync(() => native.close(write)))
    return Effect.tap(pipe, ({ read }) => Scope.addFinalizer(vmScope, Effect.sync(() => read.destroy())))
  })

const parametersOf = (
  spec: VmSpec,
  topology: Topology,
  acceleration: Acceleration,
  cmdline: string,
  disks: ReadonlyArray<Disk>,
  isArm64: boolean
): ReadonlyArray<string> => {
  const report = isArm64 ? ["-device", "pci-serial,chardev=report"] : ["-serial", "chardev:report"]
  const firstDisk = fd.ram + topology.nodes.length
  return [
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", SANDBOX],
    isArm64
      ? arm64Machine(topology, spec.cpuModel ?? ARM64_CPU, fd.ram)
      : qemuTopology(topology, spec.cpuModel ?? "max", acceleration.by, fd.ram),
    ["-kernel", resolve(spec.kernel), "-initrd", `${OUR_FILES}/${fd.initramfs}`, "-append", cmdline],
    ["-chardev", `socket,id=monitor,fd=${fd.monitor}`, "-mon", "chardev=monitor,mode=control"],
    ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"],
    ["-chardev", `socket,id=report,fd=${fd.report}`, ...report],
    ["-chardev", `socket,id=${DEBUGGER},fd=${fd.debugger}`],
    ...disks.map(({ readOnly }, index) => [
      "-drive",
      `if=none,id=disk${index},format=raw,file=${OUR_FILES}/${firstDisk + index},readonly=${readOnly ? "on" : "off"}`,
      "-device",
      `virtio-blk-pci,drive=disk${index}`
    ]),
    ...(spec.shares ?? []).map((_, index) => [
      "-chardev",
      `socket,id=share${index},fd=${firstDisk + disks.length + index}`,
      "-device",
      `vhost-user-fs-pci,chardev=share${index},tag=${shareTag(index)}`
    ])
  ].flat()
}
