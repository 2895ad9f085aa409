/**
 * Run a shell command in a fresh VM of each kernel; says how it ended there, and fails if one failed.
 *
 *     run-in-kernels COMMAND KERNEL…
 */
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Ktstr from "ktstr"

const [command = "true", ...kernels] = process.argv.slice(2)

const runIn = (kernel: string) =>
  Effect.gen(function*() {
    const vm = yield* Ktstr.boot({ kernel })
    const { output, status } = yield* vm.exec(command, { timeout: "1 minute" })
    yield* Console.log(`${kernel}: exit status ${status}\n${output.trimEnd()}`)
    return status
  }).pipe(
    Effect.scoped,
    // one kernel that does not boot must not keep the others from being tried
    Effect.catchAll((error) => Effect.as(Console.log(`${kernel}: ${error.message}`), 1))
  )

const program = Effect.gen(function*() {
  const statuses = yield* Effect.forEach(kernels, runIn)
  if (statuses.some((status) => status !== 0)) process.exitCode = 1
})

program.pipe(
  Effect.provide(Ktstr.layer.pipe(Layer.provideMerge(NodeContext.layer))),
  NodeRuntime.runMain
)
