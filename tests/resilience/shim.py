"""A machine on which something is wrong, for one command: its clock, a disk, or that it has no /dev/shm.

A small library that is loaded before the C library answers in its place; it needs Linux and a C compiler.
"""

from __future__ import annotations

import atexit
import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

AVAILABLE = sys.platform == "linux" and shutil.which("cc") is not None
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) (next ? next : (next = dlsym(RTLD_NEXT, #name)))

static long left = -1;

static int fault(void) { const char *number = getenv("FAULT_ERRNO"); return number ? atoi(number) : 0; }

static int below(const char *path) {
    const char *folder = getenv("FAULT_BELOW");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int here(int file) {
    char link[64], path[4096];
    if (!fault()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static long room(void) {
    if (left < 0) { const char *bytes = getenv("FAULT_AFTER_BYTES"); left = bytes ? atol(bytes) : 0; }
    return left;
}

/* How much of a write there is room for; -1 with errno set where there is none. */
static ssize_t take(int file, size_t size) {
    if (size == 0 || !here(file)) return size;
    long before = room();
    if (before == 0) { errno = fault(); return -1; }
    left = before > (long)size ? before - (long)size : 0;
    return before < (long)size ? before : (ssize_t)size;
}

/* Whether a change of a folder is refused: on a disk that is read-only, once it is. */
static int refused(const char *path) {
    char whole[4096];
    if (fault() != EROFS || !path) return 0;
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole - 1)) return 0;
        strncat(whole, "/", sizeof whole - strlen(whole) - 1);
        strncat(whole, path, sizeof whole - strlen(whole) - 1);
        path = whole;
    }
    if (!below(path) || room() > 0) return 0;
    errno = EROFS;
    return 1;
}

ssize_t write(int file, const void *data, size_t size) {
    static ssize_t (*next)(int, const void *, size_t);
    ssize_t fits = take(file, size);
    return fits < 0 ? -1 : NEXT(write)(file, data, fits);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    static ssize_t (*next)(int, const void *, size_t, off_t);
    ssize_t fits = take(file, size);
    return fits < 0 ? -1 : NEXT(pwrite)(file, data, fits, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) { return pwrite(file, data, size, at); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    static ssize_t (*next)(int, const struct iovec *, int);
    size_t size = 0;
    for (int each = 0; each < count; each++) size += parts[each].iov_len;
    if (take(file, size) < 0) return -1;
    return NEXT(writev)(file, parts, count);
}

ssize_t sendfile(int target, int source, off_t *from, size_t size) {
    static ssize_t (*next)(int, int, off_t *, size_t);
    if (take(target, size ? 1 : 0) < 0) return -1;
    return NEXT(sendfile)(target, source, from, size);
}

ssize_t sendfile64(int target, int source, off64_t *from, size_t size) { return sendfile(target, source, from, size); }

ssize_t copy_file_range(int source, off64_t *from, int target, off64_t *to, size_t size, unsigned flags) {
    static ssize_t (*next)(int, off64_t *, int, off64_t *, size_t, unsigned);
    if (take(target, size ? 1 : 0) < 0) return -1;
    return NEXT(copy_file_range)(source, from, target, to, size, flags);
}

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        static int (*next)(const char *, int, ...);                         \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                       \
        if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && refused(path)) return -1; \
        return NEXT(name)(path, flags, mode);                               \
    }
OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode) {
    static int (*next)(const char *, mode_t);
    return refused(path) ? -1 : NEXT(mkdir)(path, mode);
}

int unlink(const char *path) {
    static int (*next)(const char *);
    return refused(path) ? -1 : NEXT(unlink)(path);
}

int rename(const char *path, const char *to) {
    static int (*next)(const char *, const char *);
    return refused(to) ? -1 : NEXT(rename)(path, to);
}

int link(const char *path, const char *to) {
    static int (*next)(const char *, const char *);
    return refused(to) ? -1 : NEXT(link)(path, to);
}

/* Where there is no /dev/shm. */
int shm_open(const char *name, int flags, mode_t mode) {
    static int (*next)(const char *, int, mode_t);
    if (getenv("NO_SHARED_MEMORY")) { errno = ENOENT; return -1; }
    return NEXT(shm_open)(name, flags, mode);
}

void *sem_open(const char *name, int flags, ...) {
    static void *(*next)(const char *, int, ...);
    if (getenv("NO_SHARED_MEMORY")) { errno = ENOSYS; return 0; }
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    unsigned value = va_arg(rest, unsigned);
    va_end(rest);
    return NEXT(sem_open)(name, flags, mode, value);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    const char *shift = getenv("CLOCK_SHIFT_S");
    int code = NEXT(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME && shift) now->tv_sec += atol(shift);
    return code;
}

time_t time(time_t *target) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (target) *target = now.tv_sec;
    return now.tv_sec;
}
"""


@functools.cache
def _library() -> Path:
    folder = tempfile.mkdtemp(prefix="shim-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = Path(folder) / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-w", "-xc", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=_SOURCE, text=True, check=True)
    return library


def wrong_clock(seconds: int) -> dict[str, str]:
    """The variables of a command whose clock is wrong by so much."""
    return {"LD_PRELOAD": str(_library()), "CLOCK_SHIFT_S": str(seconds)} if seconds else {}


def full_disk(below: Path, after_bytes: int = 0) -> dict[str, str]:
    """The variables of a command for which the disk that holds a folder has room for so much."""
    return _disk(errno.ENOSPC, below, after_bytes)


def read_only_disk(below: Path, after_bytes: int = 0) -> dict[str, str]:
    """The variables of a command for which the disk that holds a folder turns read-only after so much was written."""
    return _disk(errno.EROFS, below, after_bytes)


def no_shared_memory() -> dict[str, str]:
    """The variables of a command on a machine without /dev/shm."""
    return {"LD_PRELOAD": str(_library()), "NO_SHARED_MEMORY": "1"}


def _disk(number: int, below: Path, after_bytes: int) -> dict[str, str]:
    place = os.path.realpath(below)
    return {
        "LD_PRELOAD": str(_library()), "FAULT_ERRNO": str(number), "FAULT_BELOW": place,
        "FAULT_AFTER_BYTES": str(after_bytes),
    }  # fmt: skip
