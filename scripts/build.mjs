// Builds dist/: the library file by file (tsc: a subpath a room, nothing pays for what it does not import), and the
// command as one bundle (esbuild), so that it starts quickly.
import { build } from "esbuild"
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

/** The function that src/cli/start.cjs calls: V8 takes the file as it is, without a copy of its text. */
const STARTED = { banner: { js: "(function(require,importModule){" }, footer: { js: "})" } }

/** Bundles of the command's parts. */
const bundled = (options) =>
  build({
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    minify: true,
    lineLimit: 160, // Node prints the line where a program broke
    external: ["koffi", "lzma-native", "lz4-napi", "numcodecs"],
    logLevel: "warning",
    logOverride: { "empty-import-meta": "silent" }, // src/kvm/native/abi/Koffi.ts knows that it may be in a CommonJS bundle
    ...options
  })
await bundled({ entryPoints: ["src/cli/bin.ts"], outfile: "dist/bin/main.cjs", ...STARTED })
await bundled({ entryPoints: ["src/cli/help/answer.ts"], outfile: "dist/bin/help.cjs" })
const { outputFiles: [printCommands] } = await bundled({ entryPoints: ["src/cli/help/printCommands.ts"], write: false })
writeFileSync("dist/bin/commands.json", execFileSync(process.execPath, ["-"], { input: printCommands.contents }))
// what src/cli/start.cjs passes in: V8's cached code cannot import()
const bundle = readFileSync("dist/bin/main.cjs", "utf8").replaceAll(/\bimport\((?=")/g, "importModule(")
writeFileSync("dist/bin/main.cjs", bundle)
const hash = createHash("sha256").update(bundle).digest("hex").slice(0, 16)
writeFileSync("dist/bin/start.cjs", readFileSync("src/cli/start.cjs", "utf8").replace("\"not built\"", `"${hash}"`))
copyFileSync("src/cli/launch.cjs", "dist/bin/ktstr.cjs")
chmodSync("dist/bin/ktstr.cjs", 0o755)
buildAgent()
writeFileSync("dist/.built", "")
