// Convolutions of float32 maps whose products are taken in bfloat16, by oneDNN 2.6: operands are rounded to bfloat16 where they
// are reordered into the layout of the kernel, sums and results are float32.
//
// KIND_BF16 needs a CPU with AVX-512 (fast with AVX512-BF16 or AMX). KIND_ROUNDED rounds the same operands and multiplies them
// in float32: the same numbers, up to the order of the sums, on any CPU. KIND_F32 rounds nothing; tests compare it with NumPy.
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "dnnl.hpp"

#define CPANET_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;

enum Kind { KIND_F32 = 0, KIND_BF16 = 1, KIND_ROUNDED = 2 };

struct Geometry {
    int batch, channels, height, width, outputs, kernel_height, kernel_width;
    int stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
    memory::dims source() const { return {batch, channels, height, width}; }
    memory::dims weights() const { return {outputs, channels, kernel_height, kernel_width}; }
    memory::dims result() const {
        const int spread_y = (kernel_height - 1) * dilation_y + 1, spread_x = (kernel_width - 1) * dilation_x + 1;
        return {batch, outputs, (height + 2 * padding_y - spread_y) / stride_y + 1,
                (width + 2 * padding_x - spread_x) / stride_x + 1};
    }
    memory::dims strides() const { return {stride_y, stride_x}; }
    memory::dims padding() const { return {padding_y, padding_x}; }
    memory::dims dilation() const { return {dilation_y - 1, dilation_x - 1}; }  // oneDNN counts the gaps
};

size_t count(const memory::dims& dims) {
    size_t product = 1;
    for (auto side : dims) product *= side;
    return product;
}

dnnl::engine& engine() {
    static dnnl::engine made(dnnl::engine::kind::cpu, 0);
    return made;
}

dnnl::stream& stream() {
    static dnnl::stream made(engine());
    return made;
}

// To the nearest bfloat16, halves to even; NaN stays NaN.
inline float rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return value;
    bits += 0x7fffu + ((bits >> 16) & 1u);
    bits &= 0xffff0000u;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

// A float32 tensor of the caller, rounded into a copy where the kind asks for that.
class Operand {
   public:
    Operand(const float* values, const memory::dims& dims, Kind kind) : values_(values), dims_(dims) {
        if (kind != KIND_ROUNDED) return;
        const size_t size = count(dims);
        copy_.resize(size);
#pragma omp parallel for
        for (size_t i = 0; i < size; i++) copy_[i] = rounded(values[i]);
        values_ = copy_.data();
    }
    // In the layout and type that a primitive wants.
    memory as(const memory::desc& wanted) const {
        memory given({dims_, Type::f32, Tag::abcd}, engine(), const_cast<float*>(values_));
        if (given.get_desc() == wanted) return given;
        memory made(wanted, engine());
        dnnl::reorder(given, made).execute(stream(), given, made);
        return made;
    }

   private:
    const float* values_;
    memory::dims dims_;
    std::vector<float> copy_;
};

// A float32 tensor of the caller that a primitive writes in the layout that it likes best.
class Result {
   public:
    Result(float* values, const memory::dims& dims, const memory::desc& layout)
        : plain_({dims, Type::f32, Tag::abcd}, engine(), values),
          own_(plain_.get_desc() == layout ? plain_ : memory(layout, engine())) {}
    memory& own() { return own_; }
    void deliver() {
        if (own_.get_desc() != plain_.get_desc()) dnnl::reorder(own_, plain_).execute(stream(), own_, plain_);
        stream().wait();
    }

   private:
    memory plain_, own_;
};

memory::desc any(const memory::dims& dims, Type type) { return {dims, type, Tag::any}; }
Type product_type(Kind kind) { return kind == KIND_BF16 ? Type::bf16 : Type::f32; }

dnnl::convolution_forward::primitive_desc forward_description(const Geometry& g, Type operands, Type result, bool relu) {
    dnnl::convolution_forward::desc description(
        dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, any(g.source(), operands),
        any(g.weights(), operands), any(g.result(), result), g.strides(), g.dilation(), g.padding(), g.padding());
    dnnl::primitive_attr attributes;
    if (relu) {
        dnnl::post_ops after;
        after.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
        attributes.set_post_ops(after);
    }
    return {description, attributes, engine()};
}

void forward(const float* x, const float* w, float* y, const Geometry& g, Kind kind, bool relu) {
    const auto description = forward_description(g, product_type(kind), Type::f32, relu);
    const Operand source(x, g.source(), kind), weights(w, g.weights(), kind);
    Result result(y, g.result(), description.dst_desc());
    memory a = source.as(description.src_desc()), b = weights.as(description.weights_desc());
    dnnl::convolution_forward(description)
        .execute(stream(), {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, result.own()}});
    result.deliver();
}

