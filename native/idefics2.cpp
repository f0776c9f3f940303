#include "idefics2.h"

#include <algorithm>
#include <cmath>

namespace {

// Blocks of the network, in the names that its mmproj has. A state is [width, rows].
struct network {
    const gguf_weights & weights;
    graph_builder &      builder;
    ggml_context *       ctx = builder.ctx;

    ggml_tensor * multiply(ggml_tensor * matrix, ggml_tensor * x) const {
        ggml_tensor * product = ggml_mul_mat(ctx, matrix, x);
        ggml_mul_mat_set_prec(product, GGML_PREC_F32);
        return product;
    }

    ggml_tensor * linear(const std::string & name, ggml_tensor * x) const {
        return multiply(weights.tensor(name + ".weight"), x);
    }

    ggml_tensor * affine(const std::string & name, ggml_tensor * x) const {
        return ggml_add(ctx, linear(name, x), weights.tensor(name + ".bias"));
    }

    ggml_tensor * layer_norm(const std::string & name, ggml_tensor * x, float epsilon) const {
        x = ggml_mul(ctx, ggml_norm(ctx, x, epsilon), weights.tensor(name + ".weight"));
        return ggml_add(ctx, x, weights.tensor(name + ".bias"));
    }

    ggml_tensor * rms_norm(const std::string & name, ggml_tensor * x, float epsilon) const {
        return ggml_mul(ctx, ggml_rms_norm(ctx, x, epsilon), weights.tensor(name + ".weight"));
    }

    // The tanh form, put together because the CPU backend looks ggml_gelu up in a table of float16.
    ggml_tensor * gelu(ggml_tensor * x) const {
        ggml_tensor * cube  = ggml_mul(ctx, ggml_mul(ctx, x, x), x);
        ggml_tensor * inner = ggml_scale(ctx, ggml_add(ctx, x, ggml_scale(ctx, cube, 0.044715f)), 0.7978845608f); // sqrt(2 / pi)
        return ggml_scale(ctx, ggml_add(ctx, x, ggml_mul(ctx, x, ggml_tanh(ctx, inner))), 0.5f);
    }

    // down(silu(gate(x)) * up(x))
    ggml_tensor * swiglu(const std::string & prefix, ggml_tensor * x) const {
        ggml_tensor * gate = ggml_silu(ctx, linear(prefix + "gate", x));
        return linear(prefix + "down", ggml_mul(ctx, gate, linear(prefix + "up", x)));
    }

    // Heads of keys and values may be fewer than those of queries; each then serves several neighbouring ones.
    ggml_tensor * attention(ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, int64_t head_size, bool flash) const {
        const auto heads = [&](ggml_tensor * x) {
            return ggml_reshape_3d(ctx, x, head_size, x->ne[0] / head_size, x->ne[1]);
        };
        const int64_t width = q->ne[0];
        const int64_t rows  = q->ne[1];
        const float   scale = 1.0f / std::sqrt(static_cast<float>(head_size));
        q = ggml_permute(ctx, heads(q), 0, 2, 1, 3);
        k = ggml_permute(ctx, heads(k), 0, 2, 1, 3);
        if (flash) {
            ggml_tensor * k16 = ggml_cast(ctx, k, GGML_TYPE_F16);
            ggml_tensor * v16 = ggml_cast(ctx, ggml_permute(ctx, heads(v), 0, 2, 1, 3), GGML_TYPE_F16);
            ggml_tensor * out = ggml_flash_attn_ext(ctx, q, k16, v16, nullptr, scale, 0.0f, 0.0f);
            ggml_flash_attn_ext_set_prec(out, GGML_PREC_F32);
            if (builder.runs_on_device(out)) {
                return ggml_reshape_2d(ctx, out, width, rows);
            }
        }
        ggml_tensor * scores = ggml_soft_max_ext(ctx, multiply(k, q), nullptr, scale, 0.0f);
        ggml_tensor * mixed  = multiply(ggml_cont(ctx, ggml_permute(ctx, heads(v), 1, 2, 0, 3)), scores);
        return ggml_cont_2d(ctx, ggml_permute(ctx, mixed, 0, 2, 1, 3), width, rows);
    }
};

// One row a patch: 3 colours, each patch_size * patch_size, as the convolution's weights lie.
std::vector<float> cut_patches(const gguf_weights & weights, const uint8_t * rgb, int32_t width, int32_t columns, int32_t lines, int32_t side) {
    const auto mean = weights.floats("clip.vision.image_mean", 3);
    const auto std  = weights.floats("clip.vision.image_std", 3);
    std::vector<float> patches(static_cast<size_t>(columns) * lines * side * side * 3);
    float * out = patches.data();
    for (int32_t patch = 0; patch < columns * lines; ++patch) {
        const int32_t left = patch % columns * side;
        const int32_t top  = patch / columns * side;
        for (int32_t colour = 0; colour < 3; ++colour) {
            for (int32_t i = 0; i < side * side; ++i) {
                const size_t at = static_cast<size_t>(top + i / side) * width + left + i % side;
                *out++ = (static_cast<float>(rgb[at * 3 + colour]) / 255.0f - mean[colour]) / std[colour];
            }
        }
    }
    return patches;
}

} // namespace

