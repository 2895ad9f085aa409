import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import {
  fstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir, totalmem } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { Native } from "../../src/core/Native.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"

const O_RDONLY = 0
const O_RDWR = 2
/** asm-generic/ioctls.h: how many bytes can be read; writes an int. */
const FIONREAD = 0x541b
/** asm-generic/ioctls.h: window size, which only a terminal has. */
const TIOCGWINSZ = 0x5413

const directory = mkdtempSync(join(tmpdir(), "ktstr-native-"))
afterAll(() => rmSync(directory, { recursive: true }))
const file = join(directory, "three-pages")
writeFileSync(file, Buffer.from(Array.from({ length: 3 * 4096 }, (_, i) => i >> 12)))

/** The files that this process has open, and the mappings of them, by the kernel's account. */
const held = (needle: string) => ({
  fds: readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes(needle)
    } catch {
      return false // the descriptor of the listing itself
    }
  }).length,
  mappings: readFileSync("/proc/self/maps", "utf8").split("\n").filter((line) => line.includes(needle)).length
})

layer(NativeKoffi.layer)("Native", (it) => {
  it.scoped("maps the part of a file that it is asked for", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const fd = yield* native.open(file, O_RDONLY)
      const bytes = yield* native.mmap(fd, 4096, 8192, "read")
      assert.strictEqual(bytes.length, 8192)
      assert.strictEqual(bytes[0], 1)
      assert.strictEqual(bytes[8191], 2)
    }))

  it.effect("leaves nothing of many large mappings that keeps the process from starting another", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const length = 3 * 2 ** 30
      // more than the host's memory, which is what a fork may not ask for; V8 gives nothing back meanwhile
      for (let left = Math.ceil(totalmem() / length) + 2; left > 0; left--) {
        yield* Effect.scoped(
          Effect.flatMap(native.memfd("large", length), (fd) => native.mmap(fd, 0, length, "read"))
        )
      }
      assert.strictEqual(spawnSync("true").error, undefined)
    }))

  it.scoped("gives anonymous files of a size that nobody can change, whoever has the descriptor", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const fd = yield* native.memfd("ktstr-sealed", 8192)
      for (const size of [0, 4096, 12288]) {
        const { status, stderr } = spawnSync("truncate", ["-s", String(size), `/proc/${process.pid}/fd/${fd}`], {
          encoding: "utf8"
        })
        assert.notStrictEqual(status, 0)
        assert.include(stderr, "Operation not permitted")
      }
      assert.strictEqual(fstatSync(fd).size, 8192)
      const bytes = yield* native.mmap(fd, 0, 8192, "write")
      bytes[8191] = 7
      assert.strictEqual(readFileSync(`/proc/self/fd/${fd}`)[8191], 7)
    }))

  it.scoped("writes through to the file", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const fd = yield* native.open(file, O_RDWR)
      const bytes = yield* native.mmap(fd, 0, 4096, "write")
      bytes[77] = 0xab
      assert.strictEqual(readFileSync(file)[77], 0xab)
    }))

  it.scoped("shares a file in memory with whoever opens it by its descriptor", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const fd = yield* native.memfd("ktstr-test-share", 2 ** 20)
      const bytes = yield* native.mmap(fd, 0, 2 ** 20, "write")
      bytes.set([1, 2, 3], 2 ** 20 - 3)
      const seen = readFileSync(`/proc/self/fd/${fd}`)
      assert.strictEqual(seen.length, 2 ** 20)
      assert.deepStrictEqual([...seen.subarray(-3)], [1, 2, 3])
    }))

  it.scoped("maps four gibibytes and refuses one page more, without ending the process", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const fd = yield* native.memfd("ktstr-test-large", 2 ** 32 + 4096)
      const bytes = yield* native.mmap(fd, 0, 2 ** 32, "write")
      bytes[2 ** 32 - 1] = 9
      assert.strictEqual(bytes[2 ** 32 - 1], 9)
      const error = yield* Effect.flip(native.mmap(fd, 0, 2 ** 32 + 4096, "read"))
      assert.strictEqual(error.code, "EINVAL")
    }))

  it.effect("maps a large file without V8 counting it, and leaves zeros where it was", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const scope = yield* Scope.make()
      const [bytes, grown] = yield* Scope.extend(
        Effect.gen(function*() {
          const fd = yield* native.memfd("ktstr-test-uncounted", 2 ** 28)
          const before = process.memoryUsage().external
          const bytes = yield* native.mmap(fd, 4096, 2 ** 28 - 4096, "write")
          bytes[0] = 5
          bytes[2 ** 28 - 4097] = 6
          const seen = Buffer.alloc(2)
          readSync(fd, seen, 0, 1, 4096)
          readSync(fd, seen, 1, 1, 2 ** 28 - 1)
          assert.deepStrictEqual([...seen], [5, 6])
          return [bytes, process.memoryUsage().external - before] as const
        }),
        scope
      )
      assert.isBelow(grown, 2 ** 26)
      assert.strictEqual(held("ktstr-test-uncounted").mappings, 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(held("ktstr-test-uncounted").mappings, 0)
      assert.deepStrictEqual([bytes.length, bytes[0], bytes[2 ** 28 - 4097]], [2 ** 28 - 4096, 0, 0])
    }))

  it.scoped("finds what a file stores between its holes", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const fd = yield* native.memfd("ktstr-test-sparse", 2 ** 20)
      assert.isUndefined(native.nextData(fd, 0))
      const bytes = yield* native.mmap(fd, 0, 2 ** 20, "write")
      bytes[3 * 4096 + 5] = 1
      bytes[4 * 4096] = 1
      bytes[2 ** 20 - 1] = 1
      assert.deepStrictEqual(native.nextData(fd, 0), [3 * 4096, 5 * 4096])
      assert.deepStrictEqual(native.nextData(fd, 4 * 4096 + 7), [4 * 4096 + 7, 5 * 4096])
      assert.deepStrictEqual(native.nextData(fd, 5 * 4096), [2 ** 20 - 4096, 2 ** 20])
      assert.isUndefined(native.nextData(fd, 2 ** 20))
    }))

  it.scoped("passes a buffer to ioctl and gives back what the kernel wrote", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const fd = yield* native.open(file, O_RDONLY)
      const answer = new Uint8Array(4)
      assert.strictEqual(yield* native.ioctl(fd, FIONREAD, answer), 0)
      assert.strictEqual(new DataView(answer.buffer).getInt32(0, true), 3 * 4096)
    }))

  it.scoped("locks an open file for as long as it is open, and says when another has the lock", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const [a, b] = [yield* native.open(file, O_RDONLY), yield* native.open(file, O_RDONLY)]
      const other = yield* Scope.make()
      const c = yield* Scope.extend(native.open(file, O_RDONLY), other)
      assert.isTrue(yield* native.flock(a, "shared"))
      assert.isTrue(yield* native.flock(c, "shared"))
      assert.isFalse(yield* native.flock(b, "exclusive"))
      assert.isFalse(yield* native.flock(a, "exclusive"), "c shares it")
      yield* Scope.close(other, Exit.void)
      assert.isTrue(yield* native.flock(b, "exclusive"), "a lost its own when it asked for more, flock(2)")
      assert.isFalse(yield* native.flock(a, "shared"))
    }))

  it.scoped("lets two paths change places, of whatever kind, and follows no link", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const [folder, plain, link] = ["folder", "plain", "link"].map((name) => join(directory, name))
      mkdirSync(join(folder, "inside"), { recursive: true })
      writeFileSync(plain, "text")
      symlinkSync("/no/such", link)
      yield* native.exchange(folder, plain)
      assert.strictEqual(readFileSync(folder, "utf8"), "text")
      assert.deepStrictEqual(readdirSync(plain), ["inside"])
      yield* native.exchange(plain, link)
      assert.strictEqual(readlinkSync(plain), "/no/such")
      assert.deepStrictEqual(readdirSync(link), ["inside"])
    }))

  it.scoped("names the call, its subject and the errno of each failure", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const message = (failing: Effect.Effect<unknown, Error, Scope.Scope>) =>
        Effect.map(Effect.flip(failing), (error) => error.message)
      const fd = yield* native.open(file, O_RDONLY)
      assert.deepStrictEqual(
        yield* Effect.all([
          message(native.open("/no/such/file", O_RDONLY)),
          message(native.open(directory, O_RDWR)),
          message(native.mmap(9999, 0, 4096, "read")),
          message(native.mmap(fd, 1, 4096, "read")),
          message(native.mmap(fd, 0, 4096, "write")),
          message(native.memfd("x".repeat(300), 4096)),
          message(native.memfd("ktstr-test-negative", -1)),
          message(native.ioctl(fd, TIOCGWINSZ, new Uint8Array(8))),
          message(native.flock(9999, "shared")),
          message(native.exchange(file, `${directory}/none`)),
          message(native.exchange(file, "/proc/version"))
        ]),
        [
          "open /no/such/file: ENOENT (errno 2)",
          `open ${directory}: EISDIR (errno 21)`,
          "mmap fd 9999, 4096 bytes at 0: EBADF (errno 9)",
          `mmap fd ${fd}, 4096 bytes at 1: EINVAL (errno 22)`,
          `mmap fd ${fd}, 4096 bytes at 0: EACCES (errno 13)`,
          `memfd_create ${"x".repeat(300)}: EINVAL (errno 22)`,
          "ftruncate ktstr-test-negative to -1 bytes: EINVAL (errno 22)",
          `ioctl fd ${fd}, request 0x5413: ENOTTY (errno 25)`,
          "flock fd 9999: EBADF (errno 9)",
          `renameat2 ${file} and ${directory}/none: ENOENT (errno 2)`,
          `renameat2 ${file} and /proc/version: EXDEV (errno 18)`
        ]
      )
    }))

  it.effect("lets go of descriptors and mappings with the scope, also after a failure in it", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const work = Effect.gen(function*() {
        const memfd = yield* native.memfd("ktstr-test-leak", 8192)
        yield* native.mmap(memfd, 0, 8192, "write")
        const fd = yield* native.open(file, O_RDONLY)
        yield* native.mmap(fd, 0, 4096, "read")
        assert.deepStrictEqual([held("ktstr-test-leak"), held(file)], [{ fds: 1, mappings: 1 }, {
          fds: 1,
          mappings: 1
        }])
        return yield* native.open("/no/such/file", O_RDONLY)
      })
      const before = readdirSync("/proc/self/fd").length
      const scope = yield* Scope.make()
      const exit = yield* Effect.exit(Scope.extend(work, scope))
      assert.isTrue(Exit.isFailure(exit))
      yield* Scope.close(scope, exit)
      assert.deepStrictEqual([held("ktstr-test-leak"), held(file)], [{ fds: 0, mappings: 0 }, { fds: 0, mappings: 0 }])
      assert.strictEqual(readdirSync("/proc/self/fd").length, before)
    }))
})
