#!/bin/bash
# Trees: copy sources, compile them, compare byte for byte, archive, keep them in git, remove them.
# $TREE: a source tree to copy; $NFS1: the same export through another relay.
set -u
. "$GUEST_LIB"
work=$NFS/trees other=${NFS1:-$NFS}/trees
mkdir -p "$work" || exit 1
tree=${TREE:?which tree to copy}

# listing DIR: every name with its type, mode, size, time and link target.
listing() { (cd "$1" && find . -printf '%P %y %m %s %T@ %l\n' | sed -E 's/^( d [0-7]+) [0-9]+/\1 -/; s/^([^ ]+ d [0-7]+) [0-9]+/\1 -/' | LC_ALL=C sort); }

# alike A B: the same names, attributes and bytes.
alike() {
  diff <(listing "$1") <(listing "$2") || die "attributes of $1 and $2 differ"
  diff -r --no-dereference "$1" "$2" || die "contents of $1 and $2 differ"
}

copy() {
  cp -a "$tree" "$work/copy" || return
  drop || return
  alike "$tree" "$work/copy" || return
  alike "$tree" "$other/copy" || return
  echo "$(find "$tree" -type f | wc -l) files, $(du -sk --apparent-size "$tree" | cut -f1) kB"
}

# program DIR: a generated program of 40 C files in 8 directories.
program() {
  perl -e '
    my $d = shift; mkdir $d; mkdir "$d/d$_" for 0 .. 7;
    open my $h, ">", "$d/all.h"; print $h "int f$_(int);\n" for 0 .. 39; close $h;
    for my $i (0 .. 39) {
      open $h, ">", "$d/d" . $i % 8 . "/f$i.c";
      print $h "#include \"../all.h\"\n";
      print $h "static int g$_(int n) { int i, s = $_; for (i = 0; i < n; i++) s = s * 31 + i; return s & 0xff; }\n" for 0 .. 30;
      print $h "int f$i(int n) { return ", join(" + ", map "g$_(n)", 0 .. 30), $i ? " + f" . ($i - 1) . "(n)" : "", "; }\n";
    }
    open $h, ">", "$d/main.c"; print $h "#include <stdio.h>\n#include \"all.h\"\nint main(void) { printf(\"%d\\n\", f39(17)); return 0; }\n";
    open $h, ">", "$d/Makefile";
    print $h "O = main.o ", join(" ", map "d" . $_ % 8 . "/f$_.o", 0 .. 39), "\n";
    print $h "prog: \$(O)\n\ttcc -o \$@ \$(O)\n\n%.o: %.c all.h\n\ttcc -c -o \$@ \$<\n";
  ' "$1"
}

compile() {
  program "$TMPDIR/program" && cp -r "$TMPDIR/program" "$work/program" || return
  make -s -C "$TMPDIR/program" && make -s -C "$work/program" || return
  drop
  diff -r "$TMPDIR/program" "$work/program" || die "compiled on NFS, files differ"
  want "what the program prints" "$("$work/program/prog")" "$("$TMPDIR/program/prog")"
  want "what is left to make" "$(make -C "$work/program" | grep -v directory)" "make: 'prog' is up to date."
}

archive() {
  tar -C "$work" -cf "$work/a.tar" copy || return
  mkdir "$work/unpacked" && tar -C "$work/unpacked" -xpf "$work/a.tar" || return
  drop
  alike "$tree" "$work/unpacked/copy" || return
  tar -C "$work/unpacked" -df "$work/a.tar" || die "tar --diff finds differences"
}

keep_in_git() {
  export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
  export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
  cd "$work/unpacked/copy" && git init -q . && git add -A && git commit -qm one || return
  echo more >more && git add more && git commit -qm two && git gc -q || return
  drop
  git fsck --full --strict || return
  want "what has changed" "$(git status --porcelain)" ""
  git clone -q --no-hardlinks "$work/unpacked/copy" "$other/clone" || return
  want "the clone's head" "$(git -C "$other/clone" rev-parse HEAD)" "$(git rev-parse HEAD)"
  diff -r -x .git . "$work/clone"
}

remove() {
  cd / && rm -r "$work" || return
  drop
  [ ! -e "$work" ] || die "$work is still there"
  want "left in the other mount" "$(ls -A "${NFS1:-$NFS}" | grep -x trees)" ""
}

check "copy a source tree and compare it" copy
check "compile it on the mount" compile
check "archive and unpack" archive
if command -v git >/dev/null; then check "keep it in git" keep_in_git; else not_run "keep it in git" "git is not installed"; fi
check "remove the trees" remove
