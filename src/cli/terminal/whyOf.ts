import type { PlatformError } from "@effect/platform/Error"

/** The reason of a failed file operation without its system call: `ENOENT: no such file or directory`. */
export const whyOf = (error: PlatformError): string =>
  (error._tag === "SystemError" ? error.description?.replace(/, .*$/, "") : undefined) ?? error.message
