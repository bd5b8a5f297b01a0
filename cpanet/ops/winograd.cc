// 3×3 convolution, stride 1, padding 1, by Winograd's F(4×4, 3×3) (Lavin & Gray 2016): a quarter of the multiplications.
//
// Every 4×4 tile of the output comes from a 6×6 tile of the input. Both are transformed to 36 numbers, on each of which
// the convolution is a matrix product over channels:
//     Y = Aᵀ [ Σ_c (G g Gᵀ) ⊙ (Bᵀ d B) ] A,    and for the weights' gradient  dg = Gᵀ [ Σ_tiles (A dY Aᵀ) ⊙ (Bᵀ d B) ] G.
// Tiles are worked on in chunks that stay in the cache. Channels that dropout has zeroed are neither read nor computed.
#include <algorithm>

#include "vectors.h"

namespace {

constexpr int POINTS = 36;

struct Size {
    int height, width;
    int tile_rows() const { return (height + 3) / 4; }
    int tile_columns() const { return (width + 3) / 4; }
    size_t area() const { return size_t(height) * width; }
};

// ---------------------------------------------------------------------------------------------- transforms, per vector

// The polynomials behind the transforms are evaluated at 0, ±P, ±Q and ∞. Textbooks take 1 and 2; these (as in oneDNN) keep
// the matrices' entries closer to 1, which halves the rounding error: 1.4e-6 of the result, where direct sums have 0.6e-6.
constexpr float P = 0.625f, Q = 1.5f, PP = P * P, QQ = Q * Q;
constexpr float N0 = 1 / (PP * QQ), NP = 1 / (2 * PP * (PP - QQ)), NQ = 1 / (2 * QQ * (QQ - PP));  // G's row scales

// Bᵀ of six values, in place with stride s
inline void input_1d(vec* d, int s) {
    const vec d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s], d5 = d[5 * s];
    const vec p = d4 - QQ * d2, q = d4 - PP * d2, u = P * (d3 - QQ * d1), v = Q * (d3 - PP * d1);
    d[0] = PP * QQ * d0 - (PP + QQ) * d2 + d4;
    d[s] = p + u;
    d[2 * s] = p - u;
    d[3 * s] = q + v;
    d[4 * s] = q - v;
    d[5 * s] = PP * QQ * d1 - (PP + QQ) * d3 + d5;
}

// Aᵀ: six values to four
inline void output_1d(const vec* m, int s, vec* y, int ys) {
    const vec p = m[s] + m[2 * s], u = m[s] - m[2 * s], q = m[3 * s] + m[4 * s], v = m[3 * s] - m[4 * s];
    y[0] = m[0] + p + q;
    y[ys] = P * u + Q * v;
    y[2 * ys] = PP * p + QQ * q;
    y[3 * ys] = (P * PP) * u + (Q * QQ) * v + m[5 * s];
}

// A: four values to six
inline void gradient_1d(const vec* y, int s, vec* m, int ms) {
    const vec p = y[0] + PP * y[2 * s], u = P * (y[s] + PP * y[3 * s]);
    const vec q = y[0] + QQ * y[2 * s], v = Q * (y[s] + QQ * y[3 * s]);
    m[0] = y[0];
    m[ms] = p + u;
    m[2 * ms] = p - u;
    m[3 * ms] = q + v;
    m[4 * ms] = q - v;
    m[5 * ms] = y[3 * s];
}

// G: three values to six, ROWS side by side
inline void weight_1d(const float (*g)[ROWS], int s, float (*w)[ROWS], int ws) {
    for (int l = 0; l < ROWS; l++) {
        const float g0 = g[0][l], g1 = g[s][l], g2 = g[2 * s][l];
        const float p = NP * (g0 + PP * g2), u = NP * P * g1, q = NQ * (g0 + QQ * g2), v = NQ * Q * g1;
        w[0][l] = N0 * g0;
        w[ws][l] = p + u;
        w[2 * ws][l] = p - u;
        w[3 * ws][l] = q + v;
        w[4 * ws][l] = q - v;
        w[5 * ws][l] = g2;
    }
}

