/**
 * Boot a kernel, freeze it twice, and print what changed in its BPF maps in between.
 *
 *     boot-freeze-diff [KERNEL]
 */
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Ktstr from "ktstr"
import { diffSnapshots, sideOfDocument } from "ktstr/bpf"

const kernel = process.argv[2] ?? "debian:6.12-cloud"
const MAP = "/sys/fs/bpf/counts"

/** The guest stands still for as long as it is read. */
const dumpOf = (vm: Ktstr.Vm) => Effect.scoped(Effect.flatMap(Ktstr.freezeAndAttach(vm, kernel), Ktstr.dump))

const program = Effect.gen(function*() {
  const vm = yield* Ktstr.boot({
    kernel,
    includes: ["/usr/sbin/bpftool"],
    script: `bpftool map create ${MAP} type hash key 4 value 8 entries 10 name counts`
  })
  const before = yield* dumpOf(vm)
  yield* vm.exec(`bpftool map update pinned ${MAP} key 1 0 0 0 value 42 0 0 0 0 0 0 0`)
  const after = yield* dumpOf(vm)
  yield* diffSnapshots(sideOfDocument(before), sideOfDocument(after)).pipe(
    Stream.runForEach((change) => Console.log(JSON.stringify(change)))
  )
})

program.pipe(
  Effect.scoped,
  Effect.provide(Ktstr.layer.pipe(Layer.provideMerge(NodeContext.layer))),
  NodeRuntime.runMain
)
