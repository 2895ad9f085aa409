import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"

/**
 * Debian's kernels that `npm run matrix` reads, by series and flavour (none: the generic one), the oldest of a flavour
 * first; none in other runs of the tests.
 */
export const matrix: ReadonlyArray<string> = process.env["KTSTR_MATRIX"] === "1"
  ? [
    ...["5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"].map((series) =>
      `${series}-cloud`
    ),
    "6.1",
    "7.3",
    "6.1-rt",
    "7.3-rt"
  ]
  : []

/** Kernels for arm64 in the same way: of 4 KiB pages and 48 bits of addresses; then 52 bits by LPA2, of 5 levels with 4 KiB and of 4 with 16 KiB. */
export const arm64Matrix: ReadonlyArray<string> = matrix.length === 0
  ? []
  : ["6.1-cloud-arm64", "6.18-cloud-arm64", "7.3-cloud-arm64", "7.3-arm64-16k"]

/** The series of a kernel of the matrix. */
export const seriesOf = (name: string): string => name.replace(/-.*/, "")

/** Debian's newest cloud kernel of a series, from the user's cache or fetched into it: its bzImage's path. */
export const kernelImage = (series: string) => debianImage(`${series}-cloud`)

/** The same for a kernel named as in the matrix. */
export const debianImage = (name: string) =>
  Effect.flatMap(KernelResolver, (resolver) => resolver.resolve(`debian:${name}`)).pipe(
    Effect.map(({ image }) => image),
    Effect.provide(KernelResolver.layer),
    Effect.provide(NativeKoffi.layer),
    Effect.provide(NodeContext.layer)
  )