// Gᵀ: six values to three
inline void weight_gradient_1d(const vec* w, int s, vec* g, int gs) {
    const vec p = NP * (w[s] + w[2 * s]), q = NQ * (w[3 * s] + w[4 * s]);
    g[0] = N0 * w[0] + p + q;
    g[gs] = NP * P * (w[s] - w[2 * s]) + NQ * Q * (w[3 * s] - w[4 * s]);
    g[2 * gs] = PP * p + QQ * q + w[5 * s];
}

// ------------------------------------------------------------------------------------------------------ matrix product

// ROWS × (N·LANES) block of  C (+)= A·B  with A(m, k) = a[m·am + k·ak], B row k at b + k·bk, C row m at c + m·cm
template <int N, bool accumulate>
inline void product_block(int depth, const float* a, size_t am, size_t ak, const float* b, size_t bk, float* c, size_t cm) {
    vec sum[ROWS][N];
    for (int m = 0; m < ROWS; m++)
        for (int n = 0; n < N; n++) sum[m][n] = vec{};
    for (int k = 0; k < depth; k++, a += ak, b += bk) {
        vec right[N];
        for (int n = 0; n < N; n++) right[n] = load(b + n * LANES);
        for (int m = 0; m < ROWS; m++) {
            const float left = a[m * am];
            for (int n = 0; n < N; n++) sum[m][n] += left * right[n];
        }
    }
    for (int m = 0; m < ROWS; m++)
        for (int n = 0; n < N; n++) {
            float* out = c + m * cm + n * LANES;
            store(out, accumulate ? load(out) + sum[m][n] : sum[m][n]);
        }
}

template <bool accumulate>
inline void product_columns(int vectors, int depth, const float* a, size_t am, size_t ak, const float* b, size_t bk, float* c,
                            size_t cm) {
    if (vectors >= COLUMNS) return product_block<COLUMNS, accumulate>(depth, a, am, ak, b, bk, c, cm);
    if (COLUMNS > 2 && vectors == 2) return product_block<2, accumulate>(depth, a, am, ak, b, bk, c, cm);
    product_block<1, accumulate>(depth, a, am, ak, b, bk, c, cm);
}

// ------------------------------------------------------------------------------------------------- reading and writing

// A map to convolve: x itself, or, where ``gate`` is given, gradient · factor where the activation ``gate`` is positive
struct Plane {
    const float* values;
    const float* gate;
    float factor;
};

// Row y of a plane, shifted right by the padding of one, zero outside; the buffer is zero beyond the row
inline void read_row(const Plane& plane, Size size, int y, float* row) {
    float* inner = row + 1;
    if (y < 0 || y >= size.height) {
        std::memset(inner, 0, size.width * sizeof(float));
        return;
    }
    const float* from = plane.values + size_t(y) * size.width;
    if (plane.gate == nullptr) {
        std::memcpy(inner, from, size.width * sizeof(float));
        return;
    }
    const float* gate = plane.gate + size_t(y) * size.width;
    const float factor = plane.factor;
    for (int x = 0; x < size.width; x++) inner[x] = gate[x] > 0.0f ? from[x] * factor : 0.0f;
}

inline size_t row_length(Size size) { return round_up(size.tile_columns(), LANES) * 4 + 2 * LANES * 4; }

