import * as Effect from "effect/Effect"
import { accessSync, constants, statSync } from "node:fs"
import { delimiter, isAbsolute, join } from "node:path"
import { HostLacks } from "../Errors.ts"

/** The absolute path of an executable on PATH; a path itself, where an executable is. */
export const findProgram = (name: string): string | undefined => {
  const places = name.includes("/")
    ? [name]
    : (process.env["PATH"] ?? "/usr/bin:/bin").split(delimiter).filter(isAbsolute).map((place) => join(place, name))
  return places.find(isExecutable)
}

/** As `findProgram`; its absence is a `HostLacks` that says `why` and names the Debian package that has it. */
export const requireProgram = (name: string, why: string, debianPackage: string): Effect.Effect<string, HostLacks> =>
  Effect.suspend(() => {
    const path = findProgram(name)
    return path !== undefined
      ? Effect.succeed(path)
      : new HostLacks({ what: name, why: `not on PATH; ${why}`, hint: `apt-get install ${debianPackage}` })
  })

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}
