// Builds dist/: the library file by file (tsc: a subpath a room, nothing pays for what it does not import), and the
// command as one bundle (esbuild), so that it starts quickly.
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { buildAgent } from "./agent.mjs"
import { bundle, bundleStarted } from "./bundle.mjs"

/** Whether a source is newer than what was built of it. */
const isStale = () => {
  if (!existsSync("dist/.built")) return true
  const built = statSync("dist/.built").mtimeMs
  const sources = ["src", "guest-agent"].flatMap((root) =>
    readdirSync(root, { recursive: true }).map((name) => join(root, name))
  )
  return [
    "scripts/build.mjs",
    "scripts/agent.mjs",
    "scripts/bundle.mjs",
    "tsconfig.json",
    "tsconfig.build.json",
    "package-lock.json",
    "src",
    ...sources
  ]
    .some((path) => statSync(path).mtimeMs > built)
}
if (process.argv.includes("--if-stale") && !isStale()) {
  console.error("build: no source is newer than dist/")
  process.exit(0)
}

rmSync("dist", { recursive: true, force: true })
// TypeScript 7; 5.9, a fifth as fast, is here for the Effect diagnostics, which are its plugin
execFileSync(process.execPath, ["node_modules/typescript7/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" })

const { metafile } = await bundleStarted({
  entryPoints: ["src/cli/bin.ts"],
  outfile: "dist/bin/main.cjs",
  metafile: true
})
await bundle({ entryPoints: ["src/cli/help/answer.ts"], outfile: "dist/bin/help.cjs" })
await bundle({ entryPoints: ["src/bpf/thread/worker.ts"], outfile: "dist/bin/walk.cjs" })
const { outputFiles: [printCommands] } = await bundle({ entryPoints: ["src/cli/help/printCommands.ts"], write: false })
writeFileSync("dist/bin/commands.json", execFileSync(process.execPath, ["-"], { input: printCommands.contents }))
// what src/cli/start.cjs passes in: V8's cached code cannot import()
const main = readFileSync("dist/bin/main.cjs", "utf8").replaceAll(/\bimport\((?=")/g, "importModule(")
writeFileSync("dist/bin/main.cjs", main)
const hash = createHash("sha256").update(main).digest("hex").slice(0, 16)
const required = metafile.outputs["dist/bin/main.cjs"].imports.filter(({ kind }) => kind === "require-call")
const modules = new Set(required.map(({ path }) => path).filter((path) => path.startsWith("node:")))
const start = readFileSync("src/cli/start.cjs", "utf8")
  .replace("\"not built\"", `"${hash}"`)
  .replace("MODULES = []", `MODULES = ${JSON.stringify([...modules])}`)
writeFileSync("dist/bin/start.cjs", start)
copyFileSync("src/cli/launch.cjs", "dist/bin/ktstr.cjs")
chmodSync("dist/bin/ktstr.cjs", 0o755)
buildAgent()
writeFileSync("dist/.built", "")