// Bᵀ d B of the tiles in rows [first, last) of one plane: value f of tile t goes to out[f·point + t]
void transform_input(const Plane& plane, Size size, int first, int last, float* out, size_t point, float* buffer) {
    const int columns = size.tile_columns(), phases = round_up(columns, LANES) + LANES;
    float* row = buffer;
    float* split = buffer + row_length(size);  // six rows, each as its four phases of columns
    std::memset(row, 0, row_length(size) * sizeof(float));
    for (int ty = first; ty < last; ty++, out += columns) {
        for (int i = 0; i < 6; i++) {
            float* into = split + size_t(i) * 4 * phases;
            if (ty > first && i < 2) {  // two rows are shared with the tiles above
                std::memcpy(into, into + size_t(4) * 4 * phases, size_t(4) * phases * sizeof(float));
                continue;
            }
            read_row(plane, size, 4 * ty + i - 1, row);
            float *p0 = into, *p1 = into + phases, *p2 = into + 2 * phases, *p3 = into + 3 * phases;
            for (int t = 0; t < phases; t++) {
                p0[t] = row[4 * t];
                p1[t] = row[4 * t + 1];
                p2[t] = row[4 * t + 2];
                p3[t] = row[4 * t + 3];
            }
        }
        for (int tx = 0; tx < columns; tx += LANES) {
            vec d[POINTS];
            for (int i = 0; i < 6; i++) {
                for (int j = 0; j < 6; j++) d[i * 6 + j] = load(split + (size_t(i) * 4 + j % 4) * phases + tx + j / 4);
                input_1d(d + i * 6, 1);
            }
            for (int j = 0; j < 6; j++) input_1d(d + j, 6);
            for (int f = 0; f < POINTS; f++) store(out + f * point + tx, d[f]);
        }
    }
}

// Aᵀ m A of the tiles in rows [first, last), then bias, ReLU and the factor, written to one plane
void transform_output(const float* in, size_t point, Size size, int first, int last, float bias, bool relu, float factor,
                      float* out, float* buffer) {
    const int columns = size.tile_columns(), phases = round_up(columns, LANES);
    for (int ty = first; ty < last; ty++, in += columns) {
        for (int tx = 0; tx < columns; tx += LANES) {
            vec m[POINTS], half[24], y[16];
            for (int f = 0; f < POINTS; f++) m[f] = load(in + f * point + tx);
            for (int j = 0; j < 6; j++) output_1d(m + j, 6, half + j, 6);
            for (int i = 0; i < 4; i++) output_1d(half + i * 6, 1, y + i * 4, 1);
            for (int n = 0; n < 16; n++) {
                const vec sum = y[n] + bias;
                const vec value = relu ? (sum > 0.0f ? sum : vec{}) : sum;
                store(buffer + size_t(n) * phases + tx, value * factor);
            }
        }
        for (int i = 0; i < 4 && 4 * ty + i < size.height; i++) {
            float* row = out + size_t(4 * ty + i) * size.width;
            const float* p = buffer + size_t(i) * 4 * phases;
            const int whole = size.width / 4;
            for (int t = 0; t < whole; t++) {
                row[4 * t] = p[t];
                row[4 * t + 1] = p[phases + t];
                row[4 * t + 2] = p[2 * phases + t];
                row[4 * t + 3] = p[3 * phases + t];
            }
            for (int x = 4 * whole; x < size.width; x++) row[x] = p[(x % 4) * phases + x / 4];
        }
    }
}

// A dY Aᵀ of the tiles in rows [first, last) of up to LANES planes, channels side by side: out[f·point + t·stride + lane]
void transform_gradient(const Plane* planes, int count, Size size, int first, int last, float* out, size_t point,
                        size_t stride, float* buffer) {
    const int columns = size.tile_columns(), length = columns * 4;
    float* row = buffer;
    float* across = buffer + row_length(size);  // four rows of pixels, the planes' values of a pixel side by side
    std::memset(across, 0, size_t(4) * length * LANES * sizeof(float));
    std::memset(row, 0, row_length(size) * sizeof(float));
    for (int ty = first; ty < last; ty++) {
        for (int lane = 0; lane < count; lane++)
            for (int i = 0; i < 4; i++) {
                read_row(planes[lane], size, 4 * ty + i, row);
                float* into = across + size_t(i) * length * LANES + lane;
                for (int x = 0; x < length; x++) into[size_t(x) * LANES] = row[x + 1];
            }
        for (int tx = 0; tx < columns; tx++, out += stride) {
            vec y[16], half[24], m[POINTS];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) y[i * 4 + j] = load(across + (size_t(i) * length + 4 * tx + j) * LANES);
            for (int j = 0; j < 4; j++) gradient_1d(y + j, 4, half + j, 4);
            for (int i = 0; i < 6; i++) gradient_1d(half + i * 4, 1, m + i * 6, 1);
            for (int f = 0; f < POINTS; f++) store(out + f * point, m[f]);
        }
    }
}

