// Jittor waits for the lock of its cache in C++, without end and without letting go of Python. A thread of our own looks
// whether this process is in that wait, says so after a while, and ends the process after a long one.

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

namespace {

// The descriptor of the file that a thread of this process waits to lock, or -1.
int awaited() {
    int found = -1;
    DIR* threads = opendir("/proc/self/task");
    if (!threads) return found;
    while (dirent* entry = readdir(threads)) {
        std::string path = std::string("/proc/self/task/") + entry->d_name + "/syscall";
        FILE* file = std::fopen(path.c_str(), "r");
        if (!file) continue;
        long call = -1;
        unsigned long descriptor = 0, command = 0;
        if (std::fscanf(file, "%ld %lx %lx", &call, &descriptor, &command) == 3 && call == SYS_fcntl &&
            command == F_SETLKW)
            found = static_cast<int>(descriptor);
        std::fclose(file);
    }
    closedir(threads);
    return found;
}

std::string name_of(int descriptor) {
    char target[4096];
    std::string link = "/proc/self/fd/" + std::to_string(descriptor);
    ssize_t length = readlink(link.c_str(), target, sizeof target);
    return length > 0 ? std::string(target, length) : "a lock";
}

std::string holder(int descriptor) {
    struct flock lock;
    std::memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(descriptor, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid > 0)
        return "process " + std::to_string(lock.l_pid);
    return "another process";
}

void watch(double report_after, double end_after) {
    using Clock = std::chrono::steady_clock;
    auto since = Clock::now();
    bool reported = false;
    while (true) {
        std::this_thread::sleep_for(std::chrono::seconds(1));
        int descriptor = awaited();
        if (descriptor < 0) {
            since = Clock::now();
            reported = false;
            continue;
        }
        double waited = std::chrono::duration<double>(Clock::now() - since).count();
        if (waited >= end_after) {
            std::fprintf(stderr,
                         "error: %s has been held by %s for %.0f minutes. End that process, or set JITTOR_HOME to "
                         "another folder.\n",
                         name_of(descriptor).c_str(), holder(descriptor).c_str(), end_after / 60);
            std::fflush(stderr);
            _exit(2);
        }
        if (!reported && waited >= report_after) {
            std::fprintf(stderr, "Waiting for %s, held by %s…\n", name_of(descriptor).c_str(),
                         holder(descriptor).c_str());
            reported = true;
        }
    }
}

}  // namespace

extern "C" void cpanet_watch_lock(double report_after, double end_after) {
    sigset_t all, before;  // signals are for the threads that were there before
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread(watch, report_after, end_after).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}
