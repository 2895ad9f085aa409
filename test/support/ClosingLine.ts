import type { TestModule } from "vitest/node"
import type { Reporter } from "vitest/reporters"

interface Count {
  passed: number
  failed: number
  skipped: number
  pending: number
}

const none = (): Count => ({ passed: 0, failed: 0, skipped: 0, pending: 0 })

const text = (count: Count) =>
  `${count.passed} passed, ${count.failed + count.pending} failed, ${count.skipped} skipped`

/**
 * Ends a run with each tier's count and time, and `N passed, N failed, N skipped`; before it names each test that was
 * skipped, or failed once before it passed.
 */
// oxlint-disable-next-line import/no-default-export -- vitest loads a reporter file's default export
export default class ClosingLine implements Reporter {
  /** When a file was begun, in ms, and how long each tier's files took together: two run at once. */
  readonly begun = new Map<string, number>()
  readonly taken = new Map<string, number>()

  onTestModuleQueued({ moduleId }: TestModule): void {
    this.begun.set(moduleId, performance.now())
  }

  onTestModuleEnd({ moduleId, project: { name } }: TestModule): void {
    const now = performance.now()
    this.taken.set(name, (this.taken.get(name) ?? 0) + now - (this.begun.get(moduleId) ?? now))
  }

  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const all = none()
    const tiers = new Map<string, { files: number; count: Count }>()
    for (const module of modules) {
      const tier = tiers.get(module.project.name) ?? { files: 0, count: none() }
      tiers.set(module.project.name, tier)
      tier.files++
      for (const count of [all, tier.count]) if (module.errors().length > 0) count.failed++
      for (const test of module.children.allTests()) {
        const result = test.result()
        for (const count of [all, tier.count]) count[result.state]++
        if (test.diagnostic()?.flaky === true) {
          const why = result.errors?.map((error) => error.message.split("\n", 1)[0]).join("; ")
          process.stdout.write(`passed at its second try: ${test.fullName}: ${why}\n`)
        }
        if (result.state === "skipped") {
          process.stdout.write(`skipped: ${test.fullName}${result.note === undefined ? "" : `: ${result.note}`}\n`)
        }
      }
    }
    process.once("exit", () => {
      for (const [name, { count, files }] of tiers) {
        const seconds = (this.taken.get(name) ?? 0) / 1000
        process.stdout.write(`${name}: ${files} files, ${text(count)}, ${seconds.toFixed(1)} s\n`)
      }
      process.stdout.write(`${text(all)}\n`)
    })
  }
}
