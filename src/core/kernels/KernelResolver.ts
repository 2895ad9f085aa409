import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Native } from "../Native.ts"
import { arm64Programs } from "./debian/GuestPrograms.ts"
import { findKernel } from "./FindKernel.ts"
import { type KernelArtifacts } from "./KernelArtifacts.ts"
import { parseKernelId } from "./KernelId.ts"
import { kernelOfId, type KernelOfIdError } from "./KernelOfId.ts"

export type { KernelArtifacts }

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native

/**
 * All that resolving an id, or finding a kernel without one, can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type ResolveError = KernelOfIdError

const resolve = Effect.fn("KernelResolver.resolve")(
  function*(text: string): Effect.fn.Return<KernelArtifacts, ResolveError, Host> {
    return yield* kernelOfId(yield* parseKernelId(text))
  }
)

/**
 * The service behind the tag `KernelResolver`.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelResolverService {
  /** The files of a kernel id; fetches what the cache does not have, where the id allows that. */
  readonly resolve: (id: string) => Effect.Effect<KernelArtifacts, ResolveError>
  readonly find: Effect.Effect<Option.Option<KernelArtifacts>, ResolveError>
  /** A directory with busybox, bpftool and libraries for arm64 guests; fetched where the cache does not have them. */
  readonly arm64Programs: Effect.Effect<string, ResolveError>
}

/**
 * Finds, and where it is a Debian package fetches, the kernel that an id means (see `KernelId`), or without an id the one
 * that `findKernel` describes.
 *
 * @since 0.1.0
 * @category services
 */
export class KernelResolver extends Context.Tag("ktstr/core/KernelResolver")<KernelResolver, KernelResolverService>() {
  /** Resolves on this host: its files, its apt, and the cache of `cacheRoot`. */
  static readonly layer: Layer.Layer<KernelResolver, never, Host> = Layer.effect(
    KernelResolver,
    Effect.map(Effect.context<Host>(), (host) => ({
      resolve: (id) => Effect.provide(resolve(id), host),
      find: Effect.provide(Effect.suspend(() => findKernel()), host),
      arm64Programs: Effect.provide(arm64Programs, host)
    }))
  )

  /** Answers with fixed artifacts, whatever the id. */
  static readonly layerTest = (artifacts: KernelArtifacts): Layer.Layer<KernelResolver> =>
    Layer.succeed(KernelResolver, {
      resolve: () => Effect.succeed(artifacts),
      find: Effect.succeed(Option.some(artifacts)),
      arm64Programs: Effect.succeed("/")
    })
}
