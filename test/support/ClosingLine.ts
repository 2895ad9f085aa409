import type { TestModule } from "vitest/node"
import type { Reporter } from "vitest/reporters"

/** Ends a run with `N passed, N failed, N skipped`, and before it names each skipped test. */
// oxlint-disable-next-line import/no-default-export -- vitest loads a reporter file's default export
export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const count = { passed: 0, failed: 0, skipped: 0, pending: 0 }
    for (const module of modules) {
      if (module.errors().length > 0) count.failed++
      for (const test of module.children.allTests()) {
        const result = test.result()
        count[result.state]++
        if (result.state === "skipped") {
          process.stdout.write(`skipped: ${test.fullName}${result.note === undefined ? "" : `: ${result.note}`}\n`)
        }
      }
    }
    process.once("exit", () =>
      process.stdout.write(
        `${count.passed} passed, ${count.failed + count.pending} failed, ${count.skipped} skipped\n`
      ))
  }
}
