import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { readFileSync } from "node:fs"
import type { Btf } from "../../btf/Btf.ts"
import type { HostLacks } from "../../core/Errors.ts"
import type { Native } from "../../core/Native.ts"
import { LiveHost } from "../../host/LiveHost.ts"
import type { MapAccessor, MapAccessorService } from "../MapAccessor.ts"
import { DUMP_VERSION, type Header } from "../Report.ts"
import { LiveMaps, type LiveMapsService, type LiveOptions } from "./LiveMaps.ts"

/**
 * The running kernel, ready to be read: what a dump says first, what its lists need of the kernel, and its maps.
 *
 * @since 0.1.0
 * @category models
 */
export interface LiveSnapshot {
  readonly header: Header
  readonly kernel: { readonly release: string; readonly btf: Btf }
  readonly maps: MapAccessorService
  readonly live: LiveMapsService
}

/**
 * Open this host's maps, by bpf(2), until the scope closes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const openLive = Effect.fn("Ktstr.openLive")(function*(
  options: LiveOptions = {}
): Effect.fn.Return<LiveSnapshot, HostLacks, LiveHost | Native | Scope.Scope> {
  const { btf, possibleCpus, release } = yield* LiveHost
  const live = yield* LiveMaps.make(btf, options)
  const header: Header = {
    schema: "single",
    version: DUMP_VERSION,
    source: { kind: "live" },
    kernel: { release, pageTableLevels: null, kaslrOffset: null, possibleCpus: possibleCpus.length, boot: bootId() },
    freeze: null
  }
  return { header, kernel: { release, btf }, maps: live.accessor, live }
})

/** The running kernel's own; null without /proc. */
const bootId = (): string | null => {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()
  } catch {
    return null
  }
}

/**
 * `openLive` as a layer of its services. Its lists are those of the moment when it is built: for lists of now, in a server
 * say, let `LiveHost.layer` be the app's and `openLive` each request's.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerLive = (
  options: LiveOptions = {}
): Layer.Layer<MapAccessor | LiveMaps | LiveHost, HostLacks, Native | FileSystem.FileSystem> =>
  Layer.unwrapEffect(Effect.map(LiveHost, ({ btf }) => LiveMaps.layer(btf, options))).pipe(
    Layer.provideMerge(LiveHost.layer)
  )
