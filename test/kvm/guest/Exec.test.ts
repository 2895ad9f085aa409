import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"
import { VmEngine } from "../../../src/kvm/spec/VmEngine.ts"
import { kernelImage } from "../../support/kernels.ts"
import { engine } from "../support.ts"

/** A guest whose script ends when a file is made. */
const boot = Effect.gen(function*() {
  const kernel = yield* kernelImage("6.12")
  const script = "while [ ! -e /tmp/end ]; do usleep 50000; done; exit 3"
  const initramfs = yield* makeInitramfs({ script })
  return yield* (yield* VmEngine).boot({ kernel, initramfs, memoryMib: 192 })
})

layer(engine, { timeout: "60 seconds" })("commands in a running guest", (it) => {
  // with the test's clock: a VM waits in real time
  it.scoped(
    "give their status and output, one after the other, while the script runs and after it",
    () =>
      Effect.gen(function*() {
        const vm = yield* boot
        assert.deepStrictEqual(yield* vm.exec("id -u; pwd; echo wrong >&2; exit 7"), {
          status: 7,
          output: "0\n/root\nwrong\n",
          truncated: false
        })
        const numbers = [1, 2, 3, 4]
        const results = yield* Effect.forEach(numbers, (n) => vm.exec(`echo start ${n}; usleep 20000; echo end ${n}`), {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(results.map(({ output }) => output), numbers.map((n) => `start ${n}\nend ${n}\n`))
        // longer than a terminal's line, with every byte that a shell's word may have
        const text = Array.from({ length: 20_000 }, (_, index) => String.fromCharCode(0x20 + index % 0x5f)).join("")
        const long = yield* vm.exec(`cat <<'END' | md5sum\n${text}\nEND`)
        assert.strictEqual(
          long.output,
          (yield* vm.exec(`printf '%s\\n' '${text.replaceAll("'", "'\\''")}' | md5sum`)).output
        )
        assert.deepStrictEqual(yield* vm.exec("seq 1 1000", { outputBytes: 10 }), {
          status: 0,
          output: "1\n2\n3\n4\n5\n",
          truncated: true
        })
        assert.deepStrictEqual(yield* vm.exec("(sleep 1000 &); true"), { status: 0, output: "", truncated: false })
        assert.strictEqual((yield* vm.exec("kill -9 $$")).status, 137)
        assert.notInclude((yield* vm.exec("ls /ktstr")).output.split("\n"), "output1")
        yield* vm.exec("touch /tmp/end")
        assert.strictEqual(yield* vm.awaitReady, 3)
        assert.strictEqual((yield* vm.exec("echo after")).output, "after\n")
        // it stands while it is frozen, and answers when it goes on
        const { takenAt } = yield* Effect.scoped(vm.freeze)
        assert.approximately(takenAt, Date.now(), 60_000)
        assert.strictEqual((yield* vm.exec("echo thawed")).output, "thawed\n")
      }),
    120_000
  )

  it.scoped(
    "fail typed: too late, too long, of a guest that ends meanwhile or has ended",
    () =>
      Effect.gen(function*() {
        const vm = yield* boot
        const why = (command: string, options?: Parameters<typeof vm.exec>[1]) =>
          Effect.map(Effect.flip(vm.exec(command, options)), (error) => `${error._tag}: ${error.message}`)
        assert.match(
          yield* why("sleep 3", { timeout: "1 second" }),
          /^ExecFailed: "sleep 3" in the guest: it did not finish within 1 s; raise its timeout$/
        )
        assert.match(
          yield* why("true", { outputBytes: 2 ** 40 }),
          /outputBytes is 1099511627776; set it to a whole number/
        )
        assert.match(yield* why("true", { timeout: NaN }), /^ExecFailed: .*not a time/)
        assert.match(yield* why("x".repeat(2 ** 20 + 1)), /it has 1048577 bytes, the limit is 1048576; include it/)
        assert.match(yield* why("poweroff -f"), /^GuestExited: /)
        const later: ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }>> = [
          vm.exec("true"),
          Effect.scoped(vm.freeze),
          vm.memory,
          vm.type(Uint8Array.of(10)),
          vm.awaitLine(/never said/)
        ]
        for (const use of later) assert.strictEqual((yield* Effect.flip(use))._tag, "GuestExited")
      }),
    120_000
  )

  it.scoped("a limit on the guest fires in real time, and says both limits", () =>
    Effect.gen(function*() {
      const kernel = yield* kernelImage("6.12")
      const initramfs = yield* makeInitramfs({ script: "echo hello; sleep 1000" })
      const limited = (settings: object) =>
        Effect.flatMap(VmEngine, (engine) => engine.boot({ kernel, initramfs, memoryMib: 192, ...settings })).pipe(
          Effect.flatMap((vm) => Effect.flip(vm.awaitReady)),
          Effect.scoped,
          Effect.map(({ message }) => message)
        )
      assert.match(
        yield* limited({ timeout: "1 second" }),
        /^the guest did not report ready within 1 s \(silence is allowed for 1 s\); .*; raise timeout, or/
      )
      assert.match(
        yield* limited({ silenceTimeout: "300 millis", cmdline: "loglevel=0" }),
        /^the guest did not report ready and printed nothing for 0.3 s \(600 s are allowed in all\); .*raise silenceTimeout/
      )
    }), 60_000)
})
