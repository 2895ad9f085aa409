import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { execFile, spawn } from "node:child_process"
import { copyFileSync, existsSync, readdirSync, rmdirSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { Attr, ATTR_BYTES, Command } from "../../../src/bpf/live/calls/BpfAbi.ts"
import { BpfCalls } from "../../../src/bpf/live/calls/BpfCalls.ts"
import { errnoName } from "../../../src/core/Errors.ts"
import { Native } from "../../../src/core/Native.ts"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import { LiveHost } from "../../../src/host/LiveHost.ts"
import { compileBpf, compileKindsFill } from "../../support/guest.ts"

/** bpf(2), and the running kernel's types. */
export const HostLive = LiveHost.layer.pipe(
  Layer.provideMerge(NativeKoffi.layer),
  Layer.provideMerge(NodeContext.layer)
)

/** Why maps cannot be made on this machine; undefined: they can. */
export const refused: string | undefined = await Effect.gen(function*() {
  const native = yield* Native
  const fd = command(native, Command.MAP_CREATE, (attr) => {
    attr.setUint32(Attr.create.map_type, 2, true)
    for (const at of [Attr.create.key_size, Attr.create.value_size]) attr.setUint32(at, 4, true)
    attr.setUint32(Attr.create.max_entries, 1, true)
  })
  if (fd >= 0) native.close(fd)
  return fd >= 0 ? undefined : `bpf(2) is forbidden here: ${errnoName(-fd)}`
}).pipe(Effect.provide(NativeKoffi.layer), Effect.runPromise)
if (refused !== undefined) process.stderr.write(`skipped: ${refused}\n`)

function command(native: typeof Native.Service, number: number, fill: (attr: DataView) => void): number {
  const bytes = new Uint8Array(ATTR_BYTES)
  fill(new DataView(bytes.buffer))
  return native.bpf(number, bytes)
}

export interface MapSpec {
  readonly type: number
  readonly name: string
  readonly keySize?: number
  readonly valueSize?: number
  readonly maxEntries?: number
  readonly flags?: number
  readonly extra?: bigint
  readonly inner?: number
  /** A BTF object, and the types of key and value in it. */
  readonly types?: { readonly fd: number; readonly key: number; readonly value: number }
}

/** A map of ours: it goes with the scope. */
export const makeMap = (spec: MapSpec): Effect.Effect<number, never, Native | Scope.Scope> =>
  scopedFd(`make ${spec.name}`, (native) =>
    command(native, Command.MAP_CREATE, (attr) => {
      const u32 = (at: number, value: number) => attr.setUint32(at, value, true)
      u32(Attr.create.map_type, spec.type)
      u32(Attr.create.key_size, spec.keySize ?? 4)
      u32(Attr.create.value_size, spec.valueSize ?? 4)
      u32(Attr.create.max_entries, spec.maxEntries ?? 1)
      u32(Attr.create.map_flags, spec.flags ?? 0)
      u32(Attr.create.inner_map_fd, spec.inner ?? 0)
      u32(Attr.create.btf_fd, spec.types?.fd ?? 0)
      u32(Attr.create.btf_key_type_id, spec.types?.key ?? 0)
      u32(Attr.create.btf_value_type_id, spec.types?.value ?? 0)
      attr.setBigUint64(Attr.create.map_extra, spec.extra ?? 0n, true)
      for (const [index, char] of [...spec.name].entries()) {
        attr.setUint8(Attr.create.map_name + index, char.charCodeAt(0))
      }
    }))

/** Give the kernel a BTF blob. */
export const loadBtf = (blob: Uint8Array): Effect.Effect<number, never, Native | Scope.Scope> =>
  scopedFd("load BTF", (native) => {
    const data = new BpfCalls(native).buffer(blob.length)
    data.bytes.set(blob)
    return command(native, Command.BTF_LOAD, (attr) => {
      attr.setBigUint64(Attr.btf.btf, data.address, true)
      attr.setUint32(Attr.btf.btf_size, blob.length, true)
    })
  })

/** Nobody may write the map from now on. */
export const freeze = (map: number): Effect.Effect<number, never, Native> =>
  Effect.map(
    Native,
    (native) => command(native, Command.MAP_FREEZE, (attr) => attr.setUint32(Attr.element.map_fd, map, true))
  )

const scopedFd = (what: string, open: (native: typeof Native.Service) => number) =>
  Effect.gen(function*() {
    const native = yield* Native
    return yield* Effect.acquireRelease(
      Effect.sync(() => {
        const fd = open(native)
        if (fd < 0) throw new Error(`${what}: ${errnoName(-fd)}`)
        return fd
      }),
      (fd) => Effect.sync(() => native.close(fd))
    )
  })

/** The kernel's id of a map that we hold. */
export const idOf = (calls: BpfCalls, map: number): number => {
  const info = calls.buffer(96)
  const result = calls.info(map, info)
  if (result < 0) throw new Error(`info of a map: ${errnoName(-result)}`)
  return info.view.getUint32(4, true)
}

/** Put an entry into a map; bytes, or a number as 4 or 8 little-endian ones. */
export const put = (calls: BpfCalls, map: number, key: Uint8Array | null, value: Uint8Array): void => {
  const keyBuffer = key === null ? null : calls.buffer(key.length)
  if (key !== null) keyBuffer?.bytes.set(key)
  const valueBuffer = calls.buffer(value.length)
  valueBuffer.bytes.set(value)
  const result = calls.update(map, keyBuffer, valueBuffer, "any")
  if (result < 0) throw new Error(`update: ${errnoName(-result)}`)
}

export const u32 = (...numbers: ReadonlyArray<number>): Uint8Array => new Uint8Array(Uint32Array.from(numbers).buffer)
export const u64 = (...numbers: ReadonlyArray<bigint>): Uint8Array =>
  new Uint8Array(BigUint64Array.from(numbers).buffer)

export const bpftool = async (...words: ReadonlyArray<string>): Promise<string> => {
  const { stdout } = await promisify(execFile)("bpftool", [...words, "-j"], { maxBuffer: 1 << 28 })
  return stdout
}

export const openDescriptors = (): number => readdirSync("/proc/self/fd").length

/**
 * Runs `script` on this machine with a bpffs and a /tmp of its own, and `directory` on /mnt. It stays until the scope
 * closes, and with it what it pinned. Gives its pid, once the script has ended well.
 */
export const hostScript = (directory: string, script: string) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      new Promise<number>((resolve, reject) => {
        // The mount of `directory` comes first: this checkout may be in /tmp.
        const whole = `
          mount --bind ${directory} /mnt
          mount -t bpf none /sys/fs/bpf
          mount -t tmpfs tmpfs /tmp
          ${script}
          echo filled
          exec sleep infinity`
        // A session of its own: all that it starts is ended together.
        const child = spawn("unshare", ["--mount", "--propagation", "private", "sh", "-ec", whole], {
          detached: true,
          stdio: ["ignore", "pipe", "pipe"]
        })
        let said = ""
        child.stderr.on("data", (bytes: Buffer) => said += bytes.toString())
        child.on("error", reject)
        child.on("exit", (code) => reject(new Error(`filling ended with ${code}: ${said}`)))
        child.stdout.once("data", () => resolve(child.pid!))
      })
    ),
    (pid) => Effect.sync(() => process.kill(-pid, "SIGKILL"))
  )

