#!/bin/busybox sh
# The first process of the machine that has KVM: the host's root, read-only over 9p, a writable /run, and one job in it.
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
# without the virtual GIF: with it, QEMU 7.2 delivers interrupts to a guest that has them off, and guests with 2 CPUs die
for module in /modules/*; do $B insmod $module $(case $module in *kvm-amd*) echo vgif=0;; esac) || echo "INSIDE cannot insert $module"; done
# khugepaged rearranges guests' memory under them: where the CPU is emulated it was seen to hang, and guests to die of it
for wait in scan alloc; do echo 1000000000 > /sys/kernel/mm/transparent_hugepage/khugepaged/${wait}_sleep_millisecs; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose root /mnt || echo "INSIDE cannot mount the root"
$B mount -t proc proc /mnt/proc; $B mount -t sysfs sys /mnt/sys; $B mount -t devtmpfs dev /mnt/dev; $B mount -t tmpfs run /mnt/run
$B mkdir -p /mnt/dev/pts; $B mount -t devpts -o ptmxmode=666 pts /mnt/dev/pts
TMPDIR=/run $B chroot /mnt /bin/sh -c "$($B cat /job)"
echo "INSIDE_EXIT=$?"
$B poweroff -f
