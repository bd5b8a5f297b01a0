// What every kernel here shares: vectors as wide as the CPU's, workspaces, and the list of kept channels.
#pragma once
#include <omp.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#define CPANET_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Accumulators of the matrix product, ROWS × COLUMNS vectors, fill the registers: 32 of AVX-512, 16 of AVX2 and others.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 12, COLUMNS = 2;
#else
constexpr int LANES = 8, ROWS = 6, COLUMNS = 2;
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef float vec_anywhere __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

inline vec load(const float* p) { return *reinterpret_cast<const vec_anywhere*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec_anywhere*>(p) = v; }

inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Memory that is kept between calls: fresh pages cost more time than the work done on them.
class Workspace {
  public:
    float* floats(size_t count) {
        if (count > size_) {
            std::free(data_);
            constexpr size_t page = 2 << 20;
            const size_t bytes = round_up(count * sizeof(float), page);
            data_ = static_cast<float*>(std::aligned_alloc(page, bytes));
            if (data_ == nullptr) throw std::bad_alloc();
            madvise(data_, bytes, MADV_HUGEPAGE);
            size_ = bytes / sizeof(float);
        }
        return data_;
    }

  private:
    float* data_ = nullptr;
    size_t size_ = 0;
};

// Channels of one sample that dropout keeps: those whose factor is not 0. A null ``factors`` keeps all.
inline std::vector<int> kept_channels(const float* factors, int channels) {
    std::vector<int> kept;
    for (int c = 0; c < channels; c++)
        if (factors == nullptr || factors[c] != 0.0f) kept.push_back(c);
    return kept;
}

}  // namespace
