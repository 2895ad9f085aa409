// Checks the checkout without running a test: two parts at a time, each with its seconds, and what a part said only where
// it failed. A part that passed is not run again until a file that it reads has changed.
//     npm run check                the whole
//     npm run check types knip     these parts
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const CACHE = "node_modules/.cache/ktstr-check"
const TYPESCRIPT = ["src", "test", "bench", "examples", "tsconfig.json", "vitest.config.ts"]
const PACKED = ["src", "scripts/build.mjs", "tsconfig.json", "tsconfig.build.json", "README.md", "CHANGELOG.md"]

/** By part: its commands, one after the other, and the files and folders besides package.json that it reads. */
const parts = {
  effect: {
    reads: TYPESCRIPT,
    run: ["effect-language-service diagnostics --project tsconfig.json --strict --format text"]
  },
  api: { reads: ["src", "typedoc.config.mjs", "tsconfig.json", "README.md"], run: ["typedoc --emit none"] },
  types: {
    reads: TYPESCRIPT,
    run: [
      "node node_modules/typescript7/bin/tsc -p tsconfig.json --incremental "
      + "--tsBuildInfoFile node_modules/.cache/types.tsbuildinfo"
    ]
  },
  exports: { reads: ["src", "scripts/exports.mjs"], run: ["node scripts/exports.mjs"] },
  knip: { reads: [...TYPESCRIPT, "scripts", "knip.json"], run: ["knip"] },
  // the build is what is packed: --ignore-scripts keeps npm from building it again
  package: {
    reads: PACKED,
    run: [
      "node scripts/build.mjs --if-stale",
      "npm pack --silent --ignore-scripts --pack-destination $PACKED",
      "publint run --strict $PACKED/*.tgz",
      "attw $PACKED/*.tgz --profile esm-only --format ascii --quiet"
    ]
  }
}

const filesIn = (path) =>
  !existsSync(path) ? [] : path.includes(".") ? [path] : readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))

/** What a part read, and what it was run with, as one number. */
const digest = ({ reads, run }) => {
  const hash = createHash("sha256").update(JSON.stringify(run)).update(process.version)
  for (const file of ["package.json", "package-lock.json", ...reads].flatMap(filesIn).sort()) {
    hash.update(`${file}\0`).update(readFileSync(file)).update("\0")
  }
  return hash.digest("hex")
}

const shell = (command, env) =>
  new Promise((resolve) => {
    const child = spawn("sh", ["-ec", command], { env, stdio: ["ignore", "pipe", "pipe"] })
    const said = []
    child.stdout.on("data", (piece) => said.push(piece))
    child.stderr.on("data", (piece) => said.push(piece))
    child.once("close", (code, signal) =>
      resolve({ failed: code !== 0, how: signal ?? `exit ${code}`, said: said.join("") }))
  })

const packed = mkdtempSync(join(tmpdir(), "ktstr-packed-"))
process.once("exit", () => rmSync(packed, { recursive: true, force: true }))
const env = { ...process.env, PATH: `${join("node_modules", ".bin")}:${process.env.PATH}`, PACKED: packed }

const check = async (name) => {
  const part = parts[name]
  const stamp = join(CACHE, name)
  const state = digest(part)
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === state) {
    console.log(`check ${name}: as before`)
    return
  }
  const start = performance.now()
  const { failed, how, said } = await shell(part.run.join("\n"), env)
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  if (failed) {
    console.log(`${said.trimEnd()}\ncheck ${name}: FAILED (${how}), ${seconds} s`)
    process.exitCode = 1
    return
  }
  writeFileSync(stamp, state)
  console.log(`check ${name}: ok, ${seconds} s`)
}

const wanted = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(parts)
const unknown = wanted.filter((name) => !(name in parts))
if (unknown.length > 0) {
  console.error(`check: no part ${unknown.join(", ")}; there are ${Object.keys(parts).join(", ")}`)
  process.exit(2)
}
mkdirSync(CACHE, { recursive: true })
const queue = [...wanted]
const work = async () => {
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) await check(name)
}
await Promise.all([work(), work()])
