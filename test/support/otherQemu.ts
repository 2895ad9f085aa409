import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs"
import { createConnection } from "node:net"
import { join } from "node:path"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import { makeInitramfs } from "../../src/kvm/guest/Initramfs.ts"
import { attachQemu } from "../../src/kvm/qemu/QemuAttach.ts"
import { connect } from "../../src/kvm/qemu/Qmp.ts"
import { until } from "./cli.ts"
import { scratch } from "./guest.ts"

/** What bpftool has of a map, and a counter that goes on, with the guest's clock. */
const SCRIPT = `
  map=/sys/fs/bpf/words
  bpftool map create $map type hash key 4 value 8 entries 64 name of_words
  for key in 1 2 3 4 5; do bpftool map update pinned $map key $key 0 0 0 value $key 1 2 3 4 5 6 7; done
  echo "PRINTED $(bpftool -j map dump pinned $map)"
  (count=0; while :; do read up rest </proc/uptime; echo "COUNT $((count += 1)) $up"; sleep 0.1; done) &`

const MIB = 128

/** What `-m` is given beside, for each kind of memory, and the first monitor. */
const BACKENDS = {
  /** As libvirt 9.0 has it: the monitor is a socket that was listened at before, the guest is started by a command. */
  memfd: () => [
    ["-name", "guest=words,debug-threads=on", "-S", "-machine", "pc,usb=off,dump-guest-core=off,memory-backend=pc.ram"],
    ["-object", JSON.stringify({ "qom-type": "memory-backend-memfd", id: "pc.ram", share: true, size: MIB * 2 ** 20 })],
    ["-chardev", "socket,id=charmonitor,fd=30,server=on,wait=off"],
    ["-mon", "chardev=charmonitor,id=monitor,mode=control", "-no-shutdown", "-msg", "timestamp=on"],
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
  ],
  file: (directory: string) => [
    ["-machine", "pc,memory-backend=ram0"],
    ["-object", `memory-backend-file,id=ram0,size=${MIB}M,share=on,mem-path=${join(directory, "ram")}`],
    ["-qmp", `unix:${join(directory, "qmp")},server=on,wait=off`]
  ],
  plain: (directory: string) => [["-qmp", `unix:${join(directory, "qmp")},server=on,wait=off`]]
}

/** Becomes a program that has a socket at which it listens, by path, as descriptor 30. */
const LISTENING = `use Socket; use POSIX (); my $socket;
  socket($socket, PF_UNIX, SOCK_STREAM, 0) && bind($socket, sockaddr_un(shift)) && listen($socket, 1) || die $!;
  POSIX::dup2(fileno($socket), 30); exec @ARGV`

/** A process of a test's, ended with the scope. */
export const started = (program: string, words: ReadonlyArray<string>, descriptors: ReadonlyArray<number> = []) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      new Promise<ChildProcess & { readonly pid: number }>((resolve, reject) => {
        const child = spawn(program, words, { stdio: ["ignore", "ignore", "ignore", ...descriptors] })
        child.on("error", reject)
        child.on("spawn", () => resolve(child as ChildProcess & { readonly pid: number }))
      })
    ),
    killed
  )

export const killed = (child: ChildProcess) =>
  Effect.promise(() =>
    new Promise<void>((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve()
      child.on("exit", () => resolve())
      child.kill("SIGKILL")
    })
  )

/** A new file. */
const opened = (path: string) =>
  Effect.acquireRelease(
    Effect.sync(() => openSync(path, "a")),
    (descriptor) => Effect.sync(() => closeSync(descriptor))
  )

/** A connection to a UNIX socket. */
export const connected = (path: string) =>
  Effect.acquireRelease(Effect.sync(() => createConnection(path)), (socket) => Effect.sync(() => socket.destroy()))

/** A QEMU of another's, with a guest that counts; `status` asks it at a second monitor. */
export const qemuWith = (backend: keyof typeof BACKENDS, { cpus = 1, kernel = "debian:6.12-cloud" } = {}) =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const path = (name: string) => join(directory, name)
    const { image, unpacked } = yield* (yield* KernelResolver).resolve(kernel)
    writeFileSync(path("initrd"), yield* makeInitramfs({ includes: ["/usr/sbin/bpftool"], script: SCRIPT }))
    const words = [
      [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-cpu",
        "max",
        "-m",
        `${MIB}M`,
        "-smp",
        `${cpus}`
      ],
      ["-kernel", unpacked ?? image, "-initrd", path("initrd"), "-append", "console=ttyS0 loglevel=1 nokaslr"],
      [
        "-add-fd",
        "set=0,fd=3",
        "-chardev",
        "file,id=console,path=/dev/fdset/0,append=on",
        "-serial",
        "chardev:console"
      ],
      ["-serial", "null", ...BACKENDS[backend](directory).flat()],
      ["-chardev", `socket,id=judge,path=${path("judge")},server=on,wait=off`, "-mon", "judge,mode=control"]
    ]
    const console = yield* opened(path("console"))
    const { pid } = backend === "memfd"
      ? yield* started("perl", ["-e", LISTENING, path("qmp"), "qemu-system-x86_64", ...words.flat()], [console])
      : yield* started("qemu-system-x86_64", words.flat(), [console])
    const printed = () => readFileSync(path("console"), "latin1")
    const counted = () => {
      const [, count = 0, uptime = 0] = [...printed().matchAll(/^COUNT (\d+) ([\d.]+)\r?$/gm)].at(-1) ?? []
      return { count: Number(count), uptime: Number(uptime) }
    }
    const counts = (beyond: number) =>
      Effect.map(
        Effect.promise(() => until(`a count beyond ${beyond}`, () => counted().count > beyond, 120)),
        counted
      )
    yield* Effect.promise(() => until("a monitor", () => listenedAt(path("judge"))))
    const judge = connect(yield* connected(path("judge")))
    yield* judge.ready
    const status = Effect.map(
      judge.execute("query-status", Schema.Struct({ status: Schema.String })),
      (answer) => answer.status
    )
    if ((yield* status) === "prelaunch") {
      const attached = yield* Effect.scoped(attachQemu(pid))
      assert.deepStrictEqual([attached.pid, attached.paused], [pid, true])
      assert.strictEqual(yield* status, "prelaunch")
      yield* judge.execute("cont", Schema.Unknown)
    }
    yield* counts(0)
    return {
      directory,
      pid,
      monitor: path("qmp"),
      printed,
      /** Waits for the guest to count on from here. */
      runsOn: Effect.suspend(() => counts(counted().count)),
      /** Waits for a count that was begun after this; its time since boot, by the guest's clock, in seconds. */
      uptime: Effect.suspend(() => Effect.map(counts(counted().count + 1), ({ uptime }) => uptime)),
      tell: (command: "stop" | "cont" | "dump-guest-memory", words: Readonly<Record<string, unknown>> = {}) =>
        judge.execute(command, Schema.Unknown, words),
      dumpFormats: Effect.map(
        judge.execute("query-dump-guest-memory-capability", Schema.Struct({ formats: Schema.Array(Schema.String) })),
        ({ formats }) => formats
      ),
      status,
      /** Waits until QEMU says so. */
      becomes: (wanted: string) =>
        Effect.repeat(Effect.delay(status, "20 millis"), { until: (now) => now === wanted }).pipe(
          Effect.timeout("1 minute")
        )
    }
  })

export type Other = Effect.Effect.Success<ReturnType<typeof qemuWith>>

export const listenedAt = (path: string) => readFileSync("/proc/net/unix", "utf8").includes(` ${path}\n`)
