import type { PlatformError } from "@effect/platform/Error"
import { platformText } from "../../core/Errors.ts"

/** The reason of a failed file operation without its system call: `ENOENT: no such file or directory`. */
export const whyOf = (error: PlatformError): string => platformText(error).replace(/, .*$/, "")
