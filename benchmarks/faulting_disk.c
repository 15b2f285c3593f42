/* Preloaded into processes: the n-th file operation below a folder fails, once, over all processes.
 *
 * FAULT_STATE names a file of one `struct state`, which is shared by mapping: whoever steers the test writes it. Interposed
 * are the C library's calls, so the I/O of SQLite, Arrow and Python is hit alike.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

struct state {
    long armed, count, target, code, hits;
    char folder[1024], what[64];
};

static struct state *state;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULT_STATE");
    if (!file) return;
    int handle = REAL(open)(file, O_RDWR | O_CLOEXEC);
    if (handle < 0) return;
    void *place = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (place != MAP_FAILED) state = place;
}

static int inside(const char *path) { return path && strncmp(path, state->folder, strlen(state->folder)) == 0; }

static int fails(const char *what, const char *path) {
    if (!state || !state->armed || !inside(path)) return 0;
    if (__sync_add_and_fetch(&state->count, 1) != state->target) return 0;
    __sync_add_and_fetch(&state->hits, 1);
    snprintf(state->what, sizeof state->what, "%s", what);
    errno = (int)state->code;
    return 1;
}

static int handle_fails(const char *what, int handle) {
    char link[64], path[PATH_MAX];
    if (!state || !state->armed) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t size = readlink(link, path, sizeof path - 1);
    errno = before;
    if (size < 0) return 0;
    path[size] = 0;
    return fails(what, path);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        MODE(flags) \
        return fails("open", path) ? -1 : REAL(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        MODE(flags) \
        return fails("open", path) ? -1 : REAL(name)(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { return fails("open", path) ? NULL : REAL(name)(path, mode); }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int handle, const void *data, size_t size) {
    return handle_fails("write", handle) ? -1 : REAL(write)(handle, data, size);
}

#define PWRITE(name, offset_type) \
    ssize_t name(int handle, const void *data, size_t size, offset_type offset) { \
        return handle_fails("pwrite", handle) ? -1 : REAL(name)(handle, data, size, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_HANDLE(name, what) \
    int name(int handle) { return handle_fails(what, handle) ? -1 : REAL(name)(handle); }
ON_HANDLE(fsync, "fsync")
ON_HANDLE(fdatasync, "fdatasync")

#define TRUNCATE(name, size_type) \
    int name(int handle, size_type size) { return handle_fails("ftruncate", handle) ? -1 : REAL(name)(handle, size); }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define TWO_PATHS(name) \
    int name(const char *from, const char *to) { return fails(#name, to) ? -1 : REAL(name)(from, to); }
TWO_PATHS(rename)
TWO_PATHS(link)

int renameat(int a, const char *from, int b, const char *to) {
    return fails("rename", to) ? -1 : REAL(renameat)(a, from, b, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    return fails("link", to) ? -1 : REAL(linkat)(a, from, b, to, flags);
}

int unlink(const char *path) { return fails("unlink", path) ? -1 : REAL(unlink)(path); }

int mkdir(const char *path, mode_t mode) { return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode); }