// G g Gᵀ of the kernels between the kept channels, ROWS outputs side by side: u[((f·blocks + block)·inputs + c)·ROWS + lane].
// ``transposed`` swaps the roles of inputs and outputs and turns the kernel round: what the input's gradient needs.
void transform_weights(const float* w, int channels, const std::vector<int>& inputs, const std::vector<int>& outputs,
                       bool transposed, float* u) {
    const int blocks = (int(outputs.size()) + ROWS - 1) / ROWS, depth = inputs.size();
#pragma omp parallel for
    for (int block = 0; block < blocks; block++)
        for (int c = 0; c < depth; c++) {
            float g[9][ROWS] = {}, half[18][ROWS], all[POINTS][ROWS];
            for (int lane = 0; lane < ROWS && block * ROWS + lane < int(outputs.size()); lane++) {
                const int o = outputs[block * ROWS + lane], i = inputs[c];
                const float* kernel = w + (transposed ? size_t(i) * channels + o : size_t(o) * channels + i) * 9;
                for (int n = 0; n < 9; n++) g[n][lane] = kernel[transposed ? 8 - n : n];
            }
            for (int j = 0; j < 3; j++) weight_1d(g + j, 3, half + j, 3);
            for (int i = 0; i < 6; i++) weight_1d(half + i * 3, 1, all + i * 6, 1);
            for (int f = 0; f < POINTS; f++)
                std::memcpy(u + ((size_t(f) * blocks + block) * depth + c) * ROWS, all[f], sizeof all[f]);
        }
}

// -------------------------------------------------------------------------------------------------------- whole passes

// A distance of an odd number of cache lines: what lies so far apart does not fall on the same few sets of a cache
size_t odd_lines(size_t floats) { return (round_up(floats, 16) / 16 | 1) * 16; }

struct Chunks {
    int rows, count;     // tile rows in a chunk, chunks in a map
    size_t tiles, line;  // vectorised tiles of a chunk, and their distance in memory
    Chunks(Size size, int wanted_tiles) {
        const int all = size.tile_rows();
        rows = std::max(1, std::min(all, wanted_tiles / size.tile_columns()));
        // every thread gets a chunk
        while (rows > 1 && (all + rows - 1) / rows < omp_get_max_threads()) rows--;
        count = (all + rows - 1) / rows;
        tiles = round_up(size_t(rows) * size.tile_columns(), LANES);
        line = tiles + LANES;  // the last vector of a row may reach beyond it
        line = odd_lines(line);
    }
};

Workspace weights_space, shared_space;
Workspace& thread_space() {
    static thread_local Workspace space;
    return space;
}

// out[o] = relu?(Σ_c in[c] ∗ w + bias[o]) · factor[o] of one sample; planes in[c], pointers out[o]
void convolve(const std::vector<Plane>& in, const float* u, const std::vector<float*>& out, const float* biases,
              const float* factors, bool relu, Size size, const Chunks& chunks) {
    const int depth = in.size(), outputs = out.size(), blocks = (outputs + ROWS - 1) / ROWS;
    const size_t v_point = odd_lines(depth * chunks.line), m_point = odd_lines(blocks * ROWS * chunks.line);
#pragma omp parallel for schedule(dynamic)
    for (int chunk = 0; chunk < chunks.count; chunk++) {
        const int first = chunk * chunks.rows, last = std::min(first + chunks.rows, size.tile_rows());
        float* v = thread_space().floats(POINTS * (v_point + m_point) + LANES + row_length(size) * 8);
        float* m = v + POINTS * v_point;
        float* buffer = m + POINTS * m_point + LANES;
        for (int c = 0; c < depth; c++)
            transform_input(in[c], size, first, last, v + c * chunks.line, v_point, buffer);
        for (int f = 0; f < POINTS; f++)
            for (size_t t = 0; t < chunks.tiles; t += COLUMNS * LANES)
                for (int block = 0; block < blocks; block++)
                    product_columns<false>((chunks.tiles - t) / LANES, depth,
                                           u + (size_t(f) * blocks + block) * depth * ROWS, 1, ROWS, v + f * v_point + t,
                                           chunks.line, m + f * m_point + block * ROWS * chunks.line + t, chunks.line);
        for (int o = 0; o < outputs; o++)
            transform_output(m + o * chunks.line, m_point, size, first, last, biases ? biases[o] : 0.0f, relu,
                             factors ? factors[o] : 1.0f, out[o], buffer);
    }
}

