# Sourced in the guest (busybox sh): starts sched_ext schedulers and gives them work.

# Run a command until it succeeds, ten times a second, at most 600 times.
await() {
  tries=600
  until "$@"; do
    tries=$((tries - 1))
    if [ $tries = 0 ]; then
      echo "waited in vain: $*"
      exit 1
    fi
    sleep 0.1
  done
}

enabled() { [ "$(cat /sys/kernel/sched_ext/state)" = enabled ]; }

# start COMMAND…: runs a scheduler in the background until the kernel schedules by it; $scheduler is its process.
start() {
  "$@" &
  scheduler=$!
  await enabled
  echo "enabled: $(cat /sys/kernel/sched_ext/root/ops)"
}

# Computes for a moment.
work() {
  i=0
  while [ $i -lt 2000 ]; do i=$((i + 1)); done
}
