import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { closeSync, fstatSync, openSync } from "node:fs"
import { VmBootError, type VmSpec } from "./VmEngine.ts"

/** An open disk image. */
export interface Disk {
  readonly path: string
  readonly fd: number
  /** A multiple of `SECTOR`. */
  readonly bytes: number
  readonly readOnly: boolean
}

/** Bytes of a disk's sector. */
export const SECTOR = 512

/** Open the disks of a VM until the scope closes. */
export const openDisks = (spec: VmSpec): Effect.Effect<ReadonlyArray<Disk>, VmBootError, Scope.Scope> =>
  Effect.forEach(spec.disks ?? [], ({ path, readOnly = false }) =>
    Effect.gen(function*() {
      const broken = (why: string, hint: string) =>
        new VmBootError({ subject: spec.kernel, why: `its disk ${path} ${why}`, hint })
      const fd = yield* Effect.acquireRelease(
        Effect.try({
          try: () => openSync(path, readOnly ? "r" : "r+"),
          catch: (error) =>
            broken(
              `cannot be opened (${error instanceof Error && "code" in error ? error.code : error})`,
              `give the path of a disk image that can be read${
                readOnly ? "" : " and written, or make the disk read-only"
              }`
            )
        }),
        (fd) => Effect.sync(() => closeSync(fd))
      )
      const stat = fstatSync(fd)
      if (!stat.isFile()) return yield* broken("is not a regular file", "give the path of a disk image")
      if (stat.size % SECTOR !== 0) {
        const whole = Math.ceil(stat.size / SECTOR) * SECTOR
        return yield* broken(
          `has ${stat.size} bytes, not a multiple of ${SECTOR}`,
          `truncate -s ${whole} makes it longer`
        )
      }
      return { path, fd, bytes: stat.size, readOnly }
    }))
