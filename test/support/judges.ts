import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { dirname, join } from "node:path"
import { promisify } from "node:util"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import { HostLive } from "./guest.ts"

/** What scripts/judges.sh gets for guests of Debian's stock 7.3: crash, drgn and makedumpfile, and the kernel's debug info. */
export const judges = Effect.map(
  Effect.flatMap(KernelResolver, (resolver) => resolver.resolve("debian:7.3-cloud")),
  ({ image, release }) => {
    const directory = join(dirname(dirname(dirname(image))), "judges", release)
    const program = (name: string) => join(directory, "bin", name)
    const run = (name: string) => (...words: ReadonlyArray<string>) =>
      Effect.promise(async () => {
        const started = promisify(execFile)(program(name), words, { maxBuffer: 2 ** 26 })
        started.child.stdin?.end()
        return (await started).stdout
      })
    return {
      crash: run("crash"),
      drgn: run("drgn"),
      makedumpfile: program("makedumpfile"),
      vmlinux: join(directory, "vmlinux"),
      showState: join(directory, "scx_show_state.py")
    }
  }
).pipe(Effect.provide(HostLive))
