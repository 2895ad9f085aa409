import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import { dirname, join } from "node:path"
import { Worker } from "node:worker_threads"
import type { MapReader } from "../MapReader.ts"
import { isLarge, SHARES, type Shares, type WalkTask } from "./WalkParts.ts"

/**
 * A second thread, which writes parts of a dump's large maps.
 *
 * @since 0.1.0
 * @category models
 */
export interface SecondThread {
  /**
   * Tell it of a map, and go on.
   * @internal
   */
  readonly share: (task: WalkTask) => void
  readonly shares: Shares
  /**
   * Why it has ended, once it has: by an error, or with its scope. A dump goes on without it, and is the same.
   * @internal
   */
  readonly ended: Effect.Effect<string>
}

/** The thread's program, a file of its own in the package; undefined where this module was bundled into another. */
const program = (): string | undefined => {
  const from = import.meta.url === undefined ? require : createRequire(import.meta.url)
  try {
    return join(dirname(from.resolve("ktstr/package.json")), "dist/bin/walk.cjs")
  } catch {
    return undefined
  }
}

/**
 * A second thread for a dump of these maps, until the scope closes; undefined where it is of no use: no map is large, or there
 * is one CPU; or where it cannot be started.
 *
 * @since 0.1.0
 * @category constructors
 */
export const secondThread = (
  readers: ReadonlyArray<MapReader>,
  limit: number,
  shares: Shares = SHARES
): Effect.Effect<SecondThread | undefined, never, Scope.Scope> =>
  Effect.gen(function*() {
    if (availableParallelism() < 2 || limit < shares.least) return undefined
    if (!readers.some((reader) => isLarge(reader, shares))) return undefined
    const path = program()
    if (path === undefined) {
      yield* Effect.logDebug("large maps are written by one thread: the package's files are not beside this module")
      return undefined
    }
    const ended = yield* Deferred.make<string>()
    const end = (why: string) => void Deferred.unsafeDone(ended, Effect.succeed(why)) // the first reason counts
    const started = yield* Effect.acquireRelease(
      Effect.try({
        try: () => {
          const worker = new Worker(path, { execArgv: [], name: "walk" })
          worker.on("error", (error) => end(error.message)).on("exit", (code) => end(`exit code ${code}`)).unref()
          return worker
        },
        catch: String
      }),
      (worker) =>
        Effect.flatMap(Deferred.poll(ended), (early) =>
          Option.match(early, {
            onNone: () => Effect.promise(() => worker.terminate()),
            onSome: Effect.flatMap((why) => Effect.logDebug(`the second thread ended before the dump did: ${why}`))
          }))
    ).pipe(Effect.either)
    if (Either.isLeft(started)) { // no thread more for this user, say
      yield* Effect.logDebug(`large maps are written by one thread: ${started.left}`)
      return undefined
    }
    const worker = started.right
    return { share: (task) => worker.postMessage(task), shares, ended: Deferred.await(ended) }
  })
