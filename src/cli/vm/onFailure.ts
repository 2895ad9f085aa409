import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { resolve } from "node:path"
import { recordFailure } from "../../Ktstr.ts"
import { exitReport } from "../../kvm/guest/Init.ts"
import type { Vm } from "../../kvm/spec/VmEngine.ts"
import { sealFailure } from "../../monitor/FailureDump.ts"
import { awaitFailure } from "../../monitor/FailureWatch.ts"
import type { TakenMoment } from "../../monitor/moments/TakenMoment.ts"
import { defaultRules, type Rule } from "../../monitor/Rules.ts"
import type { Sample } from "../../monitor/Sample.ts"
import { checkWritable, writeFile } from "../source/writeFile.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { UsageError } from "../terminal/exit.ts"
import { dumpPieces } from "../terminal/Printable.ts"
import { writeMessage } from "../terminal/Streams.ts"
import { restartTimeLimit } from "../terminal/timeLimit.ts"

/** Words for the kernel's command line: a guest that panicked stays for as long, so that it can be stopped and read. */
export const ON_FAILURE_WORDS = "panic=30"

/** Half a minute of samples before the failure. */
const MOST_SAMPLES = 150

/** When the commands have ended the guest stays, to be read; this ends it, and with it its console. */
const POWER_OFF = "echo 0 > /proc/sys/kernel/printk; reboot -f"

/** The options of `vm run` about its guest's first failure. */
export interface FailureConfig {
  /** Where to write a dump of it, and a page. */
  readonly onFailure: Option.Option<string>
  readonly html: Option.Option<string>
  /** Where to write its memory, as an ELF core. */
  readonly core: Option.Option<string>
  /** A rule that is broken is one, too. */
  readonly monitor: boolean
}

export const NO_DUMP: FailureConfig = {
  onFailure: Option.none(),
  html: Option.none(),
  core: Option.none(),
  monitor: false
}

interface WantedDump extends Pick<FailureConfig, "html" | "core"> {
  readonly path: string
  readonly rules: ReadonlyArray<Rule> | undefined
}

/** The dump that the options ask for, whose files can be written. */
export const wantedDump = ({ core, html, monitor, onFailure }: FailureConfig) =>
  Effect.gen(function*() {
    if (Option.isNone(onFailure)) {
      const option = monitor
        ? "--monitor"
        : Option.isSome(html)
        ? "--html"
        : Option.isSome(core)
        ? "--core"
        : undefined
      if (option === undefined) return undefined
      return yield* new UsageError({ problem: `${option} is about a guest's failure: give --on-failure FILE with it` })
    }
    const paths = [onFailure.value, ...Option.toArray(html), ...Option.toArray(core)]
    if (new Set(paths.map((path) => resolve(path))).size < paths.length) {
      return yield* new UsageError({ problem: "--on-failure, --html and --core each want a file of their own" })
    }
    for (const path of paths) yield* checkWritable(path)
    const wanted: WantedDump = { path: onFailure.value, html, core, rules: monitor ? defaultRules : undefined }
    return wanted
  })

/** Write a dump of a guest's first failure, if it has one. Ends when it is written, or the guest's script ended with 0. */
const dumpOnFailure = (vm: Vm, kernel: string, { core, html, path, rules }: WantedDump) =>
  Effect.gen(function*() {
    let early: TakenMoment | undefined
    const samples: Array<Sample> = []
    const failure = yield* awaitFailure(vm, {
      kernel,
      early: (moment) => (early = moment),
      rules,
      sample: (sample) => {
        samples.push(sample)
        if (samples.length > MOST_SAMPLES) samples.shift()
      }
    })
    if (failure !== undefined) {
      yield* restartTimeLimit()
      const beside = Option.match(core, { onNone: () => Effect.void, onSome: (file) => coreOf(vm, file) })
      const captured = yield* recordFailure(vm, kernel, failure, early, beside)
      yield* writeFile(path, dumpPieces(sealFailure({ ...captured, samples })))
      writeMessage(`  failure: ${escapeLine(failure.text)}\n  ${escapeLine(path)}: written; ktstr show reads it\n`)
      if (Option.isSome(html)) {
        const { writePage } = yield* Effect.promise(() => import("../monitor/show.ts"))
        yield* writePage(path, html.value)
      }
    }
    yield* Effect.forkScoped(endOnceOver(vm))
  })

/** Write a core of a guest; of one that cannot be stopped it is said why there is none. */
const coreOf = (vm: Vm, path: string) =>
  Effect.gen(function*() {
    const { standingVm, writeCore } = yield* Effect.promise(() => import("./core.ts"))
    const standing = yield* Effect.either(standingVm(vm))
    if (Either.isRight(standing)) return yield* writeCore(path, standing.right)
    writeMessage(`  ${escapeLine(path)}: not written: ${escapeLine(standing.left.message)}\n`)
  }).pipe(Effect.scoped)

const endOnceOver = (vm: Vm) => vm.awaitReport(exitReport).pipe(Effect.zipRight(vm.exec(POWER_OFF)), Effect.ignore)

/** `run`, and beside it the dump of the guest's first failure, where one is wanted; it is whole when this ends. */
export const withDump = <A, E, R>(
  run: Effect.Effect<A, E, R>,
  vm: Vm,
  kernel: string,
  wanted: WantedDump | undefined
) =>
  wanted === undefined ? run : Effect.gen(function*() {
    const [ran, dumped] = yield* Effect.all(
      [Effect.either(run), Effect.either(dumpOnFailure(vm, kernel, wanted))],
      {
        concurrency: 2
      }
    )
    if (Either.isLeft(dumped)) return yield* Effect.fail(dumped.left)
    return yield* ran
  })
