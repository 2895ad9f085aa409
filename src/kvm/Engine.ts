import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { HostLacks } from "../core/Errors.ts"
import { Native } from "../core/Native.ts"
import { probeKvm } from "./probe/KvmProbe.ts"
import { accelerationBy, bootQemu } from "./qemu/Qemu.ts"
import { readKernelImage } from "./spec/LinuxImage.ts"
import { VmEngine, type VmSpec } from "./spec/VmEngine.ts"

/**
 * Which engine to use: `kvm` is the native one, `auto` the best that works on this host.
 *
 * @since 0.1.0
 * @category models
 */
export type EngineChoice = "auto" | "kvm" | "qemu"

/**
 * The engine of a choice. `auto` runs a probe guest, once, when the first VM is booted: where /dev/kvm is hardware it is the
 * native engine, which is loaded then, else QEMU's software emulation; a spec with settings that only QEMU has gets QEMU.
 * `kvm` fails with `HostLacks` where no Linux kernel would get through its boot. `Vm.acceleration` says what was found.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerWith = (requested: EngineChoice): Layer.Layer<VmEngine, never, Native> =>
  Layer.effect(
    VmEngine,
    Effect.gen(function*() {
      const native = yield* Native
      const probed = yield* Effect.cached(probeKvm)
      const boot = (spec: VmSpec) =>
        Effect.gen(function*() {
          const status = yield* probed
          const isArm64 = (yield* readKernelImage(spec.kernel)).kind === "arm64 Image"
          if (requested === "kvm" && status.kind !== "hardware" && !isArm64) {
            return yield* new HostLacks({
              what: "the kvm engine",
              why: status.why,
              hint: "use the engine auto or qemu: QEMU emulates a CPU on any host"
            })
          }
          yield* Effect.logDebug(`engine ${requested} requested; ${status.why}`)
          const qemuOnly = isArm64 || spec.cpuModel !== undefined || (spec.shares ?? []).length > 0
          const takesQemu = requested === "auto" && (status.kind !== "hardware" || qemuOnly)
          if (requested === "qemu" || takesQemu) {
            return yield* bootQemu(spec, accelerationBy(status))
          }
          const { bootKvm } = yield* Effect.promise(() => import("./native/Kvm.ts"))
          return yield* bootKvm(spec, {})
        }).pipe(
          Effect.provideService(Native, native),
          Effect.withSpan("vm.boot", {
            attributes: { kernel: spec.kernel, cpus: spec.cpus ?? 1, memoryMib: spec.memoryMib ?? 512, requested }
          })
        )
      return { boot }
    })
  )

/**
 * `layerWith("auto")`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<VmEngine, never, Native> = layerWith("auto")
