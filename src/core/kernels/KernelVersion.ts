/**
 * A kernel.org version: `6.14`, `6.14.2`, `6.15-rc3` or `6.14.2-rc1`. Two numbers alone name a *series* where something
 * is chosen from several (`covers`, `inRange`); three, or an rc, name one release, of which the first is `6.14.0`.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelVersion {
  /** As it was written. */
  readonly text: string
  readonly major: number
  readonly minor: number
  readonly patch: number | undefined
  readonly rc: number | undefined
}

const NUMBER = "(0|[1-9]\\d{0,5})"
const VERSION = new RegExp(`^${NUMBER}\\.${NUMBER}(?:\\.${NUMBER})?(?:-rc${NUMBER})?$`)

/**
 * The version that a text is, or none: no `v` before it, no single number, nothing after it.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseKernelVersion = (text: string): KernelVersion | undefined => {
  const parts = VERSION.exec(text)
  if (parts === null) return undefined
  const [major, minor, patch, rc] = parts.slice(1).map((part) => part === undefined ? undefined : Number(part))
  return major === undefined || minor === undefined ? undefined : { text, major, minor, patch, rc }
}

/**
 * Negative where `a` is earlier, 0 where they are one release. A missing patch is 0; a release comes after its rcs.
 *
 * @since 0.1.0
 * @category comparing
 */
export const compareKernelVersions = (a: KernelVersion, b: KernelVersion): number =>
  a.major - b.major || a.minor - b.minor || (a.patch ?? 0) - (b.patch ?? 0) ||
  (a.rc === b.rc ? 0 : (a.rc ?? Infinity) - (b.rc ?? Infinity))

const isSeries = (version: KernelVersion): boolean => version.patch === undefined && version.rc === undefined

/**
 * Whether `release` is what `asked` names: of a series any release, no rc; else the very same one.
 *
 * @since 0.1.0
 * @category comparing
 */
export const covers = (asked: KernelVersion, release: KernelVersion): boolean =>
  isSeries(asked)
    ? asked.major === release.major && asked.minor === release.minor && release.rc === undefined
    : compareKernelVersions(asked, release) === 0

/**
 * Whether `release` lies in the range, both ends included; a series as the end is included whole. Release candidates are
 * in no range, except where one of its ends is one.
 *
 * @since 0.1.0
 * @category comparing
 */
export const inRange = (start: KernelVersion, end: KernelVersion, release: KernelVersion): boolean =>
  compareKernelVersions(start, release) <= 0 &&
  (compareKernelVersions(release, end) <= 0 || covers(end, release)) &&
  (release.rc === undefined || start.rc !== undefined || end.rc !== undefined)
