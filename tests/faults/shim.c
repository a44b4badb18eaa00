/* Preloaded into a process, this breaks one call that changes a file, and perhaps all after it.
 *
 * Nothing happens until break_calls() is called. From then on every call that opens a file for
 * writing, writes to it, syncs, cuts, names or removes one is counted, over all threads, if the
 * file lies in the given folder. Reading, pipes, sockets and the rest of the machine are left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { DIE = -1, DIE_HALF_WAY = -2, WRITE_HALF = -3 }; /* a positive number is an errno */

static atomic_long calls;
static long target; /* which call to break; 0: none */
static int fault, log_to = -1;
static _Bool for_good;
static char folder[4096];

void break_calls(const char *in, long at, int how, int on, int log) {
    snprintf(folder, sizeof folder, "%s", in);
    target = at, fault = how, for_good = on != 0, log_to = log;
    atomic_store(&calls, 0);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Count a call, and tell what to do to it: 0 for nothing. */
static int counted(const char *call, const char *path) {
    size_t length_in = strlen(folder);
    if (!length_in || strncmp(path, folder, length_in) || (path[length_in] && path[length_in] != '/')) return 0;
    long now = atomic_fetch_add(&calls, 1) + 1;
    if (log_to >= 0) {
        char line[4200];
        int length = snprintf(line, sizeof line, "%s %s\n", call, path[length_in] ? path + length_in + 1 : ".");
        syscall(SYS_write, log_to, line, length);
    }
    return target && (now == target || (for_good && now > target)) ? fault : 0;
}

static int on_path(const char *call, int at, const char *path) {
    char whole[4200];
    if (path[0] == '/') return counted(call, path);
    if (at != AT_FDCWD || !getcwd(whole, sizeof whole / 2)) return 0;
    size_t length = strlen(whole);
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return counted(call, whole);
}

static int on_file(const char *call, int fd) {
    char name[64], path[4096];
    if (!folder[0]) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, name, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return counted(call, path);
}

/* A call other than a write cannot be done by half. */
static int refused(int what) {
    if (what == DIE || what == DIE_HALF_WAY) die();
    if (what > 0) errno = what;
    return what > 0;
}

static ssize_t half(int what, int fd, const void *data, size_t n, off_t at) {
    size_t some = n > 1 ? n / 2 : n;
    ssize_t done = at < 0 ? syscall(SYS_write, fd, data, some) : syscall(SYS_pwrite64, fd, data, some, at);
    if (what == DIE_HALF_WAY) die();
    return done;
}

ssize_t write(int fd, const void *data, size_t n) {
    int what = on_file("write", fd);
    if (what == WRITE_HALF || what == DIE_HALF_WAY) return half(what, fd, data, n, -1);
    return refused(what) ? -1 : syscall(SYS_write, fd, data, n);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
    int what = on_file("pwrite", fd);
    if (what == WRITE_HALF || what == DIE_HALF_WAY) return half(what, fd, data, n, at);
    return refused(what) ? -1 : syscall(SYS_pwrite64, fd, data, n, at);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }

#define REAL(name, ...) ((int (*)())dlsym(RTLD_NEXT, name))(__VA_ARGS__)

int fsync(int fd) { return refused(on_file("fsync", fd)) ? -1 : REAL("fsync", fd); }
int fdatasync(int fd) { return refused(on_file("fdatasync", fd)) ? -1 : REAL("fdatasync", fd); }
int ftruncate64(int fd, off_t n) { return refused(on_file("ftruncate", fd)) ? -1 : syscall(SYS_ftruncate, fd, n); }
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
int fallocate64(int fd, int mode, off_t at, off_t n) { return refused(on_file("fallocate", fd)) ? -1 : syscall(SYS_fallocate, fd, mode, at, n); }
int fallocate(int fd, int mode, off_t at, off_t n) { return fallocate64(fd, mode, at, n); }
int fchmod(int fd, mode_t mode) { return refused(on_file("fchmod", fd)) ? -1 : REAL("fchmod", fd, mode); }
int fchown(int fd, uid_t user, gid_t group) { return refused(on_file("fchown", fd)) ? -1 : REAL("fchown", fd, user, group); }
int unlink(const char *path) { return refused(on_path("unlink", AT_FDCWD, path)) ? -1 : REAL("unlink", path); }
int unlinkat(int at, const char *path, int flags) { return refused(on_path("unlink", at, path)) ? -1 : REAL("unlinkat", at, path, flags); }
int rename(const char *old, const char *new) { return refused(on_path("rename", AT_FDCWD, new)) ? -1 : REAL("rename", old, new); }
int link(const char *old, const char *new) { return refused(on_path("link", AT_FDCWD, new)) ? -1 : REAL("link", old, new); }
int linkat(int from, const char *old, int at, const char *new, int flags) { return refused(on_path("link", at, new)) ? -1 : REAL("linkat", from, old, at, new, flags); }
int mkdir(const char *path, mode_t mode) { return refused(on_path("mkdir", AT_FDCWD, path)) ? -1 : REAL("mkdir", path, mode); }

static int opened(int at, const char *path, int flags, mode_t mode) {
    if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) && refused(on_path("open", at, path))) return -1;
    return syscall(SYS_openat, at, path, flags, mode);
}

#define MODE(last) ({ va_list more; va_start(more, last); mode_t mode = va_arg(more, mode_t); va_end(more); mode; })

int open(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int at, const char *path, int flags, ...) { return opened(at, path, flags, MODE(flags)); }
int openat64(int at, const char *path, int flags, ...) { return opened(at, path, flags, MODE(flags)); }
