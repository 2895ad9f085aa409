import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as Layer from "effect/Layer"
import { mkdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { Host, image, put } from "./kernelEntries.ts"
import { run } from "./samples.ts"

/** What building kernels needs of the host. */
export const BuildHost = Layer.merge(Host, FetchHttpClient.layer)

/**
 * The top of a "kernel" that answers to the targets that a build uses, as kbuild does: `O=`, a .config to which lines are
 * appended and of which the last value counts, options that it does not know. Its vmlinux is an ELF file with debug info
 * and BTF, made by gcc and pahole, and says what make was told.
 */
export const makefile = (version: string) => {
  const [major, minor, patch] = version.split(".")
  return `# a comment
VERSION = ${major}
PATCHLEVEL = ${minor}
SUBLEVEL = ${patch}
EXTRAVERSION =
NAME = Tiny

unknown := $(shell cat unknown)
said = ARCH=$(ARCH) USER=$(KBUILD_BUILD_USER) AT=$(KBUILD_BUILD_TIMESTAMP) LANG=$(LANG)$(LC_ALL) $(filter -j%,$(MAKEFLAGS))

tinyconfig:
	printf '%s\\n' CONFIG_TINY=y CONFIG_64BIT=n > $(O)/.config

olddefconfig:
	tr -d '\\r' < $(O)/.config | awk -v unknown='$(unknown)' -f config.awk > $(O)/.config.new
	mv $(O)/.config.new $(O)/.config

bzImage: vmlinux
	mkdir -p $(O)/arch/x86/boot
	cp image $(O)/arch/x86/boot/bzImage

vmlinux:
	sh hook
	gcc -g -static -nostdlib -Wl,-e,start -DSAID='"$(said)"' -o $(O)/vmlinux kernel.c
	pahole -J $(O)/vmlinux
`
}

const CONFIG_AWK = `
/^CONFIG_/ { split($0, part, "="); value[part[1]] = $0 }
/^# CONFIG_.* is not set$/ { value[$2] = $0 }
END {
  count = split(unknown, names, " ")
  for (at = 1; at <= count; at++) delete value[names[at]]
  for (name in value) print value[name]
}
`

const kernelC = (version: string) => `
const char linux_banner[] = "Linux version ${version} (ktstr@localhost) #1 SMP";
const char said[] = "said: " SAID;
struct rq { int nr_running; struct rq *next; } runqueues = {1, 0};
void start(void) { runqueues.next = &runqueues; }
`

/** Write the tree; `changes` replace the content of its files, or add files. */
export const writeTree = (directory: string, version = "6.12.3", changes: Record<string, string> = {}): string => {
  const files = {
    "Makefile": makefile(version),
    "Kconfig": "mainmenu \"Tiny\"\n",
    "kernel.c": kernelC(version),
    "config.awk": CONFIG_AWK,
    "unknown": "",
    "hook": "",
    ".gitignore": "*.o\n",
    ...changes
  }
  mkdirSync(directory, { recursive: true })
  put(join(directory, "image"), image(version))
  for (const [name, text] of Object.entries(files)) put(join(directory, name), text)
  return directory
}

/** An archive of such a tree, under one directory as kernel.org has them. */
export const tarballOf = (
  scratch: string,
  file: string,
  version = "6.12.3",
  changes: Record<string, string> = {}
): string => {
  writeTree(join(scratch, "packed", `linux-${version}`), version, changes)
  run("tar", ["-caf", file, "-C", join(scratch, "packed"), `linux-${version}`])
  rmSync(join(scratch, "packed"), { recursive: true })
  return file
}

/** Run git in a directory, as somebody whose settings do not matter; what it printed. */
export const git = (directory: string, ...args: ReadonlyArray<string>): string =>
  run("git", ["-C", directory, "-c", "user.name=T", "-c", "user.email=t@example.org", ...args]).toString().trim()

/** Put all files of a directory into a new repository there; the commit. */
export const commitAll = (directory: string): string => {
  git(directory, "init", "--quiet", "--initial-branch=main")
  git(directory, "add", "--all")
  git(directory, "commit", "--quiet", "--message=all")
  return git(directory, "rev-parse", "HEAD")
}
