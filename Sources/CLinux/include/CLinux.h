// What Swift's Glibc module does not offer: epoll, pidfd, eventfd, signalfd and accept4, and the
// variadic calls. Only declarations and inline wrappers: there is no C source to speak of.
#ifndef CLINUX_H
#define CLINUX_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

// struct epoll_event is packed and holds a union; these hide both.
static inline int clinux_epoll_ctl(int epoll, int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data = {.fd = fd}};
    return epoll_ctl(epoll, operation, fd, &event);
}
static inline int clinux_event_fd(const struct epoll_event *events, int index) {
    return events[index].data.fd;
}
static inline uint32_t clinux_event_mask(const struct epoll_event *events, int index) {
    return events[index].events;
}

static inline int clinux_pidfd_open(pid_t pid) {
    return (int)syscall(SYS_pidfd_open, pid, 0);
}
static inline int clinux_fcntl_int(int fd, int command, int argument) {
    return fcntl(fd, command, argument);
}
static inline int clinux_open(const char *path, int flags, mode_t mode) {
    return open(path, flags, mode);
}
// glibc declares fallocate only under _GNU_SOURCE.
static inline int clinux_fallocate(int fd, off_t offset, off_t length) {
    return (int)syscall(SYS_fallocate, fd, 0, offset, length);
}
// So are SEEK_DATA (3) and SEEK_HOLE (4); -1: there is none.
static inline off_t clinux_seek_data(int fd, off_t offset) { return lseek(fd, offset, 3); }
static inline off_t clinux_seek_hole(int fd, off_t offset) { return lseek(fd, offset, 4); }
static inline int clinux_accept4(int fd, int flags) {
    return (int)syscall(SYS_accept4, fd, NULL, NULL, flags);
}
static inline int clinux_signalfd(const sigset_t *mask) {
    return signalfd(-1, mask, SFD_CLOEXEC | SFD_NONBLOCK);
}
static inline int clinux_become_subreaper(void) {
    return prctl(PR_SET_CHILD_SUBREAPER, 1);
}
// 0: no signal.
static inline int clinux_signal_at_parents_end(int signal) {
    return prctl(PR_SET_PDEATHSIG, signal);
}
static inline int clinux_terminal_columns(int fd) {
    struct winsize size;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}
// glibc declares this only under _GNU_SOURCE, with which the types here would differ from Glibc's.
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *, int);
#define CLINUX_SPAWN_SETSID 0x80

// The spawned process gets its own session and, by closefrom, none of our descriptors but stdio.
static inline int clinux_spawn_close_from(posix_spawn_file_actions_t *actions, int lowest) {
    return posix_spawn_file_actions_addclosefrom_np(actions, lowest);
}
static inline short clinux_spawn_flags(void) {
    return CLINUX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
}

#endif
