import type * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { Live } from "../source/snapshot.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { writeText } from "../terminal/Output.ts"
import { jobsOf, scenariosOf } from "./cells.ts"
import type { listOptions } from "./runOptions.ts"
import { collectTests, filesByKind } from "./testFiles.ts"

type Config = Command.Command.ParseConfig<typeof listOptions>

/** The runs of `ktstr run` with the same options, or the tests of files; nothing boots. */
export const list = (config: Config) =>
  Effect.gen(function*() {
    const write = <A extends object>(items: ReadonlyArray<A>, line: (item: A) => string) =>
      writeText(items.map((item) => `${config.json ? JSON.stringify(item) : escapeLine(line(item))}\n`).join(""))
    const { scenarios, tests } = filesByKind(config.files)
    if (tests.length > 0) yield* write(yield* collectTests(tests), ({ file, test }) => `${file}: ${test}`)
    const jobs = yield* jobsOf(config, yield* scenariosOf(config, scenarios, tests))
    const cells = jobs.map(({ kernel, scenario, seed, topology }) => (
      { scenario: scenario.name, kernel, topology: topology.name, seed }
    ))
    yield* write(cells, ({ kernel, scenario, seed, topology }) => `${scenario}: ${kernel}, ${topology}, seed ${seed}`)
  }).pipe(Effect.provide(Live))
