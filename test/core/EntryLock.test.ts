import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { LockTimeout, withLock } from "../../src/core/EntryLock.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-lock-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Another process, of util-linux's `flock`, that has a lock until it is killed or its stdin ends. */
const holder = (path: string, mode: "--shared" | "--exclusive", name = "cat") =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const script = `echo locked; exec -a "$1" cat`
      // --no-fork: the program keeps the descriptor, and so the lock, itself
      const child = spawn("flock", ["--no-fork", mode, path, "bash", "-c", script, "bash", name])
      await once(child.stdout, "data")
      return child
    }),
    (child) => Effect.promise(() => over(child, "SIGTERM"))
  )

const over = async (child: ChildProcessWithoutNullStreams, signal: "SIGTERM" | "SIGKILL"): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill(signal)
  await once(child, "close")
}

/** Whether util-linux's `flock` gets the lock at once. */
const isFree = (path: string, mode: "--shared" | "--exclusive") =>
  spawnSync("flock", ["--nonblock", mode, path, "true"]).status === 0

layer(Layer.merge(NodeFileSystem.layer, NativeKoffi.layer), { excludeTestServices: true })("withLock", (it) => {
  it.scoped("makes no file where a link leads to, and takes the lock of one that is there", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const [link, target] = [join(directory, "lock"), join(directory, "elsewhere")]
      symlinkSync(target, link)
      assert.include((yield* Effect.flip(withLock(link, "exclusive", 0)(Effect.void))).message, "ENOENT")
      assert.isFalse(existsSync(target))
      writeFileSync(target, "")
      assert.isFalse(yield* withLock(link, "exclusive", 0)(Effect.sync(() => isFree(target, "--shared"))))
    }))

  it.scoped("does not wait for the other end of a FIFO that somebody put there", () =>
    Effect.gen(function*() {
      const fifo = join(yield* temporary, "lock")
      assert.strictEqual(spawnSync("mkfifo", [fifo]).status, 0)
      assert.strictEqual(yield* withLock(fifo, "exclusive", 0)(Effect.succeed("locked")), "locked")
    }))

  for (const kind of ["file", "directory"] as const) {
    const place = Effect.map(temporary, (directory) => kind === "file" ? join(directory, "lock") : directory)

    it.scoped(`on a ${kind}: others see it while the work runs, shared or exclusive, and no longer`, () =>
      Effect.gen(function*() {
        const path = yield* place
        const seen = Effect.sync(() => [isFree(path, "--shared"), isFree(path, "--exclusive")])
        assert.deepStrictEqual(yield* withLock(path, "exclusive", 0)(seen), [false, false])
        assert.deepStrictEqual(yield* withLock(path, "shared", 0)(seen), [true, false])
        assert.strictEqual(yield* Effect.flip(withLock(path, "exclusive", 0)(Effect.fail("broken"))), "broken")
        assert.deepStrictEqual(yield* seen, [true, true])
      }))

    it.scoped(`on a ${kind}: names the one who has it when the wait is over`, () =>
      Effect.gen(function*() {
        const path = yield* place
        const child = yield* holder(path, "--exclusive")
        for (const wait of ["0 millis", "120 millis"] as const) {
          const error = yield* Effect.flip(withLock(path, "shared", wait)(Effect.void))
          assert.instanceOf(error, LockTimeout)
          assert.strictEqual(
            error.message,
            `${path} is locked by pid ${child.pid} (cat); wait until it ends, or end it, and try again`
          )
        }
      }))
  }

  it.scoped("names all who share it, one's own process too, in a line fit for a terminal", () =>
    Effect.gen(function*() {
      const path = join(yield* temporary, "lock")
      const name = `evil\x1b[2J\n${"x".repeat(100)}`
      const [a, b] = [yield* holder(path, "--shared"), yield* holder(path, "--shared", name)]
      yield* withLock(path, "shared", 0)(Effect.gen(function*() {
        const error = yield* Effect.flip(withLock(path, "exclusive", 0)(Effect.void))
        assert.instanceOf(error, LockTimeout)
        const holders = error.holder.split(", pid ")
        assert.strictEqual(holders.length, 3)
        assert.include(error.holder, `pid ${a.pid} (cat)`)
        assert.include(error.holder, `pid ${b.pid} (evil [2J ${"x".repeat(71)})`)
        assert.match(error.holder, new RegExp(`pid ${process.pid} \\(.*node.*\\)`))
      }))
    }))

  it.scoped("knows no name where the holder is not to be seen", () =>
    Effect.gen(function*() {
      const path = join(yield* temporary, "lock")
      const child = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          // the lock outlives the process that took it, in one that inherited the descriptor
          const child = spawn("bash", [
            "-c",
            "exec 9>\"$1\"; flock --exclusive 9 & wait; echo locked; exec cat",
            "bash",
            path
          ])
          await once(child.stdout, "data")
          return child
        }),
        (child) => Effect.promise(() => over(child, "SIGTERM"))
      )
      const error = yield* Effect.flip(withLock(path, "exclusive", 0)(Effect.void))
      assert.instanceOf(error, LockTimeout)
      assert.notInclude(error.holder, `pid ${child.pid}`)
      assert.match(error.holder, /^(another process|pid \d+)$/)
    }))

  it.scoped("waits for it, and gets it from a holder that is killed", () =>
    Effect.gen(function*() {
      const path = join(yield* temporary, "lock")
      const child = yield* holder(path, "--exclusive")
      const fiber = yield* Effect.fork(withLock(path, "exclusive", "30 seconds")(Effect.succeed("got it")))
      yield* Effect.sleep("70 millis")
      assert.isNull(fiber.unsafePoll())
      yield* Effect.promise(() => over(child, "SIGKILL"))
      assert.strictEqual(yield* Fiber.join(fiber), "got it")
    }))

  it.scoped("can be interrupted while it waits, and while the work runs; then nothing stays open", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const path = join(directory, "lock")
      const child = yield* holder(path, "--exclusive")
      const descriptors = readdirSync("/proc/self/fd").length
      const waiting = yield* Effect.fork(withLock(path, "exclusive", "1 hour")(Effect.void))
      yield* Effect.sleep("20 millis")
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(readdirSync("/proc/self/fd").length, descriptors)

      yield* Effect.promise(() => over(child, "SIGTERM"))
      const working = yield* Effect.fork(withLock(path, "exclusive", 0)(Effect.never))
      while (isFree(path, "--exclusive")) yield* Effect.sleep("5 millis")
      yield* Fiber.interrupt(working)
      assert.isTrue(isFree(path, "--exclusive"))
    }))

  it.scoped("lets one in at a time", () =>
    Effect.gen(function*() {
      const path = join(yield* temporary, "lock")
      let inside = 0
      let done = 0
      const work = Effect.gen(function*() {
        assert.strictEqual(++inside, 1)
        yield* Effect.sleep("2 millis")
        inside--
        done++
      })
      yield* Effect.all(Array.from({ length: 6 }, () => withLock(path, "exclusive", "30 seconds")(work)), {
        concurrency: "unbounded"
      })
      assert.strictEqual(done, 6)
    }))

  it.scoped("fails where no lock can be: the path says why", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(withLock("/no/such/lock", "exclusive", 0)(Effect.void))
      assert.include(error.message, "ENOENT")
      assert.isFalse(existsSync("/no"))
    }))
})
