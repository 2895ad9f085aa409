import * as Schema from "effect/Schema"
import { hex } from "../core/Address.ts"
import { RELEASED } from "./GuestMemory.ts"

/**
 * No running kernel was found in `subject`. `looked` says for what and how far, `hint` what the user can do.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotAKernel extends Schema.TaggedError<NotAKernel>("ktstr/NotAKernel")("NotAKernel", {
  subject: Schema.String,
  why: Schema.String,
  looked: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `${this.subject}: ${this.why}; ${this.looked}; ${this.hint}`
  }
}

/**
 * The kernel in memory carries no type information that can be read.
 *
 * @since 0.1.0
 * @category errors
 */
export class NoBtf extends Schema.TaggedError<NoBtf>("ktstr/NoBtf")("NoBtf", {
  release: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `no BTF of kernel ${this.release}: ${this.why}; ${this.hint}`
  }
}

/**
 * The vmlinux is not the one that runs in the memory.
 *
 * @since 0.1.0
 * @category errors
 */
export class WrongKernel extends Schema.TaggedError<WrongKernel>("ktstr/WrongKernel")("WrongKernel", {
  vmlinux: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `${this.vmlinux} is not the kernel in this memory: ${this.why}; give the vmlinux of the very same build, or none`
  }
}

/**
 * A kernel address that could not be read. `OutOfMemory`: the page tables point where the image has no bytes. `Released`:
 * the memory's scope has closed.
 *
 * @since 0.1.0
 * @category errors
 */
export class Unmapped extends Schema.TaggedError<Unmapped>("ktstr/Unmapped")("Unmapped", {
  address: Schema.BigIntFromSelf,
  reason: Schema.Literal("NotPresent", "OutOfMemory", "TooLong", "Released")
}) {
  override get message() {
    return {
      NotPresent: `${hex(this.address)} is not mapped in the kernel's page tables`,
      OutOfMemory: `${hex(this.address)} maps to physical memory outside the image; is the image truncated?`,
      TooLong: `the read at ${hex(this.address)} is longer than the limit for one read`,
      Released: `${hex(this.address)} ${RELEASED}`
    }[this.reason]
  }
}
