import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { HostLacks } from "../core/Errors.ts"
import { Native } from "../core/Native.ts"
import { probeKvm } from "./native/KvmProbe.ts"
import { accelerationBy, bootQemu } from "./qemu/Qemu.ts"
import { VmEngine, type VmSpec } from "./spec/VmEngine.ts"

/** Which engine is wished for: `kvm` is the native one, `auto` the best that works on this host. */
export type EngineWish = "auto" | "kvm" | "qemu"

/**
 * The engine of a wish. `auto` runs a probe guest, once, when the first VM is booted: where /dev/kvm is hardware it is the
 * native engine, which is loaded then, else QEMU's software emulation; a spec that asks for what QEMU alone has gets QEMU.
 * `kvm` fails with `HostLacks` where no Linux kernel would get through its boot. `Vm.acceleration` says what was found.
 */
export const layerOf = (wish: EngineWish): Layer.Layer<VmEngine, never, Native> =>
  Layer.effect(
    VmEngine,
    Effect.gen(function*() {
      const native = yield* Native
      const probed = yield* Effect.cached(probeKvm)
      const boot = (spec: VmSpec) =>
        Effect.gen(function*() {
          const verdict = yield* probed
          if (wish === "kvm" && verdict.kind !== "hardware") {
            return yield* new HostLacks({
              what: "the kvm engine",
              why: verdict.why,
              hint: "leave --engine out, or give --engine qemu: QEMU emulates a CPU on any host"
            })
          }
          yield* Effect.logDebug(`asked for engine ${wish}; ${verdict.why}`)
          if (wish === "qemu" || verdict.kind !== "hardware" || (wish === "auto" && spec.cpuModel !== undefined)) {
            return yield* bootQemu(spec, accelerationBy(verdict))
          }
          const { bootKvm } = yield* Effect.promise(() => import("./native/Kvm.ts"))
          return yield* bootKvm(spec, {})
        }).pipe(Effect.provideService(Native, native))
      return { boot }
    })
  )

/** `layerOf("auto")`. */
export const layer: Layer.Layer<VmEngine, never, Native> = layerOf("auto")
