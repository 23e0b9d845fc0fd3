// Makes calls on files below a folder fail, as a disk would. Loaded into a server by LD_PRELOAD.
//
//   FAULTDISK_FOLDER    the folder; its path as the server was given it
//   FAULTDISK_CONTROL   a file with a fault in each line; read anew at each call, so that it may be
//                       replaced (by rename) while the server runs
//
// A fault: CALL NAME SKIP TIMES WHAT
//   CALL    open, read, pwrite, fdatasync, fsync, fallocate, rename, mkdir, unlink, ftruncate; `*`:
//           any of them
//   NAME    the path behind the folder begins with this; `*`: any, and the folder itself
//   SKIP    so many calls that match go well first
//   TIMES   so many then fail; 0: all
//   WHAT    an errno by number; `short:N`: no more than N bytes are taken; `kill`: the process ends
//           by SIGKILL before the call, `killafter` behind it; `sleep:MS`: it takes so long
//
// Calls are counted from when the control file was last replaced. Each fault that strikes adds a
// line `CALL PATH` to the file CONTROL.hits.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define FAULTS_MAX 16
#define TEXT_MAX 2048

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char text_seen[TEXT_MAX];
static long counts[FAULTS_MAX];

typedef struct {
    int code;        // errno; 0: the call is to be made
    long bytes_max;  // of a write or read; -1: all
    int kills_after;
} verdict;

static long (*real_syscall(void))(long, ...) {
    static long (*found)(long, ...);
    if (!found) found = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return found;
}

static ssize_t load(const char *path, char *into, size_t size) {
    int fd = (int)real_syscall()(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    ssize_t count = real_syscall()(SYS_read, fd, into, size - 1);
    real_syscall()(SYS_close, fd);
    if (count < 0) return -1;
    into[count] = 0;
    return count;
}

static void note(const char *control, const char *call, const char *path) {
    char name[1024], line[1400];
    snprintf(name, sizeof name, "%s.hits", control);
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    int fd = (int)real_syscall()(
        SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return;
    real_syscall()(SYS_write, fd, line, (size_t)length);
    real_syscall()(SYS_close, fd);
}

static verdict strike(const char *what) {
    verdict result = {0, -1, 0};
    if (!strcmp(what, "kill")) {
        kill(getpid(), SIGKILL);
    } else if (!strcmp(what, "killafter")) {
        result.kills_after = 1;
    } else if (!strncmp(what, "short:", 6)) {
        result.bytes_max = atol(what + 6);
    } else if (!strncmp(what, "sleep:", 6)) {
        long milliseconds = atol(what + 6);
        struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
        nanosleep(&time, NULL);
    } else {
        result.code = atoi(what);
    }
    return result;
}

static verdict judge(const char *call, const char *path) {
    verdict fine = {0, -1, 0};
    const char *folder = getenv("FAULTDISK_FOLDER");
    const char *control = getenv("FAULTDISK_CONTROL");
    if (!folder || !control || !path) return fine;
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) || (path[length] && path[length] != '/')) return fine;
    const char *name = path[length] ? path + length + 1 : "";
    char text[TEXT_MAX], what[64] = "";
    if (load(control, text, sizeof text) < 0) return fine;
    pthread_mutex_lock(&mutex);
    if (strcmp(text, text_seen)) {
        strcpy(text_seen, text);
        memset(counts, 0, sizeof counts);
    }
    char *rest = NULL;
    int index = 0;
    for (char *line = strtok_r(text, "\n", &rest); line && index < FAULTS_MAX;
         line = strtok_r(NULL, "\n", &rest), index++) {
        char fault_call[32], fault_name[256], fault_what[64];
        long skip, times;
        if (sscanf(line, "%31s %255s %ld %ld %63s", fault_call, fault_name, &skip, &times,
                   fault_what) != 5)
            continue;
        if (strcmp(fault_call, "*") && strcmp(fault_call, call)) continue;
        if (strcmp(fault_name, "*") && strncmp(name, fault_name, strlen(fault_name))) continue;
        long number = counts[index]++;
        if (number < skip || (times && number >= skip + times)) continue;
        strcpy(what, fault_what);
        break;
    }
    pthread_mutex_unlock(&mutex);
    if (!what[0]) return fine;
    note(control, call, path);
    return strike(what);
}

