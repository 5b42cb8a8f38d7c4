/* For LD_PRELOAD: reads of one file fail on order, whoever makes them, in Python or in a library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const char *marker = "rows.";
static int left = -1, times = 0, number = 0, seen = 0;

/* The read after `after` others fails, and so do the `count` - 1 that follow it. */
void order(int after, int count, int error) { left = after; times = count; number = error; seen = 0; }
int reads_seen(void) { return seen; }

static int fails(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    if (!strstr(path, marker)) return 0;
    seen++;
    if (left < 0 || left-- > 0 || times-- <= 0) return 0;
    left = 0;
    errno = number;
    return 1;
}

ssize_t read(int descriptor, void *to, size_t count) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "read");
    return fails(descriptor) ? -1 : real(descriptor, to, count);
}

ssize_t pread(int descriptor, void *to, size_t count, off_t at) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread");
    return fails(descriptor) ? -1 : real(descriptor, to, count, at);
}

ssize_t pread64(int descriptor, void *to, size_t count, off64_t at) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread64");
    return fails(descriptor) ? -1 : real(descriptor, to, count, at);
}
