// Few outputs from many channels: y_k(p) = Σ_c w_kc x_c(p) at every pixel, and the largest channel of s_c x_c(p).
// Little arithmetic on large maps, so what matters is that a map is read once, in long runs, and never copied.
#include <algorithm>

#include "vectors.h"

namespace {

constexpr int RUN = 1024;  // pixels of all channels that are worked on at a time: outputs stay in the cache
constexpr int GROUP = 6;   // outputs side by side in a loop, to hide the latency of the additions

// out[p] += Σ_k factors[k] · rows[k][p], ``count`` a multiple of GROUP
inline void combine(int count, const float* factors, const float* rows, float* out, int pixels) {
    for (int k = 0; k < count; k += GROUP, rows += GROUP * RUN, factors += GROUP) {
        int p = 0;
        for (; p + LANES <= pixels; p += LANES) {
            vec sum = load(out + p);
            for (int i = 0; i < GROUP; i++) sum += factors[i] * load(rows + i * RUN + p);
            store(out + p, sum);
        }
        for (; p < pixels; p++)
            for (int i = 0; i < GROUP; i++) out[p] += factors[i] * rows[i * RUN + p];
    }
}

inline float total(vec v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

// sums[k] += Σ_p rows[k][p] · x[p]
inline void products(int count, const float* rows, const float* x, float* sums, int pixels) {
    for (int k = 0; k < count; k += GROUP, rows += GROUP * RUN, sums += GROUP) {
        vec sum[GROUP] = {};
        int p = 0;
        for (; p + LANES <= pixels; p += LANES) {
            const vec right = load(x + p);
            for (int i = 0; i < GROUP; i++) sum[i] += load(rows + i * RUN + p) * right;
        }
        for (int i = 0; i < GROUP; i++) {
            sums[i] += total(sum[i]);
            for (int q = p; q < pixels; q++) sums[i] += rows[i * RUN + q] * x[q];
        }
    }
}

Workspace partial_sums;

}  // namespace

// x (batch, channels, area), w (batch, outputs, channels), s (batch, channels) or null
// → y (batch, outputs, area), or with s (batch, outputs + 1, area) where the last is max_c s_c x_c, its c in ``winner``.
CPANET_EXPORT void cpanet_project(const float* x, const float* w, const float* s, float* y, float* winner, int batch,
                                  int channels, int outputs, int area) {
    const int runs = (area + RUN - 1) / RUN, rows = outputs + (s != nullptr);
    constexpr int BLOCK = 8;  // channels added to an output at a time, while it is in a register
#pragma omp parallel for collapse(2)
    for (int b = 0; b < batch; b++)
        for (int run = 0; run < runs; run++) {
            const int pixels = std::min(RUN, area - run * RUN);
            const float* x_b = x + size_t(b) * channels * area + run * RUN;
            float* y_b = y + size_t(b) * rows * area + run * RUN;
            for (int k = 0; k < outputs; k++) std::memset(y_b + size_t(k) * area, 0, pixels * sizeof(float));
            for (int first = 0; first < channels; first += BLOCK) {
                const int count = std::min(BLOCK, channels - first);
                for (int k = 0; k < outputs; k++) {
                    const float* factors = w + (size_t(b) * outputs + k) * channels + first;
                    float* out = y_b + size_t(k) * area;
                    if (count == BLOCK) {
                        int p = 0;
                        for (; p + LANES <= pixels; p += LANES) {
                            vec sum = load(out + p);
                            for (int c = 0; c < BLOCK; c++) sum += factors[c] * load(x_b + size_t(first + c) * area + p);
                            store(out + p, sum);
                        }
                        for (; p < pixels; p++)
                            for (int c = 0; c < BLOCK; c++) out[p] += factors[c] * x_b[size_t(first + c) * area + p];
                    } else {
                        for (int c = 0; c < count; c++)
                            for (int p = 0; p < pixels; p++) out[p] += factors[c] * x_b[size_t(first + c) * area + p];
                    }
                }
                if (s == nullptr) continue;
                float* largest = y_b + size_t(outputs) * area;
                float* who = winner + size_t(b) * area + run * RUN;
                for (int c = first; c < first + count; c++) {
                    const float factor = s[b * channels + c], number = float(c);
                    const float* values = x_b + size_t(c) * area;
                    if (c == 0)
                        for (int p = 0; p < pixels; p++) largest[p] = factor * values[p], who[p] = 0.0f;
                    for (int p = 0; p < pixels; p++) {
                        const float value = factor * values[p];
                        const bool larger = value > largest[p];
                        largest[p] = larger ? value : largest[p];
                        who[p] = larger ? number : who[p];
                    }
                }
            }
        }
}

// Gradients dx, dw, ds (null without s) of cpanet_project.
CPANET_EXPORT void cpanet_project_backward(const float* x, const float* w, const float* s, const float* winner,
                                           const float* dy, float* dx, float* dw, float* ds, int batch, int channels,
                                           int outputs, int area) {
    const int runs = (area + RUN - 1) / RUN, rows = outputs + (s != nullptr), threads = omp_get_max_threads();
    const int padded = round_up(outputs, GROUP), per_channel = padded + 1;  // of partial sums: dw, then ds
    for (int b = 0; b < batch; b++) {
        float* sums = partial_sums.floats(size_t(threads) * channels * per_channel);
        std::memset(sums, 0, size_t(threads) * channels * per_channel * sizeof(float));
        std::vector<float> factors(size_t(channels) * padded);  // w, the outputs of a channel side by side
        for (int c = 0; c < channels; c++)
            for (int k = 0; k < outputs; k++) factors[size_t(c) * padded + k] = w[(size_t(b) * outputs + k) * channels + c];
#pragma omp parallel
        {
            std::vector<float> gradient(size_t(padded) * RUN);
            float* mine = sums + size_t(omp_get_thread_num()) * channels * per_channel;
#pragma omp for
            for (int run = 0; run < runs; run++) {
                const int pixels = std::min(RUN, area - run * RUN);
                const float* dy_b = dy + size_t(b) * rows * area + run * RUN;
                for (int k = 0; k < outputs; k++)
                    std::memcpy(gradient.data() + k * RUN, dy_b + size_t(k) * area, pixels * sizeof(float));
                const float* dlargest = dy_b + size_t(outputs) * area;
                const float* who = winner + size_t(b) * area + run * RUN;
                for (int c = 0; c < channels; c++) {
                    const size_t at = (size_t(b) * channels + c) * area + run * RUN;
                    float* out = dx + at;
                    const float* values = x + at;
                    if (s == nullptr) {
                        std::memset(out, 0, pixels * sizeof(float));
                    } else {
                        const float factor = s[b * channels + c], number = float(c);
                        float sum = 0;
#pragma omp simd reduction(+ : sum)
                        for (int p = 0; p < pixels; p++) {
                            const float d = who[p] == number ? dlargest[p] : 0.0f;
                            out[p] = factor * d;
                            sum += values[p] * d;
                        }
                        mine[c * per_channel + padded] += sum;
                    }
                    combine(padded, factors.data() + size_t(c) * padded, gradient.data(), out, pixels);
                    products(padded, gradient.data(), values, mine + c * per_channel, pixels);
                }
            }
        }
        for (int c = 0; c < channels; c++)
            for (int k = 0; k <= padded; k++) {
                float sum = 0;
                for (int t = 0; t < threads; t++) sum += sums[(size_t(t) * channels + c) * per_channel + k];
                if (k < outputs) dw[(size_t(b) * outputs + k) * channels + c] = sum;
                if (k == padded && ds != nullptr) ds[b * channels + c] = sum;
            }
    }
}