// du[f][c][o] += Σ_tiles (Bᵀ in[c] B)_f · (A gradient[o] Aᵀ)_f of one sample, each thread into its own sum
void correlate(const std::vector<Plane>& in, const std::vector<Plane>& gradient, Size size, const Chunks& chunks, float* sums,
               size_t sum_size) {
    const int depth = in.size(), outputs = gradient.size();
    const int in_blocks = (depth + ROWS - 1) / ROWS;
    const size_t width = round_up(outputs, LANES);
    const size_t v_point = odd_lines(in_blocks * ROWS * chunks.line), d_point = odd_lines(chunks.tiles * width);
#pragma omp parallel
    {
        float* sum = sums + omp_get_thread_num() * sum_size;
        std::memset(sum, 0, sum_size * sizeof(float));
        float* v = thread_space().floats(POINTS * (v_point + d_point) + LANES + row_length(size) * (8 + 4 * LANES));
        float* d = v + POINTS * v_point;
        float* buffer = d + POINTS * d_point + LANES;
        // rows that only fill up the last block of the product
        for (int f = 0; f < POINTS; f++)
            std::memset(v + f * v_point + depth * chunks.line, 0, (in_blocks * ROWS - depth) * chunks.line * sizeof(float));
#pragma omp for schedule(static)  // which thread sums what must not depend on who was quicker: the last digits would
        for (int chunk = 0; chunk < chunks.count; chunk++) {
            const int first = chunk * chunks.rows, last = std::min(first + chunks.rows, size.tile_rows());
            const int tiles = (last - first) * size.tile_columns();
            for (int c = 0; c < depth; c++)
                transform_input(in[c], size, first, last, v + c * chunks.line, v_point, buffer);
            for (int o = 0; o < outputs; o += LANES)
                transform_gradient(gradient.data() + o, std::min(LANES, outputs - o), size, first, last, d + o, d_point, width,
                                   buffer);
            for (int f = 0; f < POINTS; f++)
                for (size_t o = 0; o < width; o += COLUMNS * LANES)
                    for (int block = 0; block < in_blocks; block++)
                        product_columns<true>((width - o) / LANES, tiles,
                                              v + f * v_point + block * ROWS * chunks.line, chunks.line, 1,
                                              d + f * d_point + o, width,
                                              sum + (size_t(f) * in_blocks * ROWS + block * ROWS) * width + o, width);
        }
    }
}

// dw[o][c] += Gᵀ du G between the kept channels, summed over the threads
void add_weight_gradient(const float* sums, size_t sum_size, int threads, int channels, const std::vector<int>& inputs,
                         const std::vector<int>& outputs, float* dw) {
    const int depth = inputs.size(), padded = (depth + ROWS - 1) / ROWS * ROWS;
    const size_t width = round_up(outputs.size(), LANES);
#pragma omp parallel for
    for (int c = 0; c < depth; c++)
        for (size_t o = 0; o < width; o += LANES) {
            vec u[POINTS], half[18], g[9];
            for (int f = 0; f < POINTS; f++) {
                u[f] = vec{};
                for (int t = 0; t < threads; t++) u[f] += load(sums + t * sum_size + (size_t(f) * padded + c) * width + o);
            }
            for (int j = 0; j < 6; j++) weight_gradient_1d(u + j, 6, half + j, 6);
            for (int i = 0; i < 3; i++) weight_gradient_1d(half + i * 6, 1, g + i * 3, 1);
            for (int lane = 0; lane < LANES && o + lane < outputs.size(); lane++)
                for (int n = 0; n < 9; n++) dw[(size_t(outputs[o + lane]) * channels + inputs[c]) * 9 + n] += g[n][lane];
        }
}

