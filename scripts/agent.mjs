// Builds guest-agent/ into dist/agent/ktstr-agent-x86_64: a static program for guests, the same bytes each time. Where there
// is no musl-gcc it says so and what does not work then; a package is not packed without it.
import { execFileSync, spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, statSync } from "node:fs"
import { join } from "node:path"

const LIMIT = 128 * 1024
const FLAGS = [
  "-std=gnu11",
  "-Os",
  "-static",
  "-s",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-ffunction-sections",
  "-fdata-sections",
  "-Wl,--gc-sections",
  "-Wl,--build-id=sha1",
  "-ffile-prefix-map=guest-agent=."
]

/** Build it; false where there is no compiler. */
export const buildAgent = () => {
  const compiler = spawnSync("musl-gcc", ["--version"])
  if (compiler.error !== undefined) {
    const why = "no musl-gcc on the PATH, so there is no guest agent and `ktstr run` cannot be used; " +
      "apt-get install musl-tools and build again"
    if (process.env.npm_lifecycle_event === "prepack") throw new Error(why)
    console.error(`build: ${why}`)
    return false
  }
  const sources = readdirSync("guest-agent").filter((name) => name.endsWith(".c")).sort()
  mkdirSync("dist/agent", { recursive: true })
  const out = "dist/agent/ktstr-agent-x86_64"
  execFileSync("musl-gcc", [...FLAGS, "-o", out, ...sources.map((name) => join("guest-agent", name))], {
    stdio: "inherit"
  })
  const { size } = statSync(out)
  if (size > LIMIT) throw new Error(`${out} has ${size} bytes, the limit is ${LIMIT}`)
  return true
}