std::vector<int32_t> idefics2_positions(int32_t n, int32_t side) {
    std::vector<int32_t> buckets(n);
    const float step = 1.0f / static_cast<float>(n);
    for (int32_t i = 0; i < n; ++i) {
        const float place = std::min(static_cast<float>(i) * step, static_cast<float>(1.0 - 1e-6));
        // Boundaries are made in double and rounded, as torch.arange does.
        while (buckets[i] + 1 < side && static_cast<float>((buckets[i] + 1) * (1.0 / side)) <= place) {
            ++buckets[i];
        }
    }
    return buckets;
}

std::vector<float> idefics2_encode(gguf_weights & weights, const uint8_t * rgb, int32_t width, int32_t height, bool flash) {
    const auto    u32      = [&](const char * key) { return static_cast<int32_t>(weights.u32(std::string("clip.vision.") + key)); };
    const int32_t patch    = u32("patch_size");
    const int32_t side     = u32("image_size") / patch;
    const int32_t columns  = width / patch;
    const int32_t lines    = height / patch;
    const int32_t n_blocks = u32("block_count");
    const int32_t depth    = u32("resampler.block_count");
    const float   epsilon  = weights.f32("clip.vision.attention.layer_norm_epsilon");
    const float   rms      = weights.f32("clip.vision.resampler.layer_norm_rms_epsilon");
    const size_t  n_nodes  = 64 * static_cast<size_t>(n_blocks + depth + 2);

    return weights.compute(n_nodes, [&](graph_builder & builder) {
        const network net { weights, builder };
        ggml_context * ctx = builder.ctx;

        const int64_t n_pixels = static_cast<int64_t>(patch) * patch * 3;
        ggml_tensor * kernel   = weights.tensor("v.patch_embd.weight");
        ggml_tensor * pixels   = builder.input({ n_pixels, int64_t(columns) * lines }, cut_patches(weights, rgb, width, columns, lines, patch));
        ggml_tensor * x        = net.multiply(ggml_reshape_2d(ctx, kernel, n_pixels, kernel->ne[3]), pixels);
        x = ggml_add(ctx, x, weights.tensor("v.patch_embd.bias"));

        const auto across = idefics2_positions(columns, side);
        const auto down   = idefics2_positions(lines, side);
        std::vector<int32_t> positions;
        for (int32_t line : down) {
            for (int32_t column : across) {
                positions.push_back(line * side + column);
            }
        }
        ggml_tensor * ids = builder.input({ int64_t(columns) * lines }, positions);
        x = ggml_add(ctx, x, ggml_get_rows(ctx, weights.tensor("v.position_embd.weight"), ids));

        for (int32_t i = 0; i < n_blocks; ++i) {
            const std::string b = "v.blk." + std::to_string(i) + ".";
            ggml_tensor * y = net.layer_norm(b + "ln1", x, epsilon);
            y = net.attention(net.affine(b + "attn_q", y), net.affine(b + "attn_k", y), net.affine(b + "attn_v", y),
                x->ne[0] / u32("attention.head_count"), flash);
            x = ggml_add(ctx, x, net.affine(b + "attn_out", y));
            y = net.gelu(net.affine(b + "ffn_up", net.layer_norm(b + "ln2", x, epsilon)));
            x = ggml_add(ctx, x, net.affine(b + "ffn_down", y));
        }
        x = net.swiglu("mm.", net.layer_norm("v.post_ln", x, epsilon));

        // Perceiver resampler: learned queries look at the patches and at each other.
        ggml_tensor * z = ggml_cast(ctx, weights.tensor("resampler.latents"), GGML_TYPE_F32);
        for (int32_t i = 0; i < depth; ++i) {
            const std::string b = "resampler.blk." + std::to_string(i) + ".";
            ggml_tensor * q  = net.rms_norm(b + "ln_q", z, rms);
            ggml_tensor * kv = ggml_concat(ctx, net.rms_norm(b + "ln_kv", x, rms), q, 1);
            ggml_tensor * y  = net.attention(net.linear(b + "attn_q", q), net.linear(b + "attn_k", kv), net.linear(b + "attn_v", kv),
                u32("resampler.head_dim"), false);
            z = ggml_add(ctx, z, net.linear(b + "attn_out", y));
            z = ggml_add(ctx, z, net.swiglu(b + "ffn_", net.rms_norm(b + "ln_ffn", z, rms)));
        }
        return net.rms_norm("resampler.norm", z, rms);
    });
}
