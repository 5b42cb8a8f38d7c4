/* For LD_PRELOAD: pyarrow aborts where it reads the first bytes of a file named kills*. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void look(int descriptor, off_t at, void *caller) {
    char link[64], path[4096];
    Dl_info from;
    if (at > 64 || !dladdr(caller, &from) || !strstr(from.dli_fname, "libarrow")) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return;
    path[size] = 0;
    if (strstr(path, "/kills")) abort();
}

ssize_t pread(int descriptor, void *to, size_t count, off_t at) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread");
    look(descriptor, at, __builtin_return_address(0));
    return real(descriptor, to, count, at);
}

ssize_t pread64(int descriptor, void *to, size_t count, off64_t at) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread64");
    look(descriptor, at, __builtin_return_address(0));
    return real(descriptor, to, count, at);
}
