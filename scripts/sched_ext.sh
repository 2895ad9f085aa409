# For kernel.sh, schedulers.sh and judges.sh, which define `say`: sh has no functions of other files but by `.`

# scratch DIRECTORY: makes $work, a new directory in that one, which is gone when the script ends.
scratch() {
  mkdir -p "$1"
  work="$(mktemp -d "$1/.tmp-XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
}

# packages CACHE SUITE WORD…: gives apt-get these words in $work, by the apt for a suite that ktstr keeps in its cache of kernels.
packages() {
  state="$1/.apt/$2" suite=$2
  shift 2
  # makes that apt's state, and brings its lists up to date
  node dist/bin/ktstr.cjs kernel search "$suite/*" >/dev/null
  say "$suite: apt-get $*"
  (cd "$work" && apt-get -c "$state/apt.conf" -o Dir::Etc::sourcelist="$state/sources.list" \
    -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -qq "$@")
}

# sched_ext CLANG SOURCE IMAGE DIRECTORY SCHEDULER…: builds schedulers of tools/sched_ext in the archive of a kernel's source,
# with the types of a kernel image, in $work, and moves them to a directory; with them the bpftool of that source, which its makefile makes.
# The directory is complete or not there at all; whoever was first wins.
sched_ext() {
  clang=$1 source=$2 image=$3 directory=$4
  shift 4
  say "building $*"
  tree="$(basename "$source" .tar.xz)"
  # the tools alone are not enough: libbpf generates a header by scripts/bpf_doc.py, bpftool compiles kernel/bpf/disasm.c
  tar -xf "$source" -C "$work" "$tree/tools" "$tree/scripts" "$tree/kernel/bpf"
  sh "$work/$tree/scripts/extract-vmlinux" "$image" >"$work/vmlinux"
  mkdir "$work/out"
  # LLVM_STRIP would only strip a bpftool that is not kept; without the libraries of SKIP_* bpftool cannot
  # disassemble or sign; without BPF programs of its own it does not list their maps among those of the guest
  make -s -C "$work/$tree/tools/sched_ext" -j "$(nproc)" O="$work/out" VMLINUX_BTF="$work/vmlinux" \
    CLANG="$clang" LLVM_STRIP=true SKIP_LLVM=1 SKIP_LIBBFD=1 SKIP_CRYPTO=1 \
    feature-clang-bpf-co-re=0 "$@" >"$work/log" 2>&1 || {
    tail -n 30 "$work/log" >&2
    exit 1
  }
  mv "$work/out/build/sbin/bpftool" "$work/out/build/bin/"
  mv -T "$work/out/build/bin" "$directory" 2>/dev/null || [ -d "$directory" ]
  say "built in $directory"
}
