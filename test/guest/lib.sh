# Functions for scripts that run in the guest: . "$GUEST_LIB"

# check NAME COMMAND...: run a check and say what became of it. Its output is shown if it fails.
check() {
  local name=$1 out=$TMPDIR/check.$$ rc
  shift
  echo "begin $name"
  ("$@") >"$out" 2>&1
  rc=$?
  head -n 40 "$out" | sed 's/^/  | /'
  if [ $rc = 0 ]; then echo "ok $name"; else echo "FAIL $name: $* ended with $rc: $(tail -n 1 "$out")"; fi
}

# ask WORDS...: have the test on the host do something, and wait until it is done. Prints its answer.
ask() {
  local answer
  exec 9<>"/dev/tcp/$GUEST_HOST/$GUEST_ASK" || return 1
  echo "$*" >&9
  read -r answer <&9 || answer="err no answer"
  exec 9>&-
  case $answer in
    "ok "*) echo "${answer#ok }" ;;
    *) echo "ask $*: ${answer#err }" >&2; return 1 ;;
  esac
}

# as UID[:GID[,GID...]] COMMAND...: run a command as another user, the first group being the primary one.
as() {
  local who=$1 uid gids gid
  shift
  uid=${who%%:*} gids=${who#*:}
  gid=${gids%%,*}
  setpriv --reuid "$uid" --regid "$gid" --groups "$gids" "$@"
}

# drop: forget everything this kernel remembers, so that the next read asks the server.
drop() { sync && echo 3 >/proc/sys/vm/drop_caches; }

die() { echo "$*" >&2; exit 1; }

# want WHAT GOT WANTED: both must be the same text.
want() { [ "$2" = "$3" ] || die "$1: got '$2', want '$3'"; }

# refused TEXT COMMAND...: the command must fail, and its message must hold TEXT.
refused() {
  local text=$1 message
  shift
  if message=$("$@" 2>&1); then die "$* was allowed"; fi
  case $message in *"$text"*) ;; *) die "$*: got '$message', want '$text'" ;; esac
}

# not_run NAME WHY...: a check that this machine cannot do.
not_run() { echo "begin $1"; echo "skip $1: ${*:2}"; }
