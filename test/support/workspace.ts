import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A directory for what several test files share; goes with the run. vitest runs this once, before all files. */
export const setup = (): () => void => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-tests-"))
  process.env["KTSTR_TEST_WORKSPACE"] = directory
  return () => rmSync(directory, { recursive: true, force: true })
}