/**
 * Fills maps of all types on this machine, as the test guests do: the programs run with a bpffs, a cgroup2 and a /tmp of
 * their own, and everything goes when they are killed. Gives the directory in which `filled.json` is.
 */
export const filledHost = (directory: string) =>
  Effect.gen(function*() {
    yield* compileBpf(directory, "types", "kinds", "congestion")
    yield* compileKindsFill(directory)
    copyFileSync(new URL("../../bpf-src/fill.sh", import.meta.url), join(directory, "fill.sh"))
    yield* Effect.addFinalizer(() => Effect.promise(removeCgroups))
    const pid = yield* hostScript(
      directory,
      `mount -t cgroup2 none /sys/fs/cgroup
      OBJECTS=/mnt sh /mnt/fill.sh >&2
      cp /tmp/capture/filled.json /mnt/`
    )
    yield* Effect.addFinalizer(() =>
      Effect.promise(() => promisify(execFile)("bpftool", ["struct_ops", "unregister", "name", "still"]))
    )
    return pid
  })

/** A cgroup can go when its last program is detached, a moment after the programs are killed. */
const removeCgroups = async (): Promise<void> => {
  for (const name of ["outer/inner", "outer"]) {
    const path = `${CGROUPS}/${name}`
    for (let tries = 0; existsSync(path) && tries < 100; tries++) {
      try {
        rmdirSync(path)
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
  }
}

const CGROUPS = "/sys/fs/cgroup/unified"
