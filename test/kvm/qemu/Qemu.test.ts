import { assert, describe, it, layer } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { build } from "esbuild"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import { makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"
import { probeKvm } from "../../../src/kvm/probe/KvmProbe.ts"
import * as Qemu from "../../../src/kvm/qemu/Qemu.ts"
import { type FrozenVm, type Vm, VmEngine } from "../../../src/kvm/spec/VmEngine.ts"
import { kernelImage } from "../../support/kernels.ts"
import { engine, held, isAlive, links } from "../support.ts"

/** A guest that runs `script`, of the Debian kernel `series`. */
const boot = (script: string, more: { series?: "6.1" | "6.12"; [setting: string]: unknown } = {}) =>
  Effect.gen(function*() {
    const { series = "6.12", ...settings } = more
    const kernel = yield* kernelImage(series)
    const initramfs = yield* makeInitramfs({ includes: ["/usr/sbin/bpftool"], script })
    return yield* (yield* VmEngine).boot({ kernel, initramfs, memoryMib: 192, ...settings })
  })

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-qemu-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

/** A hash of all guest memory. */
const digest = ({ memory }: FrozenVm): string => {
  const hash = createHash("sha1")
  for (const { bytes } of memory.regions) hash.update(bytes)
  return hash.digest("hex")
}

/** A guest that has run its script and counts on, ten times a second. */
class Counting extends Context.Tag("test/Counting")<Counting, Vm>() {
  static readonly script = `
    echo "arguments: $# shell: $0"; id -u; bpftool version | head -1; command -v bpftool
    for at in /proc /sys /dev /tmp /sys/fs/cgroup /sys/fs/bpf; do grep "$at " /proc/mounts | cut -d' ' -f1-3; done
    ip addr show lo | grep -o 'inet 127.0.0.1'; nproc; echo 'ktstr exit 99'
    (sleep 0.3 &)
    (i=0; while :; do
      i=$((i+1)); echo "tick $i"; usleep 100000
      [ $i = 5 ] && echo "zombies $(ps -o stat | grep -c Z) of $(ps -o comm | grep -c '^init$')"
    done) &
    exit 42`
  static readonly layer = Layer.scoped(Counting, boot(Counting.script, { cpus: 2 })).pipe(Layer.provide(engine))
}
const ticks = (vm: Vm) => Effect.map(vm.consoleTail, (lines) => lines.filter((line) => line.startsWith("tick ")).length)

layer(Counting.layer, { excludeTestServices: true, timeout: "60 seconds" })("a booted guest", (it) => {
  it.effect("reports its script's exit status, by the report channel alone", () =>
    Effect.gen(function*() {
      const vm = yield* Counting
      assert.strictEqual(yield* vm.awaitReady, 42)
      assert.strictEqual(yield* vm.awaitReady, 42)
    }))

  it.effect("runs the script as root, with the includes on the path and the file systems mounted", () =>
    Effect.gen(function*() {
      const vm = yield* Counting
      yield* vm.awaitReady
      const lines = yield* vm.console.pipe(Stream.takeUntil((line) => line.startsWith("ktstr exit")), Stream.runCollect)
      const said = Chunk.toReadonlyArray(lines).filter((line) => !line.startsWith("["))
      const [shell, user, version, where, ...rest] = said.slice(-13)
      assert.strictEqual(shell, "arguments: 0 shell: /ktstr/script")
      assert.strictEqual(user, "0")
      assert.match(version, /^bpftool v/)
      assert.strictEqual(where, "/include-files/bpftool")
      assert.deepStrictEqual(rest, [
        "proc /proc proc",
        "sysfs /sys sysfs",
        "devtmpfs /dev devtmpfs",
        "tmpfs /tmp tmpfs",
        "cgroup2 /sys/fs/cgroup cgroup2",
        "bpf /sys/fs/bpf bpf",
        "inet 127.0.0.1",
        "2",
        "ktstr exit 99"
      ])
    }))

  it.effect("reaps what the script left behind", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* (yield* Counting).awaitLine(/^zombies/), "zombies 0 of 2")
    }))

  it.effect("is the QEMU engine's, and gives its console as bytes too", () =>
    Effect.gen(function*() {
      const vm = yield* Counting
      assert.strictEqual(vm.engine, "qemu")
      // a filter of system calls more than what started it
      const filters = [process.pid, vm.pid].map((pid) =>
        Number(/^Seccomp_filters:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1])
      )
      assert.isAbove(filters[1], filters[0])
      yield* vm.awaitLine(/^ktstr exit 99$/)
      const wanted = new TextEncoder().encode((yield* vm.consoleTail)[0])
      const [first] = Chunk.toReadonlyArray(yield* Stream.runCollect(Stream.take(vm.consoleBytes, 1)))
      assert.deepStrictEqual(first.slice(0, wanted.length), wanted)
    }))

  it.effect("stands still while frozen, whoever froze it, and goes on when the last has let go", () =>
    Effect.gen(function*() {
      const vm = yield* Counting
      yield* vm.awaitLine(/^tick 3$/)
      const outer = yield* Scope.make()
      const frozen = yield* Scope.extend(vm.freeze, outer)
      assert.strictEqual(frozen.memory.size, 192 * 2 ** 20)
      assert.approximately(frozen.takenAt, Date.now(), 5000)
      const first = digest(frozen)
      yield* Effect.scoped(vm.freeze)
      yield* Effect.sleep("50 millis") // what was on its way before the freeze
      const before = yield* ticks(vm)
      yield* Effect.sleep("400 millis")
      assert.strictEqual(digest(frozen), first)
      assert.strictEqual(yield* ticks(vm), before)
      yield* Scope.close(outer, Exit.void)
      yield* vm.awaitLine(new RegExp(`^tick ${before + 3}$`))
      assert.notStrictEqual(yield* Effect.scoped(Effect.map(vm.freeze, digest)), first)
    }))

  it.effect("moves on after a freeze whose holder failed, was interrupted or had a bug", () =>
    Effect.gen(function*() {
      const vm = yield* Counting
      const failures = [Effect.fail("failed"), Effect.interrupt, Effect.die("a bug")]
      for (const failure of failures) {
        const exit = yield* Effect.exit(Effect.scoped(Effect.zipRight(vm.freeze, failure)))
        assert.isTrue(Exit.isFailure(exit))
        const before = yield* ticks(vm)
        yield* vm.awaitLine(new RegExp(`^tick ${before + 3}$`))
      }
      const many = yield* Effect.forEach(Array.from({ length: 20 }), (_, index) =>
        Effect.scoped(Effect.zipRight(vm.freeze, Effect.sleep(index % 5))).pipe(
          Effect.fork,
          Effect.tap((fiber) =>
            index % 2 === 0 ? Effect.void : Fiber.interruptFork(fiber)
          )
        ))
      yield* Effect.forEach(many, Fiber.await)
      const before = yield* ticks(vm)
      yield* vm.awaitLine(new RegExp(`^tick ${before + 3}$`))
    }))

  it.effect("is written to through its memory", () =>
    Effect.gen(function*() {
      const vm = yield* Counting
      yield* Effect.scoped(Effect.gen(function*() {
        const { memory } = yield* vm.freeze
        const before = memory.u32(0x9000)
        assert.isTrue(memory.write(0x9000, new Uint8Array([1, 2, 3, 4])))
        assert.strictEqual(memory.u32(0x9000), 0x04030201)
        assert.isTrue(memory.write(0x9000, new Uint8Array(new Uint32Array([before]).buffer)))
      }))
    }))

  it.effect("says that it did not stop when its monitor does not answer, and goes on later", () =>
    Effect.gen(function*() {
      const vm = yield* Counting
      const error = yield* Effect.acquireUseRelease(
        Effect.sync(() => process.kill(vm.pid, "SIGSTOP")),
        () => Effect.flip(Effect.scoped(vm.freeze)),
        () => Effect.sync(() => process.kill(vm.pid, "SIGCONT"))
      )
      assert.strictEqual(
        error.message,
        "the guest did not stop within 2 s: QEMU's monitor has not confirmed it; is the host overloaded? try again"
      )
      const before = yield* ticks(vm)
      yield* vm.awaitLine(new RegExp(`^tick ${before + 3}$`))
    }))

  it.effect("has nothing of its own on any file system", () =>
    Effect.gen(function*() {
      const vm = yield* Counting
      const files = links(vm.pid).filter((target) => target.startsWith("/") && !/^\/memfd:|^\/dev\/null$/.test(target))
      assert.deepStrictEqual(files, [])
    }))
})

