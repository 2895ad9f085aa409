// Builds dist/: the library file by file (tsc: a subpath a room, nothing pays for what it does not import), and the
// command as one bundle in chunks (esbuild: --help must not load what only `dump` needs).
import { build } from "esbuild"
import { execFileSync } from "node:child_process"
import { chmodSync, rmSync, writeFileSync } from "node:fs"

rmSync("dist", { recursive: true, force: true })
execFileSync("npx", ["tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" })
await build({
  entryPoints: { ktstr: "src/cli/bin.ts" },
  outdir: "dist/bin",
  bundle: true,
  splitting: true,
  platform: "node",
  target: "node20",
  format: "esm",
  minify: true,
  keepNames: false,
  external: ["koffi", "lzma-native", "lz4-napi", "numcodecs"],
  banner: {
    js: "import { createRequire as ktstrRequire } from 'node:module'; const require = ktstrRequire(import.meta.url);"
  },
  logLevel: "warning"
})
chmodSync("dist/bin/ktstr.js", 0o755)
writeFileSync("dist/.built", "")
