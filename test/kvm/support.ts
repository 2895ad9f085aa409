import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import * as Qemu from "../../src/kvm/qemu/Qemu.ts"

/** QEMU by emulation on every host, so that what a test sees does not depend on it. */
export const engine = Qemu.layerWith({ accelerate: "emulation", freezeTimeout: "2 seconds" }).pipe(
  Layer.provide(NativeKoffi.layer)
)

/** What this process holds: its descriptors' targets, its mappings of guest memory, its child processes. */
export const held = Effect.sync(() => ({
  descriptors: links(process.pid).filter((target) => /memfd|socket|kvm/.test(target)).length,
  mappings: readFileSync("/proc/self/maps", "latin1").split("\n").filter((line) => line.includes("/memfd:")).length,
  children: childrenOf(process.pid).filter((pid) => /qemu|virtiofsd/.test(commandOf(pid)))
}))

/** What a process's descriptors lead to. */
export const links = (pid: number): ReadonlyArray<string> =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => attempt(() => [readlinkSync(`/proc/${pid}/fd/${fd}`)], []))

/** Whether a process runs; one that has ended but was not waited for does not. */
export const isAlive = (pid: number): boolean => !["", "Z"].includes(statOf(pid)[0] ?? "")

const childrenOf = (parent: number): ReadonlyArray<number> =>
  readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number)
    .filter((pid) => statOf(pid)[1] === String(parent))

const commandOf = (pid: number): string => attempt(() => readFileSync(`/proc/${pid}/cmdline`, "latin1"), "")

/** The state and the parent, behind the command's name, which may hold anything. */
const statOf = (pid: number): ReadonlyArray<string> =>
  attempt(() => readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\) /s, "").split(" "), [])

const attempt = <A>(run: () => A, otherwise: A): A => {
  try {
    return run()
  } catch {
    return otherwise
  }
}