layer(engine, { excludeTestServices: true })("Qemu", (it) => {
  it.scoped(
    "boots Debian's 6.1 with 4-level paging, 5 GiB and 4 CPUs, and finds all of its memory",
    () =>
      Effect.gen(function*() {
        const settings = { series: "6.1", cpuModel: "max,-la57", memoryMib: 5120, cpus: 4 } as const
        const vm = yield* boot("grep -c la57 /proc/cpuinfo; nproc; grep MemTotal /proc/meminfo", settings)
        assert.strictEqual(yield* vm.awaitReady, 0)
        const { memory } = yield* vm.freeze
        assert.strictEqual(memory.size, 5 * 2 ** 30)
        assert.strictEqual(memory.end, 6 * 2 ** 30)
        assert.strictEqual(memory.u8(3 * 2 ** 30), -1)
        assert.isAtLeast(memory.u8(6 * 2 ** 30 - 1), 0)
        const [la57, cpus] = (yield* vm.consoleTail).slice(-4)
        assert.deepStrictEqual([la57, cpus], ["0", "4"])
      }),
    60_000
  )

  it.scoped("loses nothing of the kernel's log while we are busy with something else", () =>
    Effect.gen(function*() {
      const consoleFile = join(yield* temporary, "console.log")
      const vm = yield* boot("true", { consoleFile, cmdline: "loglevel=8" })
      const written = () => Number(/^wchar: (\d+)/m.exec(readFileSync(`/proc/${vm.pid}/io`, "latin1"))?.[1])
      const before = written()
      const turn = new Int32Array(new SharedArrayBuffer(4))
      for (let turns = 0; turns < 2400 && written() < before + 20_000; turns++) Atomics.wait(turn, 0, 0, 50)
      assert.strictEqual(yield* vm.awaitReady, 0)
      const lines = readFileSync(consoleFile, "latin1").split(/\r?\n/)
      const init = lines.findIndex((line) => line.endsWith("Run /init as init process"))
      const broken = lines.slice(0, init).filter((line) => !/^\[ *\d+\.\d{6}\] /.test(line))
      assert.deepStrictEqual([init > 100, broken], [true, []])
    }))

  it.scoped("keeps the console in a file, tells a panic from other ends, and refuses to freeze what has ended", () =>
    Effect.gen(function*() {
      const consoleFile = join(yield* temporary, "console.log")
      const vm = yield* boot("echo before; echo c > /proc/sysrq-trigger", { consoleFile })
      const error = yield* Effect.flip(vm.awaitReady)
      assert.match(
        error.message,
        /^the guest panicked: \[ *[\d.]+\] Kernel panic - not syncing: sysrq triggered crash; keep its console/
      )
      assert.deepStrictEqual(yield* vm.awaitExit, { status: 0, signal: undefined })
      assert.strictEqual((yield* Effect.flip(vm.freeze))._tag, "GuestPanicked")
      assert.strictEqual((yield* Effect.flip(vm.awaitLine(/never said/)))._tag, "GuestPanicked")
      const kept = readFileSync(consoleFile, "utf8")
      assert.match(kept, /^before\r?$/m)
      assert.match(kept, /Kernel panic - not syncing: sysrq/)
      assert.deepStrictEqual(kept.split(/\r*\n/).slice(0, -1), yield* vm.consoleTail)
    }))

  it.scoped("tells a guest that switched itself off", () =>
    Effect.gen(function*() {
      const vm = yield* boot("echo bye; sleep 0.2; poweroff -f")
      const error = yield* Effect.flip(vm.awaitReady)
      assert.match(
        error.message,
        /^the guest has ended \(status 0\); its console last said ".*reboot: Power down"$/
      )
    }))

  it.scoped("gives up on a guest that does not report in time, with its last line", () =>
    Effect.gen(function*() {
      const vm = yield* boot("sleep 1000", { timeout: "2 seconds" })
      const error = yield* Effect.flip(vm.awaitReady)
      assert.match(
        error.message,
        /^the guest did not report ready within 2 s \(silence is allowed for 2 s\); its console .*; raise timeout, or /
      )
    }))

  it.scoped("says in a line why a VM cannot be", () =>
    Effect.gen(function*() {
      const why = (settings: Record<string, unknown>) =>
        Effect.map(Effect.flip(Effect.scoped(boot("true", settings))), (error) => error.message)
      assert.match(
        yield* why({ cpuModel: "nonsense" }),
        /^cannot boot .*vmlinuz.*: unable to find CPU model 'nonsense'; does QEMU know this setting\?$/
      )
      assert.match(
        yield* why({ kernel: "/nonexistent" }),
        /^cannot boot \/nonexistent: ENOENT: no such file or directory/
      )
      assert.match(
        yield* why({ kernel: "/bin/sh" }),
        /^cannot boot \/bin\/sh: .*; give the path of a kernel image/
      )
      assert.match(yield* why({ kernel: "/tmp" }), /^cannot boot \/tmp: EISDIR/)
      assert.match(
        yield* why({ memoryMib: 32 }),
        /: 32 MiB of memory cannot hold .*; set memoryMib to \d+ or more$/
      )
      assert.match(
        yield* why({ cmdline: "x".repeat(2100) }),
        /: command line too long: 2\d+ bytes, limit 2047; shorten cmdline$/
      )
      assert.match(
        yield* why({ cmdline: "a\0b" }),
        /its command line has a line break or a NUL; take it out of cmdline$/
      )
      assert.match(
        yield* why({ cpus: 0 }),
        /: a VM cannot have 0 CPUs and 192 MiB of memory; give whole numbers, 1 to 254 CPUs$/
      )
      assert.match(
        yield* why({ consoleFile: "/nonexistent/x" }),
        /ENOENT.*; set consoleFile to a writable path$/
      )
    }))

  it.effect("gives memory that reads nothing once the VM's scope has closed", () =>
    Effect.gen(function*() {
      const [frozen, running] = yield* Effect.scoped(Effect.gen(function*() {
        const vm = yield* boot("true")
        yield* vm.awaitReady
        const { memory } = yield* vm.freeze
        assert.isAtLeast(memory.u8(0x9000), 0)
        return [memory, yield* vm.memory] as const
      }))
      assert.deepStrictEqual([frozen.released, running.released, frozen.u8(0x9000)], [true, true, -1])
    }))

  it.effect("holds nothing after its scope, after an interruption at any moment of the boot either", () =>
    Effect.gen(function*() {
      const before = yield* held
      yield* Effect.scoped(Effect.flatMap(boot("true"), (vm) => vm.awaitLine(/Linux version/)))
      assert.deepStrictEqual(yield* held, before)
      for (const millis of [0, 1, 5, 10, 20, 40, 80, 160, 320]) {
        const fiber = yield* Effect.fork(Effect.scoped(Effect.flatMap(boot("true"), (vm) => vm.awaitReady)))
        yield* Effect.sleep(millis)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* held, before)
      }
    }))
})

