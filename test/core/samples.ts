import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"

/** Run a program to its end; its stdout, or an error that says how it failed. */
export const run = (command: string, args: ReadonlyArray<string>, input?: Uint8Array): Buffer => {
  const done = spawnSync(command, args, { input, maxBuffer: 2 ** 30 })
  if (done.error !== undefined) throw done.error
  if (done.status !== 0) throw new Error(`${command} ${args.join(" ")}: ${done.stderr.toString()}`)
  return done.stdout
}

/** Whether a program is on the PATH. */
export const has = (command: string): boolean => spawnSync("which", [command]).status === 0

/** A minimal bzImage around a payload: the header fields that Documentation/arch/x86/boot.rst asks a loader to read. */
export const bzImage = (payload: Uint8Array, release = "6.99.0-test"): Uint8Array => {
  const setupSectors = 3
  const start = (setupSectors + 1) * 512
  const image = new Uint8Array(start + payload.length)
  const view = new DataView(image.buffer)
  view.setUint8(0x1f1, setupSectors)
  view.setUint32(0x202, 0x53726448, true)
  view.setUint16(0x206, 0x20f, true)
  view.setUint16(0x20e, 0x400, true)
  image.set(Buffer.from(`${release} (builder@host) #1 SMP\0`), 0x400 + 512)
  view.setUint32(0x248, 0, true)
  view.setUint32(0x24c, payload.length, true)
  image.set(payload, start)
  return image
}

/** A compressed payload as the kernel's build makes it: the uncompressed size follows. */
export const withSize = (data: Uint8Array, size: number): Uint8Array => {
  const payload = new Uint8Array(data.length + 4)
  payload.set(data)
  new DataView(payload.buffer).setUint32(data.length, size, true)
  return payload
}

/** bzImages of stock kernels on this machine: installed ones and those in the cache. */
export const stockKernels = (): ReadonlyArray<string> => {
  const cache = join(homedir(), ".cache/ktstr/kernels")
  const list = (directory: string) => {
    try {
      return readdirSync(directory)
    } catch {
      return []
    }
  }
  return [
    ...list("/boot").filter((name) => name.startsWith("vmlinuz-")).map((name) => join("/boot", name)),
    ...list(cache).filter((name) => name.startsWith("debian-")).map((name) => join(cache, name, "vmlinuz"))
  ].filter((path) => {
    try {
      return readFileSync(path).readUInt32LE(0x202) === 0x53726448
    } catch {
      return false
    }
  })
}
