// A stream buffer in front of std::cerr that drops Jittor's progress lines and passes everything else.
// Jittor writes: "\n", then "Compiling Operators(" i "/" n ") used: … s \r" again and again, then std::endl.
#include <cstring>
#include <iostream>
#include <mutex>
#include <streambuf>
#include <string>

namespace {

class QuietBuffer : public std::streambuf {
    std::streambuf* next;
    std::mutex mutex;
    bool at_line_start = true;
    bool held_newline = false;    // an empty line that may be the one in front of the progress
    bool in_progress = false;     // inside a progress line, up to its '\r'
    bool after_progress = false;  // the empty line that ends the progress is dropped as well

    void pass(const char* text, std::streamsize size) {
        if (size > 0) {
            next->sputn(text, size);
            at_line_start = text[size - 1] == '\n';
        }
    }

    void write(const char* text, std::streamsize size) {
        static const char mark[] = "Compiling Operators(";
        if (in_progress) {
            if (const void* end = std::memchr(text, '\r', size)) {
                in_progress = false;
                after_progress = true;
                const char* rest = static_cast<const char*>(end) + 1;
                write(rest, text + size - rest);
            }
            return;
        }
        if (size <= 0) return;
        if (size >= std::streamsize(sizeof(mark) - 1) && !std::memcmp(text, mark, sizeof(mark) - 1)) {
            held_newline = false;
            in_progress = true;
            write(text + sizeof(mark) - 1, size - std::streamsize(sizeof(mark) - 1));
            return;
        }
        if (size == 1 && *text == '\n' && after_progress) {
            after_progress = false;
            return;
        }
        after_progress = false;
        if (held_newline) {
            held_newline = false;
            pass("\n", 1);
        }
        if (size == 1 && *text == '\n' && at_line_start) {
            held_newline = true;
            return;
        }
        pass(text, size);
    }

  protected:
    int_type overflow(int_type c) override {
        if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
        std::lock_guard<std::mutex> guard(mutex);
        const char letter = traits_type::to_char_type(c);
        write(&letter, 1);
        return c;
    }

    std::streamsize xsputn(const char* text, std::streamsize size) override {
        std::lock_guard<std::mutex> guard(mutex);
        write(text, size);
        return size;
    }

    int sync() override { return next->pubsync(); }

  public:
    explicit QuietBuffer(std::streambuf* next) : next(next) {}
};

}  // namespace

extern "C" void cpanet_quiet_cerr() {
    static bool installed = false;
    if (installed) return;
    installed = true;
    // Never freed: messages are written until the very end of the process.
    std::cerr.rdbuf(new QuietBuffer(std::cerr.rdbuf()));
}
