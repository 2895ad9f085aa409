import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { execFileSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { openImage, openQemu, type Snapshot } from "../../src/Ktstr.ts"
import { attachQemu } from "../../src/kvm/qemu/QemuAttach.ts"
import { connect } from "../../src/kvm/qemu/Qmp.ts"
import { complaints, ktstr, processesWith, type RunOptions, until } from "../support/cli.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { connected, killed, listenedAt, type Other, qemuWith, started } from "../support/otherQemu.ts"
import { byKey, comparable } from "./entries.ts"

/** The entries of the guest's map, as we read them and as bpftool printed them in the guest. */
const compareWords = (qemu: Other, by: string | number) =>
  Effect.gen(function*() {
    const snapshot = yield* openQemu(by)
    assert.strictEqual(yield* qemu.status, "paused")
    assert.deepStrictEqual(snapshot.header.source, { kind: "qemu", qemu: String(by), pid: qemu.pid })
    assert.strictEqual(snapshot.header.freeze?.cpus, 1)
    yield* compareWith(qemu, snapshot)
  }).pipe(Effect.scoped)

/** The same of a guest that runs meanwhile. */
const compareRunning = (qemu: Other) =>
  Effect.gen(function*() {
    const snapshot = yield* openQemu(qemu.pid, { racy: true })
    assert.strictEqual(yield* qemu.status, "running")
    assert.deepStrictEqual(snapshot.header.source, { kind: "qemu", qemu: String(qemu.pid), pid: qemu.pid })
    assert.isNull(snapshot.header.freeze)
    yield* qemu.runsOn
    const [words] = yield* snapshot.maps.find("of_words")
    assert.strictEqual((yield* snapshot.maps.reader(words)).consistency, "racing")
    yield* compareWith(qemu, snapshot)
  }).pipe(Effect.scoped)

/** A core of it, written by the command, has them too. */
const compareCore = (qemu: Other) =>
  Effect.gen(function*() {
    const core = join(qemu.directory, "vmcore")
    const ran = yield* ktstr(["vm", "core", "--qemu", qemu.monitor, "--out", core])
    assert.strictEqual(ran.code, 0, ran.stderr)
    assert.match(ran.stderr, /: 128 MiB of memory, registers of 1 CPU, VMCOREINFO of 6\.12\./)
    yield* compareWith(qemu, yield* openImage(core))
  }).pipe(Effect.scoped)

const compareWith = (qemu: Other, { maps }: Snapshot) =>
  Effect.gen(function*() {
    const info = (yield* maps.list).items.find(({ name }) => name === "of_words")
    assert.isDefined(info)
    const ours = byKey(Array.from(yield* Stream.runCollect(maps.entries(info)), comparable))
    const printed = /^PRINTED (.*?)\r?$/m.exec(qemu.printed())?.[1]
    const hex = (bytes: ReadonlyArray<string>) => bytes.map((byte) => byte.slice(2)).join("")
    const theirs = (JSON.parse(printed ?? "") as Array<{ key: Array<string>; value: Array<string> }>)
      .map(({ key, value }) => ({ keyHex: hex(key), valuesHex: [hex(value)] }))
    assert.lengthOf(theirs, 5)
    assert.deepStrictEqual(ours.map(({ keyHex, valuesHex }) => ({ keyHex, valuesHex })), [...byKey(theirs)])
  })

/** It is read by its socket and by its number, and runs on after each; then it is read while it runs. */
const isRead = (qemu: Other) =>
  Effect.forEach([qemu.monitor, qemu.pid], (by) =>
    Effect.gen(function*() {
      yield* compareWords(qemu, by)
      assert.strictEqual(yield* qemu.status, "running")
      yield* qemu.runsOn
    })).pipe(Effect.zipRight(compareRunning(qemu)))

/**
 * The guest's clock stands while it is stopped: it goes on by no more than the host's did outside of that. A pause is longer
 * than what the host may have needed to see the guest's clock, so that a clock which runs on would be seen.
 */
const clockStands = (qemu: Other) =>
  Effect.gen(function*() {
    const seconds = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos) / 1e9)
    const begun = yield* seconds
    const before = yield* qemu.uptime
    const [stopped, resumed] = yield* Effect.scoped(Effect.gen(function*() {
      yield* openQemu(qemu.pid)
      const stopped = yield* seconds
      yield* Effect.sleep(Duration.seconds(stopped - begun + 4))
      return [stopped, yield* seconds] as const
    }))
    const passed = (yield* qemu.uptime) - before
    const outside = stopped - begun + ((yield* seconds) - resumed)
    // clocks of hosts and guests may differ by some per cent
    assert.isAtMost(passed, outside * 1.1 + 1, `a pause of ${resumed - stopped} s`)
  })

