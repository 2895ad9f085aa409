import * as Either from "effect/Either"
import * as Schema from "effect/Schema"

/**
 * Which kernel is meant:
 * - `Path`: a kernel image, a vmlinux, or a directory that holds one; `~` is not yet expanded
 * - `Debian`: a kernel image package of the distribution whose packages apt knows
 */
export type KernelId =
  | { readonly _tag: "Path"; readonly path: string }
  | { readonly _tag: "Debian"; readonly selector: DebianSelector }

/**
 * Which Debian package: one by its name, one by its release (`uname -r`), or the newest of a series and flavour
 * (`""` is the plain one).
 */
export type DebianSelector =
  | { readonly _tag: "Package"; readonly name: string }
  | { readonly _tag: "Release"; readonly release: string }
  | { readonly _tag: "Series"; readonly series: string; readonly flavour: string }

/** A kernel id of no form that is known. */
export class KernelIdInvalid extends Schema.TaggedError<KernelIdInvalid>("ktstr/KernelIdInvalid")("KernelIdInvalid", {
  id: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `kernel id "${this.id}": ${this.why}; write ${examples}`
  }
}

/** One way to write an id. The first form that recognises a text decides: its parser's answer stands. */
interface Form {
  readonly example: string
  readonly recognises: (id: string) => boolean
  /** The id, or what is wrong with it. */
  readonly parse: (id: string) => KernelId | string
}

const DEBIAN = "debian:"
const PACKAGE = /^linux-image-[a-z0-9][a-z0-9.+-]*$/
const RELEASE = /^\d+\.\d+\.\d+[a-z0-9.+-]*-amd64$/
const SERIES = /^(\d+\.\d+(?:\.\d+)?)(?:-(cloud|rt))?$/

const parseDebian = (text: string): DebianSelector | undefined => {
  if (PACKAGE.test(text)) return { _tag: "Package", name: text }
  if (RELEASE.test(text)) return { _tag: "Release", release: text }
  const series = SERIES.exec(text)
  return series === null ? undefined : { _tag: "Series", series: series[1], flavour: series[2] ?? "" }
}

const forms: ReadonlyArray<Form> = [
  {
    example: "debian:SERIES, RELEASE or PACKAGE (debian:6.12-cloud)",
    recognises: (id) => id.startsWith(DEBIAN),
    parse: (id) => {
      const selector = parseDebian(id.slice(DEBIAN.length))
      return selector === undefined
        ? "this is no series (6.12, 6.12-cloud), release (6.1.0-56-cloud-amd64) or package (linux-image-…)"
        : { _tag: "Debian", selector }
    }
  },
  {
    example: "a path (./bzImage, /boot/vmlinuz-6.12, ~/linux)",
    recognises: (id) => /^(\/|\.$|\.\.$|\.\/|\.\.\/|~$|~\/)/.test(id),
    parse: (path) => path.includes("\0") ? "a path holds no NUL" : { _tag: "Path", path }
  }
]

const examples = forms.map((form) => form.example).join(", or ")

/** Parse a kernel id: `debian:…`, or a path that starts with `/`, `./`, `../` or `~`. Blanks around it are ignored. */
export const parseKernelId = (text: string): Either.Either<KernelId, KernelIdInvalid> => {
  const id = text.trim()
  const form = forms.find((each) => each.recognises(id))
  const parsed = form === undefined
    ? (id === "" ? "it is empty" : "this is no form of id that is known")
    : form.parse(id)
  return typeof parsed === "string" ? Either.left(new KernelIdInvalid({ id, why: parsed })) : Either.right(parsed)
}