// Larger chunks read the weights less often, smaller ones need less memory; 400 gain a few per cent.
constexpr int CHUNK_TILES = 200;

}  // namespace

// y = relu(conv(x, w) + bias) · factors. Shapes: x (batch, channels, height, width), w (outputs, channels, 3, 3),
// bias (outputs) or null, as it is where factors are given, in_factors (batch, channels): 0 where x is known to be zero,
// out_factors (batch, outputs); null: all.
CPANET_EXPORT void cpanet_conv3x3(const float* x, const float* w, const float* bias, const float* in_factors,
                                  const float* out_factors, float* y, int batch, int channels, int outputs, int height,
                                  int width) {
    const Size size{height, width};
    const Chunks chunks(size, CHUNK_TILES);
    for (int b = 0; b < batch; b++) {
        const auto inputs = kept_channels(in_factors ? in_factors + b * channels : nullptr, channels);
        const auto kept = kept_channels(out_factors ? out_factors + b * outputs : nullptr, outputs);
        float* u = weights_space.floats(POINTS * round_up(kept.size(), ROWS) * inputs.size());
        if (b == 0 || in_factors || out_factors) transform_weights(w, channels, inputs, kept, false, u);
        std::vector<Plane> in;
        for (int c : inputs) in.push_back({x + (size_t(b) * channels + c) * size.area(), nullptr, 1.0f});
        float* y_b = y + size_t(b) * outputs * size.area();
        std::vector<float*> out;
        std::vector<float> factors;
        for (int o : kept) {
            out.push_back(y_b + o * size.area());
            factors.push_back(out_factors ? out_factors[b * outputs + o] : 1.0f);
        }
        convolve(in, u, out, bias, factors.data(), true, size, chunks);
        if (out_factors)
            for (int o = 0; o < outputs; o++)
                if (out_factors[b * outputs + o] == 0.0f) std::memset(y_b + o * size.area(), 0, size.area() * sizeof(float));
    }
}

// Gradients of cpanet_conv3x3 from its input, result and the result's gradient.
CPANET_EXPORT void cpanet_conv3x3_backward(const float* x, const float* w, const float* y, const float* dy,
                                           const float* in_factors, const float* out_factors, float* dx, float* dw, int batch,
                                           int channels, int outputs, int height, int width) {
    const Size size{height, width};
    const int threads = omp_get_max_threads();
    const Chunks chunks(size, CHUNK_TILES);
    std::memset(dw, 0, size_t(outputs) * channels * 9 * sizeof(float));
    for (int b = 0; b < batch; b++) {
        const auto inputs = kept_channels(in_factors ? in_factors + b * channels : nullptr, channels);
        const auto kept = kept_channels(out_factors ? out_factors + b * outputs : nullptr, outputs);
        std::vector<Plane> in, gradient;
        for (int c : inputs) in.push_back({x + (size_t(b) * channels + c) * size.area(), nullptr, 1.0f});
        for (int o : kept) {
            const size_t at = (size_t(b) * outputs + o) * size.area();
            gradient.push_back({dy + at, y + at, out_factors ? out_factors[b * outputs + o] : 1.0f});
        }
        std::vector<float*> out;
        for (int c : inputs) out.push_back(dx + (size_t(b) * channels + c) * size.area());
        for (int c = 0; in_factors && c < channels; c++)
            if (in_factors[b * channels + c] == 0.0f)
                std::memset(dx + (size_t(b) * channels + c) * size.area(), 0, size.area() * sizeof(float));
        float* u = weights_space.floats(POINTS * round_up(inputs.size(), ROWS) * kept.size());
        transform_weights(w, channels, kept, inputs, true, u);
        convolve(gradient, u, out, nullptr, nullptr, false, size, chunks);
        const size_t sum_size = POINTS * round_up(inputs.size(), ROWS) * round_up(kept.size(), LANES);
        float* sums = shared_space.floats(sum_size * threads);
        correlate(in, gradient, size, chunks, sums, sum_size);
        add_weight_gradient(sums, sum_size, threads, channels, inputs, kept, dw);
    }
}