/** The command shows the map as bpftool has it. */
const showsWords = (qemu: Other, by: string, options: RunOptions) =>
  Effect.gen(function*() {
    const ran = yield* ktstr(["dump", "--qemu", by, "--map", "of_words", "--json"], options)
    assert.strictEqual(ran.code, 0, ran.stderr)
    const { maps: [{ entries }], source } = JSON.parse(ran.stdout)
    assert.sameDeepMembers(entries, [1, 2, 3, 4, 5].map((n) => ({ key: `0${n}000000`, value: `0${n}01020304050607` })))
    yield* qemu.becomes("running")
    yield* qemu.runsOn
    return { pid: source.pid, stderr: ran.stderr }
  })

/** By a process that may do all that root may, but not trace others; QEMU then writes its memory for us. */
const isReadUntraced = (qemu: Other) =>
  Effect.gen(function*() {
    const folder = yield* scratch
    const under = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    const { pid, stderr } = yield* showsWords(qemu, qemu.monitor, { under, env: { TMPDIR: folder } })
    assert.isNull(pid)
    assert.include(stderr, `QEMU writes 128 MiB of memory to ${folder}/ktstr-memory-`)
    assert.deepStrictEqual(readdirSync(folder).filter((name) => name.startsWith("ktstr-memory-")), [])
  })

/** By a connection that the command inherits. */
const isReadByDescriptor = (qemu: Other) =>
  Effect.gen(function*() {
    const socket = (yield* connected(qemu.monitor)).pause()
    const { pid } = yield* showsWords(qemu, "fd:3", { socket })
    assert.strictEqual(pid, qemu.pid)
  }).pipe(Effect.scoped)

/** Shells that see to a guest's running on. */
const watches = () => processesWith(`"id":"resumed"`)

/** A command that has stopped the guest, and waits for a reader of its file, gets this signal. */
const signalled = (qemu: Other, signal: "SIGKILL" | "SIGTERM") =>
  Effect.gen(function*() {
    const fifo = join(qemu.directory, signal)
    execFileSync("mkfifo", [fifo])
    const ran = yield* ktstr(["dump", "--qemu", String(qemu.pid), "--out", fifo], {
      meanwhile: async (child) => {
        await Effect.runPromise(qemu.becomes("paused"))
        child.kill(signal)
      }
    })
    assert.isAbove(ran.code, 127, ran.stderr)
    yield* qemu.becomes("running")
    yield* qemu.runsOn
    yield* Effect.promise(() => until("the watch has ended", () => watches().length === 0))
  })

const whyNot = (qemu: string | number) =>
  Effect.map(Effect.scoped(Effect.flip(attachQemu(qemu))), ({ message }) => message)

