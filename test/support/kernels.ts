import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"

/** Debian's newest cloud kernel of a series, from the user's cache or fetched into it: its bzImage's path. */
export const kernelImage = (series: "6.1" | "6.12") =>
  Effect.flatMap(KernelResolver, (resolver) => resolver.resolve(`debian:${series}-cloud`)).pipe(
    Effect.map(({ image }) => image),
    Effect.provide(KernelResolver.layer),
    Effect.provide(NativeKoffi.layer),
    Effect.provide(NodeContext.layer)
  )
