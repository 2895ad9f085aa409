// One side of ratio.ts: boots a kernel on the native engine and passes its console on until the VM ends. Without arguments
// it does nothing but load.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { readFileSync, writeSync } from "node:fs"
import { bootKvm } from "../../../../src/kvm/native/Kvm.ts"

const [kernel, initramfs, cmdline] = process.argv.slice(2)
const program = Effect.scoped(Effect.gen(function*() {
  const vm = yield* bootKvm({ kernel, initramfs: readFileSync(initramfs), memoryMib: 512, cmdline }, {})
  yield* Stream.runForEach(vm.consoleBytes, (bytes) => Effect.sync(() => writeSync(1, bytes)))
  yield* Effect.catchTag(vm.ended, "GuestExited", () => Effect.void)
}))
if (kernel !== undefined) void Effect.runPromise(program)