describe("a QEMU that someone else started", () => {
  it.scopedLive(
    "as libvirt starts it, with its memory in a memfd: is read, and runs on, also where ktstr is killed meanwhile",
    () =>
      Effect.gen(function*() {
        const qemu = yield* qemuWith("memfd")
        yield* isRead(qemu)
        yield* signalled(qemu, "SIGKILL")
        yield* signalled(qemu, "SIGTERM")
      }).pipe(Effect.provide(HostLive)),
    240_000
  )

  it.scopedLive(
    "with its memory in a file: is read, and is as it was when the reader is interrupted, or it stood still before",
    () =>
      Effect.gen(function*() {
        const qemu = yield* qemuWith("file")
        yield* isRead(qemu)
        yield* clockStands(qemu)
        const reading = yield* Effect.fork(Effect.scoped(Effect.zipRight(openQemu(qemu.pid), Effect.never)))
        yield* qemu.becomes("paused")
        yield* Fiber.interrupt(reading)
        assert.strictEqual(yield* qemu.status, "running")
        yield* qemu.tell("stop")
        yield* compareWords(qemu, qemu.monitor)
        yield* compareCore(qemu)
        assert.strictEqual(yield* qemu.status, "paused")
        yield* qemu.tell("cont")
        yield* qemu.runsOn
      }).pipe(Effect.provide(HostLive)),
    240_000
  )

  it.scopedLive(
    "with memory of its own: is read, but not while another program is at its monitor",
    () =>
      Effect.gen(function*() {
        const qemu = yield* qemuWith("plain")
        yield* isRead(qemu)
        yield* isReadByDescriptor(qemu)
        yield* isReadUntraced(qemu)
        const other = connect(yield* connected(qemu.monitor))
        yield* other.ready
        assert.strictEqual(
          yield* whyNot(qemu.pid),
          `cannot read the QEMU ${qemu.pid}: no greeting from ${qemu.monitor} within 10 seconds; it serves one program at a time `
            + "(is libvirt or another connected? racy reads without it), or does not speak QMP"
        )
        assert.strictEqual(yield* qemu.status, "running")
        yield* compareRunning(qemu)
        const ran = yield* ktstr(["dump", "--qemu", String(qemu.pid), "--racy", "--map", "of_words", "--json"])
        assert.strictEqual(ran.code, 0, ran.stderr)
        const { freeze, maps: [map], sched } = JSON.parse(ran.stdout)
        assert.deepStrictEqual([freeze, map.consistency, map.entries.length, sched], [null, "racing", 5, undefined])
      }).pipe(Effect.provide(HostLive)),
    240_000
  )

  it.scopedLive("is refused in one line where it cannot be read", () =>
    Effect.gen(function*() {
      const directory = yield* scratch
      const empty = ["-S", "-machine", "none", "-nodefaults", "-display", "none"]
      const mute = yield* started("qemu-system-x86_64", empty)
      assert.match(
        yield* whyNot(mute.pid),
        /: its command line has no QMP monitor at a UNIX socket; start it with -qmp unix:PATH,server=on,wait=off, or read it while it runs \(racy\)$/
      )
      assert.match(
        yield* Effect.map(Effect.scoped(Effect.flip(openQemu(mute.pid, { racy: true }))), ({ message }) => message),
        /^cannot read the QEMU \d+: no running x86-64 or arm64 Linux kernel in its largest mappings \(.*\); is its guest up\? /
      )
      const sleeper = yield* started("sleep", ["600"])
      const ran = yield* ktstr(["dump", "--qemu", String(sleeper.pid)])
      assert.deepStrictEqual([ran.code, complaints(ran)], [1, [
        `ktstr: cannot read the QEMU ${sleeper.pid}: that is not a QEMU but sleep; give the number of QEMU's process`
      ]])
      const racy = yield* ktstr(["dump", "--qemu", String(sleeper.pid), "--racy"])
      assert.deepStrictEqual([racy.code, complaints(racy)], [1, complaints(ran)])
      yield* killed(sleeper)
      assert.match(yield* whyNot(sleeper.pid), /: no such process; /)

      const left = join(directory, "left")
      const gone = yield* started("qemu-system-x86_64", [...empty, "-qmp", `unix:${left},server=on,wait=off`])
      yield* Effect.promise(() => until("a socket", () => listenedAt(left)))
      // it has no guest, so no memory
      assert.match(yield* whyNot(left), /: QEMU's info mtree -f: |: QEMU's query-memdev: /)
      yield* killed(gone)
      assert.match(yield* whyNot(left), /: connect ECONNREFUSED .*; is it the socket of a running QEMU's monitor\?$/)
      assert.match(yield* whyNot(join(directory, "absent")), /: ENOENT: no such file or directory, /)

      const foreign = join(directory, "foreign")
      yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createServer>>((resume) => {
          const server = createServer((socket) => socket.on("error", () => undefined).end("SSH-2.0-nonsense\r\n"))
          server.listen(foreign, () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      assert.match(
        yield* whyNot(foreign),
        /: QEMU's monitor, qmp_capabilities: closed: not a QMP message: SSH-2.0-nonsense; /
      )
    }).pipe(Effect.provide(HostLive)), 120_000)
})
