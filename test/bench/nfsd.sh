#!/bin/bash
# nfsd.sh COMMAND [ARG...]: runs in the guest (module nfsd, loopback of its own). Serves a tmpfs with the guest kernel's own
# NFSv3 server, mounts it on $NFS over the loopback and runs COMMAND: what the paper calls NFS-std.
# NFSD_EXPORT_OPTIONS and NFSD_MOUNT_OPTIONS change how it is exported and mounted; NFSD_DISK is the device of an ext4 file system
# to serve instead; NFSD_LOCAL=1: no NFS at all, $NFS is the tmpfs.
set -u
die() { echo "nfsd.sh: $*" >&2; exit 1; }
export NFS=/mnt/nfs
mkdir -p $NFS
if [ "${NFSD_LOCAL:-0}" = 1 ]; then
  mount -t tmpfs -o mode=1777 tmpfs $NFS || die "mount tmpfs"
  "$@"
  exit
fi
mkdir -p /srv/export /run/rpcbind /run/sendsigs.omit.d /var/lib/nfs/rpc_pipefs
if [ -n "${NFSD_DISK:-}" ]; then
  mount -t ext4 "$NFSD_DISK" /srv/export && chmod 1777 /srv/export || die "mount $NFSD_DISK"
else
  mount -t tmpfs -o mode=1777 tmpfs /srv/export || die "mount tmpfs"
fi
mount -t nfsd nfsd /proc/fs/nfsd || die "no nfsd in this kernel"
rpcbind -w 2>/dev/null || rpcbind || die "rpcbind"
# All of this is written to the guest's throw-away overlay.
echo "/srv/export *(${NFSD_EXPORT_OPTIONS:-rw,async,no_root_squash,insecure,fsid=1,no_subtree_check})" >/etc/exports
printf '[mountd]\nmanage-gids=n\n' >/etc/nfs.conf # Debian's default would forget the caller's groups
rpc.mountd -N 4 -p 20048 || die "rpc.mountd"
exportfs -ra || die "exportfs"
rpc.nfsd -N 4 -V 3 4 || die "rpc.nfsd"
options=vers=3,proto=tcp,mountproto=tcp,nolock,addr=127.0.0.1,mountaddr=127.0.0.1,port=2049,mountport=20048
mount -i -t nfs -o "$options${NFSD_MOUNT_OPTIONS:+,$NFSD_MOUNT_OPTIONS}" 127.0.0.1:/srv/export $NFS || die "mount"
"$@"
rc=$?
cd / && umount $NFS || umount -l $NFS
rpc.nfsd 0
exit $rc
