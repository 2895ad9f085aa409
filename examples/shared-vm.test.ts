/** A vitest suite in which all tests share one guest: it boots once, for the first of them, and ends after the last. */
import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Ktstr from "ktstr"

const Host = Ktstr.layer.pipe(Layer.provideMerge(NodeContext.layer))
const kernel = "debian:6.12-cloud"
const Guest = Ktstr.layerVm({ kernel, includes: ["/usr/sbin/bpftool"] }).pipe(Layer.provide(Host))

layer(Guest, { timeout: "3 minutes" })("a guest", (it) => {
  it.effect("runs what a test asks for", () =>
    Effect.gen(function*() {
      const vm = yield* Ktstr.Vm
      const { output, status } = yield* vm.exec("uname -r")
      assert.strictEqual(status, 0)
      assert.match(output, /^6\.12/)
    }), 60_000)

  it.scoped("has the map that was made in it", () =>
    Effect.gen(function*() {
      const vm = yield* Ktstr.Vm
      yield* vm.exec("bpftool map create /sys/fs/bpf/m type array key 4 value 4 entries 1 name made")
      const { maps } = yield* Ktstr.freezeAndAttach(vm, kernel)
      const [map] = yield* maps.find("made")
      assert.strictEqual(map?.type, "array")
    }), 60_000)
})
