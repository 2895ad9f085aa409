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
      const tried = <A>(act: () => A) =>
        Effect.try({
          try: act,
          catch: (error) => {
            const code = error instanceof Error && "code" in error ? error.code : error
            return shareProblem(
              spec,
              share,
              code === "ENOTDIR" ? "is not a folder" : `cannot be opened (${code})`,
              `give the path of a folder that can be read${writable ? " and written, or share it read-only" : ""}`
            )
          }
        })
      const rights = constants.R_OK | constants.X_OK | (writable ? constants.W_OK : 0)
      const open = tried(() => openSync(path, constants.O_RDONLY | constants.O_DIRECTORY))
      return Effect.acquireRelease(open, (fd) => Effect.sync(() => closeSync(fd))).pipe(
        Effect.tap(() => tried(() => accessSync(path, rights))),
        Effect.map((fd): OpenShare => ({ path, fd, writable }))
      )
    })
  })

/** A folder that a VM cannot have. */
export const shareProblem = (spec: VmSpec, { path }: Pick<Share, "path">, why: string, hint: string): VmBootError =>
  new VmBootError({ subject: spec.kernel, why: `its share ${path} ${why}`, hint })
