#!/bin/bash
# The relay beside the kernel it serves, with little memory: what the kernel must write back to free memory goes through a
# process that needs memory to send it. $RELAY_BIN and $RELAY_DIR: the program and its directory.
set -u
. "$GUEST_LIB"
nfs=/mnt/beside
mkdir -p $nfs

start_relay() {
  cp -r "$RELAY_DIR" "$TMPDIR/relay" || return
  mkfifo "$TMPDIR/said"
  "$RELAY_BIN" run --config "$TMPDIR/relay/relay.toml" >"$TMPDIR/said" 2>"$GUEST_OUT/relay.log" &
  relay=$!
  echo -1000 >/proc/$relay/oom_score_adj # as bfs-relay.service has it
  exec 7<"$TMPDIR/said"
  read -r line <&7
  [ "$line" = ready ]
}

mounted() {
  local timeo=$((600 * GUEST_PATIENCE)) # in tenths of a second; the kernel takes 6000 at most
  [ $timeo -le 6000 ] || timeo=6000
  mount -i -t nfs -o timeo=$timeo,vers=3,proto=tcp,mountproto=tcp,nolock,port=12049,mountport=12049,addr=127.0.0.1,mountaddr=127.0.0.1 127.0.0.1:/export $nfs &&
    mkdir $nfs/beside
}

# Half as much again as there is memory, written without a pause, then read back.
write_under_pressure() {
  local total
  total=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
  echo "$total MB of memory, writing $((total * 3 / 2)) MB"
  perl -e '
    my ($path, $mb) = @ARGV;
    open my $h, ">", $path or die "create: $!\n";
    for my $i (1 .. $mb) { syswrite($h, pack("N", $i) x (1 << 18)) == 1 << 20 or die "write: $!\n" }
    close $h or die "close: $!\n";
    print "written after ", time - $^T, " s\n";
    open $h, "<", $path or die "open: $!\n";
    for my $i (1 .. $mb) { sysread($h, my $b, 1 << 20) == 1 << 20 or die "read: $!\n"; $b eq pack("N", $i) x (1 << 18) or die "megabyte $i differs\n" }
  ' $nfs/beside/big $((total * 3 / 2)) || return
  drop
  rm $nfs/beside/big
}

# The kernel complains of a process that is blocked for so many seconds.
hung=/proc/sys/kernel/hung_task_timeout_secs
[ ! -w $hung ] || echo $((120 * GUEST_PATIENCE)) >$hung

echo "begin a relay starts on the client machine"
if start_relay; then
  echo "ok a relay starts on the client machine"
  check "the kernel mounts it" mounted
  check "files larger than memory" write_under_pressure
  check "the kernel has no complaint" bash -c '! dmesg | grep -E "not responding|blocked for more|out of memory|Out of memory"'
  umount $nfs
  kill $relay && wait $relay
else
  echo "FAIL a relay starts on the client machine: $(tail -n 3 "$GUEST_OUT/relay.log")"
  exit 1
fi
