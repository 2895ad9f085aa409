import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"

const run = promisify(execFile)
const source = (name: string): string => new URL(`./schedulers/${name}`, import.meta.url).pathname

/**
 * Compile a scheduler of test/harness/schedulers, with the loader that attaches it, into `directory`, for a kernel of that
 * release; gives the program's path.
 */
export const compileScheduler = async (directory: string, name: string, release: string): Promise<string> => {
  const object = join(directory, `${name}.bpf.o`)
  const program = join(directory, `scx_${name}`)
  const old = release.startsWith("6.12.") ? ["-DBEFORE_6_13"] : []
  const flags = [...old, "-O2", "-g", "-target", "bpf", "-D__TARGET_ARCH_x86", "-I/usr/include/x86_64-linux-gnu"]
  await run("clang", [...flags, "-c", source(`${name}.bpf.c`), "-o", object])
  await run("gcc", ["-O1", "-Wall", "-Werror", `-DOBJECT="${object}"`, source("loader.c"), "-lbpf", "-o", program])
  return program
}
