#!/bin/bash
# PID 1 of the guest. It mounts what the script needs, runs it, leaves its exit code in $GUEST_IO/rc, and
# switches the guest off. It runs twice: first on the bare root, then again inside an overlay above it.
# Kernel command line: guest_io=DIR guest_out=DIR (directories of the host).
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8
IO=/run/io

say() { echo "guest: $*" >>$IO/output; }

switch_off() {
  sync
  ip link set vec0 down 2>/dev/null # a packet that comes while it powers down may keep it from doing so
  echo 1 >/proc/sys/kernel/sysrq
  echo o >/proc/sysrq-trigger
  sleep 5 # not a limit: a guest without power runs no further
  exec /sbin/halt -f -p
}

first_stage() {
  mountpoint -q /proc || mount -t proc proc /proc
  mountpoint -q /sys || mount -t sysfs sysfs /sys
  mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
  mount -t tmpfs tmpfs /run
  mkdir -p $IO /run/out /run/over
  mount -t hostfs none $IO -o "$guest_io" && mount -t hostfs none /run/out -o "$guest_out" || switch_off
  local module dir
  while read -r module; do insmod "$module" || say "insmod $module failed"; done <$IO/modules
  mount -t tmpfs tmpfs /run/over
  mkdir /run/over/{upper,work,root}
  if ! mount -t overlay overlay -o lowerdir=/,upperdir=/run/over/upper,workdir=/run/over/work /run/over/root; then
    say "no overlay file system"
    switch_off
  fi
  for dir in proc sys dev run; do mount --rbind /$dir /run/over/root/$dir; done
  exec chroot /run/over/root /usr/bin/env guest_stage=2 /bin/bash $IO/init.sh
}

places() {
  mkdir -p /dev/shm /dev/pts /run/tmp /run/lock
  chmod 1777 /run/tmp
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  mount -t devpts devpts /dev/pts
  ln -sfn /proc/self/fd /dev/fd
  ln -sfn /proc/self/fd/0 /dev/stdin
  ln -sfn /proc/self/fd/1 /dev/stdout
  ln -sfn /proc/self/fd/2 /dev/stderr
  mount -t tmpfs tmpfs /mnt
  mount -t tmpfs -o mode=1777 tmpfs /var/tmp
}

network() {
  ip link set lo up
  ip link set vec0 mtu "$MTU" up
  ip addr add "$GUEST_ADDR/30" dev vec0
  ip route add default via "$GUEST_HOST"
  if [ "$OWN_LOOPBACK" = 0 ]; then # 127.0.0.1 is the host's
    echo 1 >/proc/sys/net/ipv4/conf/vec0/route_localnet
    ip addr flush dev lo
    ip route add 127.0.0.0/8 via "$GUEST_HOST" src "$GUEST_ADDR"
  fi
}

# mount -i: without the mount.nfs helper; the kernel speaks the MOUNT protocol itself.
mounts() {
  local at source options
  while read -r at source options; do
    mkdir -p "$at"
    timeout $((60 * GUEST_PATIENCE)) mount -i -t nfs -o "$options" "$source" "$at" 2>>$IO/output && continue
    say "mounting $source ($options) failed"
    return 1
  done <$IO/mounts
}

unmounts() {
  local at rest
  while read -r at rest; do timeout $((30 * GUEST_PATIENCE)) umount "$at" 2>/dev/null || umount -f -l "$at" 2>/dev/null; done < <(tac $IO/mounts)
}

[ "${guest_stage:-1}" = 2 ] || first_stage
exec </dev/null
. $IO/conf
places
network
rc=125
if mounts; then
  cd "$WORKDIR" || cd /
  TMPDIR=/run/tmp GUEST_OUT=/run/out GUEST_LIB=$IO/lib.sh bash $IO/job >>$IO/output 2>&1
  rc=$?
  cd /
fi
unmounts
echo $rc >$IO/rc
switch_off
