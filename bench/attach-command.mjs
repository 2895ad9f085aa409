// What attach.mjs measures, inside the command: milliseconds from its look at the image to the first entry on its stdout, and
// those before, from Node's readiness on. V8's code for the command is there, as it is from the second run on.
import { spawnSync } from "node:child_process"
import { here } from "./measure.mjs"

const [image, map] = process.argv.slice(2)
const run = () => {
  const words = [here("../dist/bin/ktstr.cjs"), "dump", "--image", image, "--map", map, "--ndjson", "--limit", "1"]
  const stdio = ["ignore", "ignore", "pipe", "pipe"]
  const { output, status } = spawnSync(process.execPath, ["--require", here("first-entry.cjs"), ...words], { stdio })
  if (status !== 0) throw new Error(`ktstr dump ended with ${status}: ${output[2]}`)
  return output[3].toString()
}
run()
console.log(run())
