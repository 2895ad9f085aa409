import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { accessSync, closeSync, constants, openSync } from "node:fs"
import { type Share, shareName } from "./Share.ts"
import { VmBootError, type VmSpec } from "./VmEngine.ts"

/** An open folder. */
export interface OpenShare {
  readonly path: string
  readonly fd: number
  readonly writable: boolean
}

/** Open the folders of a VM until the scope closes. */
export const openShares = (spec: VmSpec): Effect.Effect<ReadonlyArray<OpenShare>, VmBootError, Scope.Scope> =>
  Effect.gen(function*() {
    const shares = spec.shares ?? []
    const names = shares.map(shareName)
    const twice = names.findIndex((name, index) => names.indexOf(name) !== index)
    if (twice >= 0) {
      return yield* shareProblem(
        spec,
        shares[twice],
        `would be /share/${names[twice]} in the guest, as another is`,
        "give each folder of a VM a name of its own, by a symbolic link if need be"
      )
    }
    return yield* Effect.forEach(shares, (share) => {
      const { path, writable = false } = share
      const open = Effect.try({
        try: () => {
          accessSync(path, constants.R_OK | constants.X_OK | (writable ? constants.W_OK : 0))
          return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
        },
        catch: (error) =>
          shareProblem(
            spec,
            share,
            `cannot be opened (${error instanceof Error && "code" in error ? error.code : error})`,
            `give the path of a folder that can be read${writable ? " and written, or share it read-only" : ""}`
          )
      })
      return Effect.acquireRelease(open, (fd) => Effect.sync(() => closeSync(fd))).pipe(
        Effect.map((fd): OpenShare => ({ path, fd, writable }))
      )
    })
  })

/** A folder that a VM cannot have. */
export const shareProblem = (spec: VmSpec, { path }: Pick<Share, "path">, why: string, hint: string): VmBootError =>
  new VmBootError({ subject: spec.kernel, why: `its share ${path} ${why}`, hint })
