// SPDX-License-Identifier: Apache-2.0

// Loaded into user-mode Linux on processors whose extended registers take more than the 2696 bytes
// that it keeps of each process: see ../xstate.go.

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEK_FIRST = 1, PEEK_LAST = 3, GETREGSET = 0x4204, SETREGSET = 0x4205, NT_X86_XSTATE = 0x202 };

static unsigned char all[1 << 16];

// ptrace is the C library's. To set extended registers, of which the caller has the beginning only,
// it sets the rest to what it is.
long ptrace(int request, ...) {
  va_list more;
  va_start(more, request);
  long pid = va_arg(more, int), peeked, done;
  void *addr = va_arg(more, void *), *data = va_arg(more, void *);
  va_end(more);
  int peeks = request >= PEEK_FIRST && request <= PEEK_LAST;
  if (peeks) data = &peeked;
  if (request == SETREGSET && addr == (void *)NT_X86_XSTATE) {
    struct iovec *given = data, whole = {all, sizeof all};
    if (syscall(SYS_ptrace, GETREGSET, pid, addr, &whole) < 0) return -1;
    if (given->iov_len < whole.iov_len) {
      memcpy(all, given->iov_base, given->iov_len);
      return syscall(SYS_ptrace, SETREGSET, pid, addr, &whole);
    }
  }
  done = syscall(SYS_ptrace, request, pid, addr, data);
  if (done < 0 || !peeks) return done;
  errno = 0;
  return peeked;
}