layer(engine, { excludeTestServices: true })("a console", (it) => {
  it.scoped("is typed at, and shows a prompt before its line is finished", () =>
    Effect.gen(function*() {
      const vm = yield* boot("printf 'name? '; read name < /dev/ttyS0; echo \"hello $name\"", { cmdline: "loglevel=1" })
      yield* vm.consoleBytes.pipe(
        Stream.decodeText(),
        Stream.scan("", (text, more) => text + more),
        Stream.takeUntil((text) => text.endsWith("name? ")),
        Stream.runDrain
      )
      yield* vm.type(new TextEncoder().encode("nobody\n"))
      yield* vm.awaitLine(/^hello nobody$/)
      assert.strictEqual(yield* vm.awaitReady, 0)
    }))

  it.scoped("waits for a reader that is slow, and loses nothing", () =>
    Effect.gen(function*() {
      const LINES = 180_000 // 1.2 MB, more than is kept
      const vm = yield* boot(`seq 1 ${LINES}`, { cmdline: "loglevel=1", timeout: "100 seconds" })
      const gate = yield* Effect.makeLatch()
      const reading = yield* Effect.fork(
        vm.consoleBytes.pipe(
          Stream.tap(() => gate.await),
          Stream.decodeText(),
          Stream.splitLines,
          Stream.takeUntil((line) => line === `${LINES}`),
          Stream.runCollect
        )
      )
      const last = Effect.map(vm.consoleTail, (lines) => lines.at(-1))
      // it has come to a stop somewhere
      let before: string | undefined
      do {
        before = yield* last
        yield* Effect.sleep("2 seconds")
      } while (before === undefined || before !== (yield* last))
      assert.isBelow(Number(before), LINES)
      yield* gate.open
      const read = Chunk.toReadonlyArray(yield* Fiber.join(reading))
      assert.deepStrictEqual(read, Array.from({ length: LINES }, (_, index) => `${index + 1}`))
    }), 100_000)

  it.scoped("of a VM that has ended is not typed at", () =>
    Effect.gen(function*() {
      const vm = yield* boot("poweroff -f")
      assert.strictEqual((yield* Effect.flip(vm.ended))._tag, "GuestExited")
      assert.strictEqual((yield* Effect.flip(vm.type(Uint8Array.of(10))))._tag, "GuestExited")
      assert.strictEqual((yield* Effect.flip(vm.resize({ rows: 2, columns: 2 })))._tag, "GuestExited")
    }))
})

