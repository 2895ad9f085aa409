import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { readFileSync } from "node:fs"
import type { Btf } from "../../btf/Btf.ts"
import { LiveHost } from "../../host/LiveHost.ts"
import type { MapAccessorService } from "../MapAccessor.ts"
import { DUMP_VERSION, type Header } from "../Report.ts"
import { layerLiveMaps, type LiveMapsService, type LiveOptions, makeLiveMaps } from "./LiveMaps.ts"

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
export const openLive = Effect.fn("ktstr.openLive")(function*(options: LiveOptions = {}) {
  const { btf, possibleCpus, release } = yield* LiveHost
  const live = yield* makeLiveMaps(btf, options)
  const header: Header = {
    schema: "single",
    version: DUMP_VERSION,
    source: { kind: "live" },
    kernel: { release, pageTableLevels: null, kaslrOffset: null, possibleCpus: possibleCpus.length, boot: bootId() },
    freeze: null
  }
  return { header, kernel: { release, btf }, maps: live.accessor, live } satisfies LiveSnapshot
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
 * `MapAccessor` and `LiveMaps` of this host.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerLive = (options: LiveOptions = {}) =>
  Layer.unwrapEffect(Effect.map(LiveHost, ({ btf }) => layerLiveMaps(btf, options))).pipe(
    Layer.provideMerge(LiveHost.layer)
  )
