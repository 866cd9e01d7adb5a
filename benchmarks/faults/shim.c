/* Stands between a process and the C library (LD_PRELOAD), for files below one folder: records every write, rename and
 * fsync in order, and makes the n-th of them fail or kill the process. Knows nothing of what the files mean.
 *
 * Record: kind (1 byte), errno of a failed call (1), inode (8), offset (8), length of path, of second path and of data
 * (4 each), then those. Kinds: O opened or created, W written, T truncated, S fsynced, R renamed, U unlinked,
 * L linked, D folder made, X folder removed, M mark of the program.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 4096, WRITE = 1, FSYNC = 2, NAME = 4, GONE = 8 };

static char root[4096];
static size_t root_length;
static char *paths[FDS];
static int log_fd = -1;
static int recording;
static long at, seen, budget;
static int failing, sticky, mask; /* failing: an errno, or -1 for kill -9 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (!found) abort();
  return found;
}

static void out(const void *data, size_t n) {
  const char *p = data;
  while (n) {
    long done = syscall(SYS_write, log_fd, p, n);
    if (done <= 0) abort();
    p += done, n -= done;
  }
}

static void record(char kind, int error, uint64_t inode, int64_t offset, const char *one, const char *two,
                   const void *data, uint32_t n) {
  if (!recording) return;
  uint32_t a = one ? strlen(one) : 0, b = two ? strlen(two) : 0;
  unsigned char head[30];
  head[0] = kind, head[1] = error;
  memcpy(head + 2, &inode, 8), memcpy(head + 10, &offset, 8), memcpy(head + 18, &a, 4), memcpy(head + 22, &b, 4);
  memcpy(head + 26, &n, 4);
  out(head, 30);
  out(one, a), out(two, b), out(data, n);
}

/* The next call of `kind` on a file of ours: 0, or the errno it has to fail with. */
static int fault(int kind) {
  if (!(mask & kind) || !failing) return 0;
  seen++;
  if (sticky ? seen < at : seen != at) return 0;
  if (failing < 0) kill(getpid(), SIGKILL), pause();
  if (budget > 0) {
    budget -= 4096;
    return 0;
  }
  return failing;
}

static int ours(const char *path) { return root_length && strncmp(path, root, root_length) == 0; }

static const char *full(int folder, const char *path, char *space) {
  if (path[0] == '/') return path;
  char link[64];
  ssize_t n;
  if (folder == AT_FDCWD) {
    if (!getcwd(space, 2048)) return path;
    n = strlen(space);
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    n = readlink(link, space, 2048);
    if (n < 0) return path;
  }
  snprintf(space + n, 4096 - n, "/%s", path);
  return space;
}

static uint64_t inode_of(int fd) {
  struct stat about;
  return fstat(fd, &about) ? 0 : about.st_ino;
}

static const char *path_of(int fd) { return fd >= 0 && fd < FDS ? paths[fd] : 0; }

/* --- what the program calls ------------------------------------------------------------------ */