static verdict judge_fd(const char *call, int fd) {
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t count = readlink(link, path, sizeof path - 1);
    verdict fine = {0, -1, 0};
    if (count < 0) return fine;
    path[count] = 0;
    return judge(call, path);
}

// A call with no bytes to count.
static long finish(verdict verdict, long result) {
    if (verdict.kills_after) kill(getpid(), SIGKILL);
    return result;
}

#define REFUSE(verdict)          \
    if ((verdict).code) {        \
        errno = (verdict).code;  \
        return -1;               \
    }

static size_t bounded(verdict verdict, size_t count) {
    return verdict.bytes_max >= 0 && (size_t)verdict.bytes_max < count
        ? (size_t)verdict.bytes_max : count;
}

static int open_any(int folder, const char *path, int flags, mode_t mode) {
    verdict verdict = judge("open", path);
    REFUSE(verdict)
    return (int)finish(verdict, real_syscall()(SYS_openat, folder, path, flags, mode));
}

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_any(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_any(AT_FDCWD, path, flags, mode);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    verdict verdict = judge_fd("pwrite", fd);
    REFUSE(verdict)
    count = bounded(verdict, count);
    return finish(verdict, real_syscall()(SYS_pwrite64, fd, bytes, count, offset));
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) {
    return pwrite(fd, bytes, count, offset);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset) {
    verdict verdict = judge_fd("read", fd);
    REFUSE(verdict)
    count = bounded(verdict, count);
    return finish(verdict, real_syscall()(SYS_pread64, fd, bytes, count, offset));
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t offset) {
    return pread(fd, bytes, count, offset);
}

int fdatasync(int fd) {
    verdict verdict = judge_fd("fdatasync", fd);
    REFUSE(verdict)
    return (int)finish(verdict, real_syscall()(SYS_fdatasync, fd));
}

int fsync(int fd) {
    verdict verdict = judge_fd("fsync", fd);
    REFUSE(verdict)
    return (int)finish(verdict, real_syscall()(SYS_fsync, fd));
}

int ftruncate(int fd, off_t length) {
    verdict verdict = judge_fd("ftruncate", fd);
    REFUSE(verdict)
    return (int)finish(verdict, real_syscall()(SYS_ftruncate, fd, length));
}

int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

int rename(const char *old, const char *new) {
    verdict verdict = judge("rename", new);
    REFUSE(verdict)
    return (int)finish(
        verdict, real_syscall()(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0));
}

int mkdir(const char *path, mode_t mode) {
    verdict verdict = judge("mkdir", path);
    REFUSE(verdict)
    return (int)finish(verdict, real_syscall()(SYS_mkdirat, AT_FDCWD, path, mode));
}

int unlink(const char *path) {
    verdict verdict = judge("unlink", path);
    REFUSE(verdict)
    return (int)finish(verdict, real_syscall()(SYS_unlinkat, AT_FDCWD, path, 0));
}

// glibc's fallocate is declared only under _GNU_SOURCE, so the servers go this way.
long syscall(long number, ...) {
    va_list list;
    long arguments[6];
    va_start(list, number);
    for (int index = 0; index < 6; index++) arguments[index] = va_arg(list, long);
    va_end(list);
    verdict verdict = {0, -1, 0};
    if (number == SYS_fallocate) verdict = judge_fd("fallocate", (int)arguments[0]);
    REFUSE(verdict)
    return finish(
        verdict,
        real_syscall()(
            number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
            arguments[5]));
}
