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
  /** When a tier's first file was begun and its last one had ended, in ms: tiers run one after the other. */
  readonly times = new Map<string, { from: number; to: number }>()

  onTestModuleQueued(module: TestModule): void {
    const now = performance.now()
    if (!this.times.has(module.project.name)) this.times.set(module.project.name, { from: now, to: now })
  }

  onTestModuleEnd(module: TestModule): void {
    const time = this.times.get(module.project.name)
    if (time !== undefined) time.to = performance.now()
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
        const time = this.times.get(name)
        const seconds = time === undefined ? 0 : (time.to - time.from) / 1000
        process.stdout.write(`${name}: ${files} files, ${text(count)}, ${seconds.toFixed(1)} s\n`)
      }
      process.stdout.write(`${text(all)}\n`)
    })
  }
}