void fault_root(const char *folder, const char *log) {
  snprintf(root, sizeof root, "%s", folder);
  root_length = strlen(root);
  recording = log != 0;
  if (log) log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

void fault_arm(long n, int number, int stays, int kinds) {
  pthread_mutex_lock(&lock);
  at = n, seen = 0, failing = number, sticky = stays, mask = kinds, budget = 0;
  pthread_mutex_unlock(&lock);
}

long fault_seen(void) { return seen; }

void fault_mark(const char *text) {
  pthread_mutex_lock(&lock);
  record('M', 0, 0, 0, 0, 0, text, strlen(text));
  pthread_mutex_unlock(&lock);
}

/* --- files ------------------------------------------------------------------------------------ */

static int opening(int folder, const char *path, int flags, mode_t mode) {
  char space[4096];
  const char *name = full(folder, path, space);
  if (!ours(name)) return REAL(openat)(folder, path, flags, mode);
  pthread_mutex_lock(&lock);
  struct stat about;
  int there = stat(name, &about) == 0, fd = -1, error = 0;
  if (!there && (flags & O_CREAT)) error = fault(NAME);
  if (error)
    errno = error;
  else
    fd = REAL(openat)(folder, path, flags, mode);
  if (fd >= 0 && fd < FDS) {
    free(paths[fd]);
    paths[fd] = strdup(name);
    if (!there && (flags & O_CREAT)) record('O', 0, inode_of(fd), 0, name, 0, 0, 0);
    if (there && (flags & O_TRUNC)) record('T', 0, inode_of(fd), 0, name, 0, 0, 0);
  }
  int kept = errno;
  pthread_mutex_unlock(&lock);
  errno = kept;
  return fd;
}

#define MODE                                  \
  mode_t mode = 0;                            \
  if (flags & (O_CREAT | __O_TMPFILE)) {      \
    va_list list;                             \
    va_start(list, flags);                    \
    mode = va_arg(list, mode_t);              \
    va_end(list);                             \
  }

int open(const char *path, int flags, ...) { MODE return opening(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opening(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE
  char space[4096];
  if (!ours(full(folder, path, space))) {
    static __typeof__(&openat) next;
    if (!next) next = REAL(openat);
    return next(folder, path, flags, mode);
  }
  return opening(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) { MODE return opening(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opening(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
  if (path_of(fd)) {
    pthread_mutex_lock(&lock);
    free(paths[fd]);
    paths[fd] = 0;
    pthread_mutex_unlock(&lock);
  }
  return REAL(close)(fd);
}

#define AROUND(fd, kind, type, call, after)             \
  if (!path_of(fd)) return call;                        \
  pthread_mutex_lock(&lock);                            \
  int error = fault(kind), kept;                        \
  type done = -1;                                       \
  if (error)                                            \
    errno = error;                                      \
  else                                                  \
    done = call;                                        \
  kept = errno;                                         \
  after;                                                \
  pthread_mutex_unlock(&lock);                          \
  errno = kept;                                         \
  return done;

ssize_t write(int fd, const void *data, size_t n) {
  AROUND(fd, WRITE, ssize_t, REAL(write)(fd, data, n),
         if (done > 0) record('W', 0, inode_of(fd), lseek(fd, 0, SEEK_CUR) - done, paths[fd], 0, data, done))
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
  AROUND(fd, WRITE, ssize_t, REAL(pwrite)(fd, data, n, offset),
         if (done > 0) record('W', 0, inode_of(fd), offset, paths[fd], 0, data, done))
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
  AROUND(fd, WRITE, ssize_t, REAL(pwrite64)(fd, data, n, offset),
         if (done > 0) record('W', 0, inode_of(fd), offset, paths[fd], 0, data, done))
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
  if (!path_of(fd)) return REAL(writev)(fd, parts, n);
  ssize_t all = 0; /* one by one: each is recorded, and a short count is allowed */
  for (int i = 0; i < n; i++) {
    ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
    if (done < 0) return all ? all : done;
    all += done;
    if ((size_t)done < parts[i].iov_len) break;
  }
  return all;
}
ssize_t copy_file_range(int in, off64_t *a, int to, off64_t *b, size_t n, unsigned flags) {
  if (!path_of(to)) return REAL(copy_file_range)(in, a, to, b, n, flags);
  errno = ENOSYS; /* callers fall back to read and write, which are seen */
  return -1;
}
ssize_t sendfile(int to, int in, off_t *a, size_t n) {
  if (!path_of(to)) return REAL(sendfile)(to, in, a, n);
  errno = EINVAL;
  return -1;
}
ssize_t sendfile64(int to, int in, off64_t *a, size_t n) {
  if (!path_of(to)) return REAL(sendfile64)(to, in, a, n);
  errno = EINVAL;
  return -1;
}
int ftruncate(int fd, off_t n) {
  AROUND(fd, WRITE, int, REAL(ftruncate)(fd, n), if (!done) record('T', 0, inode_of(fd), n, paths[fd], 0, 0, 0))
}
int ftruncate64(int fd, off64_t n) {
  AROUND(fd, WRITE, int, REAL(ftruncate64)(fd, n), if (!done) record('T', 0, inode_of(fd), n, paths[fd], 0, 0, 0))
}
int fsync(int fd) {
  AROUND(fd, FSYNC, int, REAL(fsync)(fd), record('S', error, inode_of(fd), 0, paths[fd], 0, 0, 0))
}
int fdatasync(int fd) {
  AROUND(fd, FSYNC, int, REAL(fdatasync)(fd), record('S', error, inode_of(fd), 0, paths[fd], 0, 0, 0))
}

/* --- names ------------------------------------------------------------------------------------ */

static int naming(char kind, const char *one, const char *two, int (*act)(void *), void *given) {
  if (!ours(one) && !(two && ours(two))) return act(given);
  pthread_mutex_lock(&lock);
  int error = fault(kind == 'U' || kind == 'X' ? GONE : NAME), done = -1, kept;
  struct stat about = {0};
  if (kind == 'U' && strstr(one, "/reserve")) budget = 4 << 20;
  if (error)
    errno = error;
  else
    done = act(given);
  kept = errno;
  if (!done) {
    stat(two ? two : one, &about);
    record(kind, 0, about.st_ino, 0, one, two, 0, 0);
  }
  pthread_mutex_unlock(&lock);
  errno = kept;
  return done;
}

struct names {
  int a, b;
  const char *one, *two;
  unsigned flags;
  mode_t mode;
};
#define N(given) ((struct names *)given)
static int do_rename(void *g) { return REAL(renameat)(N(g)->a, N(g)->one, N(g)->b, N(g)->two); }
static int do_rename2(void *g) { return REAL(renameat2)(N(g)->a, N(g)->one, N(g)->b, N(g)->two, N(g)->flags); }
static int do_unlink(void *g) { return REAL(unlinkat)(N(g)->a, N(g)->one, N(g)->flags); }
static int do_link(void *g) { return REAL(linkat)(N(g)->a, N(g)->one, N(g)->b, N(g)->two, N(g)->flags); }
static int do_mkdir(void *g) { return REAL(mkdirat)(N(g)->a, N(g)->one, N(g)->mode); }

static int two_names(char kind, struct names given, int (*act)(void *)) {
  char x[4096], y[4096];
  return naming(kind, full(given.a, given.one, x), full(given.b, given.two, y), act, &given);
}
static int one_name(char kind, struct names given, int (*act)(void *)) {
  char x[4096];
  return naming(kind, full(given.a, given.one, x), 0, act, &given);
}

int rename(const char *one, const char *two) {
  return two_names('R', (struct names){AT_FDCWD, AT_FDCWD, one, two, 0, 0}, do_rename);
}
int renameat(int a, const char *one, int b, const char *two) {
  return two_names('R', (struct names){a, b, one, two, 0, 0}, do_rename);
}
int renameat2(int a, const char *one, int b, const char *two, unsigned flags) {
  return two_names('R', (struct names){a, b, one, two, flags, 0}, do_rename2);
}
int link(const char *one, const char *two) {
  return two_names('L', (struct names){AT_FDCWD, AT_FDCWD, one, two, 0, 0}, do_link);
}
int linkat(int a, const char *one, int b, const char *two, int flags) {
  return two_names('L', (struct names){a, b, one, two, flags, 0}, do_link);
}
int unlink(const char *one) { return one_name('U', (struct names){AT_FDCWD, 0, one, 0, 0, 0}, do_unlink); }
int unlinkat(int a, const char *one, int flags) {
  return one_name(flags & AT_REMOVEDIR ? 'X' : 'U', (struct names){a, 0, one, 0, flags, 0}, do_unlink);
}
int rmdir(const char *one) { return one_name('X', (struct names){AT_FDCWD, 0, one, 0, AT_REMOVEDIR, 0}, do_unlink); }
int mkdir(const char *one, mode_t mode) {
  return one_name('D', (struct names){AT_FDCWD, 0, one, 0, 0, mode}, do_mkdir);
}
int mkdirat(int a, const char *one, mode_t mode) {
  return one_name('D', (struct names){a, 0, one, 0, 0, mode}, do_mkdir);
}