describe("acceleration", () => {
  it.scopedLive("is what the probe found, with its reason", () =>
    Effect.gen(function*() {
      const verdict = yield* probeKvm
      const vm = yield* boot("true")
      assert.strictEqual(vm.acceleration.by, verdict.kind === "hardware" ? "kvm" : "emulation")
      assert.strictEqual(vm.acceleration.why.split(",")[0], verdict.why.split(",")[0])
    }).pipe(Effect.provide(Layer.provideMerge(Qemu.layer, NativeKoffi.layer))))
})

describe("a VM's process", () => {
  it.scopedLive("dies with us even when we are killed in the middle of a boot", () =>
    Effect.gen(function*() {
      const kernel = yield* kernelImage("6.12")
      const bundled = yield* Effect.promise(() =>
        build({
          stdin: { contents: bootAndTell(kernel), resolveDir: process.cwd(), loader: "ts" },
          bundle: true,
          write: false,
          platform: "node",
          format: "esm",
          packages: "external"
        })
      )
      const node = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(process.execPath, ["--input-type=module", "-"], { stdio: ["pipe", "pipe", "inherit"] })
        ),
        (node) => Effect.sync(() => node.kill("SIGKILL"))
      )
      node.stdin.end(bundled.outputFiles[0].contents)
      const pid = yield* Effect.promise(() =>
        new Promise<number>((resolve) => node.stdout.once("data", (text) => resolve(Number(text))))
      )
      assert.isTrue(isAlive(pid))
      node.kill("SIGKILL")
      for (let tries = 100; isAlive(pid) && tries > 0; tries--) yield* Effect.sleep("20 millis")
      assert.isFalse(isAlive(pid))
    }))
})

const bootAndTell = (kernel: string) => `
  import * as Effect from "effect/Effect"
  import { VmEngine } from "./src/kvm/spec/VmEngine.ts"
  import { engine } from "./test/kvm/support.ts"
  Effect.runPromise(Effect.scoped(Effect.gen(function*() {
    const vm = yield* (yield* VmEngine).boot({ kernel: ${JSON.stringify(kernel)}, initramfs: new Uint8Array(0) })
    process.stdout.write(String(vm.pid))
    yield* vm.awaitReady
  })).pipe(Effect.provide(engine)))`
