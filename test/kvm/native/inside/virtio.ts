// Runs where /dev/kvm is real: a guest with disks and a second terminal.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import assert from "node:assert"
import { createHash, randomBytes } from "node:crypto"
import { mkdtempSync, readFileSync, writeFileSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { bootKvm } from "../../../../src/kvm/native/Kvm.ts"

const [kernel, initramfs] = process.argv.slice(2)
const start = performance.now()
const say = (text: string) => writeSync(1, `[${((performance.now() - start) / 1000).toFixed(1)} s] ${text}\n`)
const MIB = 2 ** 20
const ROUNDS = 6

const digest = (algorithm: string, ...bytes: ReadonlyArray<Uint8Array>) =>
  bytes.reduce((hash, piece) => hash.update(piece), createHash(algorithm)).digest("hex")

const program = Effect.gen(function*() {
  const directory = mkdtempSync(join(tmpdir(), "virtio-"))
  const [path, fixed] = [join(directory, "disk"), join(directory, "a,fixed=disk")]
  const [content, fixedContent] = [randomBytes(8 * MIB), randomBytes(MIB)]
  writeFileSync(path, content)
  writeFileSync(fixed, fixedContent)
  const vm = yield* bootKvm({
    kernel,
    initramfs: readFileSync(initramfs),
    memoryMib: 128,
    cpus: 2,
    disks: [{ path }, { path: fixed, readOnly: true }],
    timeout: "280 seconds"
  }, {})
  let terminal = ""
  const { output, resize, type } = vm.terminal
  yield* Effect.forkScoped(Stream.runForEach(output, (bytes) =>
    Effect.sync(() => {
      terminal += Buffer.from(bytes).toString()
    })))
  /** What the terminal says from the pattern on; all before is gone. */
  const expect = (pattern: RegExp) =>
    Effect.gen(function*() {
      for (let tries = 0; tries < 1500; tries++) {
        const found = pattern.exec(terminal)
        if (found !== null) {
          terminal = terminal.slice(found.index + found[0].length)
          return found[0]
        }
        yield* Effect.sleep("20 millis")
      }
      return assert.fail(
        `no ${pattern} in ${JSON.stringify(terminal)}; the console: ${(yield* vm.consoleTail).slice(-30).join("\n")}`
      )
    })
  const enter = (line: string) => type(Buffer.from(`${line}\n`))
  yield* resize({ rows: 31, columns: 97 })

  assert.strictEqual(
    yield* vm.awaitReady.pipe(
      Effect.tapError(() => Effect.map(vm.consoleTail, (lines) => say(lines.slice(-40).join("\n"))))
    ),
    0
  )
  const lines = yield* vm.consoleTail
  const line = (word: string) => lines.find((each) => each.startsWith(`${word} `))?.slice(word.length + 1)
  assert.strictEqual(line("vda"), `${content.length / 512} 0 ktstr-disk0`, lines.join("\n"))
  assert.strictEqual(line("vdb"), `${fixedContent.length / 512} 1 ktstr-disk1`)
  assert.strictEqual(line("vda-sum"), `${digest("sha256", content)}  -`)
  assert.strictEqual(line("vdb-sum"), `${digest("sha256", fixedContent)}  -`)
  say("ok: the disks have their files' content")
  const written = readFileSync(path)
  assert.strictEqual(line("new"), `${digest("sha256", written.subarray(MIB, 2 * MIB))}  -`)
  // the guest's loop writes from 4 MiB on already
  for (const [from, to] of [[0, MIB], [2 * MIB, 4 * MIB], [5 * MIB, 8 * MIB]]) {
    assert.ok(written.subarray(from, to).equals(content.subarray(from, to)))
  }
  say("ok: what the guest wrote is in the file")
  assert.strictEqual(line("refused"), "yes")
  assert.ok(readFileSync(fixed).equals(fixedContent))
  say("ok: a read-only disk is not written")

  // the signal goes to the terminal's foreground, which an interactive shell is not while a program runs
  const waits = "trap w=yes WINCH; echo waits; until [ $w ]; do usleep 50000; done; stty size"
  yield* enter(`stty size; sh -c '${waits}'`)
  yield* expect(/31 97\r\nwaits\r\n/)
  yield* resize({ rows: 40, columns: 120 })
  yield* expect(/40 120\r\n/)
  say("ok: the terminal's size, and its change, are seen in the guest")
  yield* enter("tty; read word; echo \"got <$word>\"")
  yield* expect(/\/dev\/hvc0\r\n/)
  yield* enter("hello there")
  yield* expect(/got <hello there>\r\n/)
  yield* enter("echo sleeps; sleep 1000; echo woken")
  yield* expect(/\r\nsleeps\r\n/)
  yield* Effect.sleep("1 second") // until it does
  yield* type(Buffer.from([3]))
  yield* enter("echo after $?")
  yield* expect(/after 130\r\n/)
  const much = Buffer.alloc(100_000, "0123456789abcdef".repeat(62) + "1234567\n") // whole lines of 1000
  yield* enter("stty -echo; head -n 100 | md5sum")
  yield* expect(/md5sum\r\n/)
  yield* Effect.sleep("1 second")
  yield* type(much)
  yield* expect(new RegExp(digest("md5", much)))
  yield* enter("stty echo; count() { awk '/virtio0/ { print $2 + $3 }' /proc/interrupts; }")
  yield* enter("a=$(count); i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); done; echo raised $(($(count) - a))")
  const raised = /\d+/.exec(yield* expect(/399\r\nraised \d+\r\n/).pipe(Effect.map((found) => found.slice(5))))
  assert.ok(Number(raised?.[0]) < 40, `${raised} interrupts for the output of 400 lines`)
  say("ok: a shell on the terminal hears and is heard, and its output raises no interrupts")

  const ios = Effect.map(vm.consoleTail, (tail) => tail.filter((each) => /^io \d+$/.test(each)))
  let moved = 0
  for (let round = 0; round < ROUNDS; round++) {
    const before = (yield* ios).length
    yield* Effect.scoped(Effect.gen(function*() {
      const { memory } = yield* vm.freeze
      const bytes = memory.regions.map((region) => region.bytes)
      const [inMemory, inFile] = [digest("sha1", ...bytes), digest("sha1", readFileSync(path))]
      yield* Effect.zipRight(type(Buffer.from("#")), resize({ rows: 40, columns: 100 + round }))
      yield* Effect.sleep("100 millis")
      assert.strictEqual(digest("sha1", ...bytes), inMemory)
      assert.strictEqual(digest("sha1", readFileSync(path)), inFile)
    }))
    yield* Effect.sleep(`${(round * 37) % 100} millis`)
    while ((yield* ios).length === before) yield* Effect.sleep("20 millis")
    moved++
  }
  say(`ok: frozen ${moved} times in the middle of disk I/O, memory stood still, and it went on`)
  yield* enter("")
  yield* enter("stty size")
  yield* expect(new RegExp(`40 ${100 + ROUNDS - 1}\r\n`))
  const complaints = (yield* vm.consoleTail).filter((each) =>
    /nobody cared|I\/O error|soft lockup|blocked for more/.test(each)
  )
  assert.deepStrictEqual(complaints.filter((each) => !each.includes("vdb")), [])

  yield* enter("halt -f")
  const died = yield* Effect.flip(vm.ended)
  assert.ok(died._tag === "VmDied" && died.end === "halted", died.message)
  say(`ok: halted, and that is told: ${died.message.slice(0, 120)}`)
})

await Effect.runPromise(Effect.scoped(program))
say("ok: done")
