import * as Effect from "effect/Effect"
import { build } from "esbuild"
import { execFile } from "node:child_process"
import { mkdirSync } from "node:fs"
import { promisify } from "node:util"

/**
 * A module and all it needs but Node, as one archive for a guest: unpacked there, `node live.mjs` runs it.
 * @param entry the module's URL
 */
export const packLive = (entry: URL, directory: string) =>
  Effect.promise(async () => {
    mkdirSync(`${directory}/live`)
    await build({
      entryPoints: [entry.pathname],
      outfile: `${directory}/live/live.mjs`,
      bundle: true,
      platform: "node",
      format: "esm",
      external: ["koffi", "lzma-native", "lz4-napi", "numcodecs"],
      banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
      logLevel: "warning"
    })
    const root = new URL("../../", import.meta.url).pathname
    const archive = `${directory}/live.tar`
    const needed = ["node_modules/koffi", "node_modules/@koromix/koffi-linux-x64"]
    const from = ["-C", `${directory}/live`, "live.mjs", "-C", root, "--exclude=*/doc"]
    await promisify(execFile)("tar", ["-chf", archive, ...from, ...needed])
    return archive
  })