void backward_input(const float* w, const float* dy, float* dx, const Geometry& g, Kind kind) {
    const Type type = product_type(kind);
    const auto hint = forward_description(g, type, type, false);
    const dnnl::convolution_backward_data::primitive_desc description(
        {dnnl::algorithm::convolution_direct, any(g.source(), Type::f32), any(g.weights(), type), any(g.result(), type),
         g.strides(), g.dilation(), g.padding(), g.padding()},
        engine(), hint);
    const Operand weights(w, g.weights(), kind), gradient(dy, g.result(), kind);
    Result result(dx, g.source(), description.diff_src_desc());
    memory a = weights.as(description.weights_desc()), b = gradient.as(description.diff_dst_desc());
    dnnl::convolution_backward_data(description)
        .execute(stream(), {{DNNL_ARG_WEIGHTS, a}, {DNNL_ARG_DIFF_DST, b}, {DNNL_ARG_DIFF_SRC, result.own()}});
    result.deliver();
}

void backward_weights(const float* x, const float* dy, float* dw, const Geometry& g, Kind kind) {
    const Type type = product_type(kind);
    const auto hint = forward_description(g, type, type, false);
    const dnnl::convolution_backward_weights::primitive_desc description(
        {dnnl::algorithm::convolution_direct, any(g.source(), type), any(g.weights(), Type::f32), any(g.result(), type),
         g.strides(), g.dilation(), g.padding(), g.padding()},
        engine(), hint);
    const Operand source(x, g.source(), kind), gradient(dy, g.result(), kind);
    Result result(dw, g.weights(), description.diff_weights_desc());
    memory a = source.as(description.src_desc()), b = gradient.as(description.diff_dst_desc());
    dnnl::convolution_backward_weights(description)
        .execute(stream(), {{DNNL_ARG_SRC, a}, {DNNL_ARG_DIFF_DST, b}, {DNNL_ARG_DIFF_WEIGHTS, result.own()}});
    result.deliver();
}

Geometry square3(int batch, int channels, int outputs, int height, int width) {
    return {batch, channels, height, width, outputs, 3, 3, 1, 1, 1, 1, 1, 1};
}

}  // namespace

#define GEOMETRY                                                                                                        \
    int batch, int channels, int height, int width, int outputs, int kernel_height, int kernel_width, int stride_y,     \
        int stride_x, int padding_y, int padding_x, int dilation_y, int dilation_x
#define GIVEN                                                                                                           \
    Geometry {                                                                                                          \
        batch, channels, height, width, outputs, kernel_height, kernel_width, stride_y, stride_x, padding_y, padding_x, \
            dilation_y, dilation_x                                                                                      \
    }

CPANET_EXPORT void cpanet_onednn_conv(const float* x, const float* w, float* y, GEOMETRY, int kind) {
    forward(x, w, y, GIVEN, Kind(kind), false);
}

CPANET_EXPORT void cpanet_onednn_conv_backward(const float* x, const float* w, const float* dy, float* dx, float* dw,
                                               GEOMETRY, int kind) {
    backward_input(w, dy, dx, GIVEN, Kind(kind));
    backward_weights(x, dy, dw, GIVEN, Kind(kind));
}

// y = relu(conv(x, w)) · factors, 3×3, padding 1; factors (batch, outputs) of channel dropout.
CPANET_EXPORT void cpanet_onednn_conv3x3(const float* x, const float* w, const float* factors, float* y, int batch,
                                         int channels, int outputs, int height, int width, int kind) {
    forward(x, w, y, square3(batch, channels, outputs, height, width), Kind(kind), true);
    const size_t area = size_t(height) * width;
#pragma omp parallel for
    for (int plane = 0; plane < batch * outputs; plane++) {
        if (factors[plane] == 1.0f) continue;
        float* values = y + plane * area;
        for (size_t i = 0; i < area; i++) values[i] *= factors[plane];
    }
}

CPANET_EXPORT void cpanet_onednn_conv3x3_backward(const float* x, const float* w, const float* y, const float* dy,
                                                  const float* factors, float* dx, float* dw, int batch, int channels,
                                                  int outputs, int height, int width, int kind) {
    const size_t area = size_t(height) * width;
    std::vector<float> gradient(size_t(batch) * outputs * area);
#pragma omp parallel for
    for (int plane = 0; plane < batch * outputs; plane++) {
        const size_t at = plane * area;
        for (size_t i = at; i < at + area; i++) gradient[i] = y[i] > 0.0f ? dy[i] * factors[plane] : 0.0f;
    }
    const Geometry g = square3(batch, channels, outputs, height, width);
    backward_input(w, gradient.data(), dx, g, Kind(kind));
    backward_weights(x, gradient.data(), dw, g, Kind(kind));
}
