/* Preloaded into ark-job by a scenario: kills the process at the n-th call that changes what a directory holds.
 *
 * strace can inject a signal, too, but counts calls for each thread by itself; the n-th of a process needs this.
 * KILL_AT is n, counted from 1 over all threads; without it nothing is killed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void count(void)
{
    static atomic_long calls;
    const char *at = getenv("KILL_AT");
    if (at && atomic_fetch_add(&calls, 1) + 1 == atol(at))
        kill(getpid(), SIGKILL);
}

#define COUNTED(result, name, parameters, arguments)                     \
    result name parameters                                               \
    {                                                                    \
        result (*next) parameters = dlsym(RTLD_NEXT, #name);             \
        count();                                                         \
        return next arguments;                                           \
    }

COUNTED(int, link, (const char *from, const char *to), (from, to))
COUNTED(int, linkat, (int f, const char *from, int t, const char *to, int flags), (f, from, t, to, flags))
COUNTED(int, unlink, (const char *path), (path))
COUNTED(int, unlinkat, (int directory, const char *path, int flags), (directory, path, flags))
COUNTED(int, mkdir, (const char *path, mode_t mode), (path, mode))
COUNTED(int, fsync, (int file), (file))
COUNTED(int, fdatasync, (int file), (file))
