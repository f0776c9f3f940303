#pragma once

// Reads what src/native/addon.ts declares out of JavaScript values; anything else throws INVALID_ARGUMENT.
#include <napi.h>

#include "async.h"
#include "output_head.h"
#include "runtime.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

template <typename T>
inline const T * array_data(const Napi::Value & value, size_t & n) {
    using js_array = std::conditional_t<std::is_same_v<T, int32_t>, Napi::Int32Array,
        std::conditional_t<std::is_same_v<T, uint8_t>, Napi::Uint8Array,
        std::conditional_t<std::is_same_v<T, double>, Napi::Float64Array, Napi::Float32Array>>>;
    static const napi_typedarray_type type = std::is_same_v<T, int32_t> ? napi_int32_array
        : std::is_same_v<T, uint8_t> ? napi_uint8_array : std::is_same_v<T, double> ? napi_float64_array : napi_float32_array;
    if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
        throw js_error(value.Env(), "INVALID_ARGUMENT", "expected a typed array of another type");
    }
    auto array = value.As<js_array>();
    n = array.ElementLength();
    return array.Data();
}

template <typename T>
inline T * array_of(const Napi::Value & value, size_t n_expected, const char * what) {
    size_t n = 0;
    auto * data = const_cast<T *>(array_data<T>(value, n));
    if (n != n_expected) {
        throw js_error(value.Env(), "INVALID_ARGUMENT", std::string(what) + " has " + std::to_string(n) +
            " elements, expected " + std::to_string(n_expected));
    }
    return data;
}

inline std::vector<int32_t> int_vector(const Napi::Value & value) {
    size_t n = 0;
    const int32_t * data = array_data<int32_t>(value, n);
    return { data, data + n };
}

// Offsets into `out` of rows of `width` floats; all must lie inside.
inline std::vector<int64_t> offsets_into(const Napi::Value & value, size_t n_rows, const Napi::Value & out, size_t width) {
    size_t n_out = 0;
    array_data<float>(out, n_out);
    const double * data = array_of<double>(value, n_rows, "offsets");
    std::vector<int64_t> offsets(data, data + n_rows);
    for (int64_t offset : offsets) {
        if (offset < 0 || static_cast<size_t>(offset) + width > n_out) {
            throw js_error(value.Env(), "INVALID_ARGUMENT", "an offset lies outside its buffer");
        }
    }
    return offsets;
}

inline std::vector<std::string> string_vector(const Napi::Value & value) {
    const auto list = value.As<Napi::Array>();
    std::vector<std::string> strings(list.Length());
    for (uint32_t i = 0; i < strings.size(); ++i) {
        strings[i] = list.Get(i).As<Napi::String>().Utf8Value();
    }
    return strings;
}

inline std::string string_of(const Napi::Object & o, const char * key) {
    return o.Get(key).As<Napi::String>().Utf8Value();
}

inline int32_t int_of(const Napi::Object & o, const char * key) {
    return o.Get(key).As<Napi::Number>().Int32Value();
}

inline bool has(const Napi::Object & o, const char * key) {
    return o.Has(key) && !o.Get(key).IsUndefined();
}

inline std::shared_ptr<const qk_norm_weights> read_qk_norm(const Napi::Object & o) {
    auto weights = std::make_shared<qk_norm_weights>();
    weights->n_layer  = int_of(o, "nLayers");
    weights->head_dim = int_of(o, "headSize");
    weights->epsilon  = o.Get("epsilon").As<Napi::Number>().FloatValue();
    if (weights->n_layer < 1 || weights->head_dim < 1) {
        throw js_error(o.Env(), "INVALID_ARGUMENT", "norms of queries and keys need layers and a head size");
    }
    const size_t n = static_cast<size_t>(weights->n_layer) * weights->head_dim;
    const auto read = [&](const char * key, std::vector<float> & values) {
        const float * data = array_of<float>(o.Get(key), n, key);
        values.assign(data, data + n);
    };
    read("qWeight", weights->q_weight);
    read("qBias", weights->q_bias);
    read("kWeight", weights->k_weight);
    read("kBias", weights->k_bias);
    return weights;
}

inline std::vector<decode_job::seq_range> read_ranges(const Napi::Value & value) {
    const auto flat = int_vector(value);
    std::vector<decode_job::seq_range> ranges;
    for (size_t i = 0; i + 3 < flat.size(); i += 4) {
        ranges.push_back({ flat[i], flat[i + 1], flat[i + 2], flat[i + 3] });
    }
    return ranges;
}

inline void read_place(const Napi::Object & o, place & where) {
    const int32_t hook = int_of(o, "hook");
    if (hook < 0 || hook >= static_cast<int32_t>(hook_point::count)) {
        throw js_error(o.Env(), "INVALID_ARGUMENT", "unknown hook point");
    }
    where.hook  = static_cast<hook_point>(hook);
    where.layer = int_of(o, "layer");
    where.rows  = int_vector(o.Get("rows"));
    where.keys  = has(o, "keys") ? int_of(o, "keys") : 0;
    const auto pairs = int_vector(o.Get("spans"));
    for (size_t i = 0; i + 1 < pairs.size(); i += 2) {
        where.spans.push_back({ pairs[i], pairs[i + 1] });
        where.width += pairs[i + 1];
    }
    if (where.spans.empty() || where.keys < 0 || where.width < 1) {
        throw js_error(o.Env(), "INVALID_ARGUMENT", "nothing was requested of a row");
    }
}

inline decode_job read_job(const Napi::Object & o, const model & owner) {
    const size_t n_vocab = llama_vocab_n_tokens(owner.vocab);
    decode_job job;
    job.clear = has(o, "clear") && o.Get("clear").As<Napi::Boolean>();
    if (has(o, "cuts")) {
        const auto values = int_vector(o.Get("cuts"));
        for (size_t i = 0; i + 1 < values.size(); i += 2) {
            job.cuts.push_back({ values[i], values[i + 1] });
        }
    }
    if (has(o, "copies")) { job.copies = read_ranges(o.Get("copies")); }

    size_t n = 0, n_sequences = 0;
    job.outputs   = array_data<uint8_t>(o.Get("outputs"), n);
    job.n_rows    = static_cast<int32_t>(n);
    job.sequences = array_data<int32_t>(o.Get("sequences"), n_sequences);
    const int32_t * counts = array_of<int32_t>(o.Get("sequenceCounts"), n, "sequenceCounts");
    job.sequence_counts.assign(counts, counts + n);
    if (n == 0 || std::any_of(counts, counts + n, [](int32_t count) { return count < 1; }) ||
        std::accumulate(counts, counts + n, size_t { 0 }) != n_sequences) {
        throw js_error(o.Env(), "INVALID_ARGUMENT", "every row needs its sequences");
    }
    if (has(o, "tokens")) {
        job.tokens    = array_of<int32_t>(o.Get("tokens"), n, "tokens");
        job.positions = array_of<int32_t>(o.Get("positions"), n, "positions");
    } else {
        job.embeddings = array_of<float>(o.Get("embeddings"), n * llama_model_n_embd_inp(owner.handle), "embeddings");
        job.positions  = array_of<int32_t>(o.Get("positions"), n * owner.positions_per_embedding(), "positions");
        job.non_causal = has(o, "nonCausal") && o.Get("nonCausal").As<Napi::Boolean>();
    }

    if (has(o, "blocks")) {
        job.n_blocks = int_of(o, "blocks");
    }
    if (has(o, "same")) {
        job.same = array_of<int32_t>(o.Get("same"), n, "same");
    }
    if (has(o, "places")) {
        job.places = array_of<int32_t>(o.Get("places"), n, "places");
    }
    if (has(o, "captures")) {
        auto list = o.Get("captures").As<Napi::Array>();
        for (uint32_t i = 0; i < list.Length(); ++i) {
            auto item = list.Get(i).As<Napi::Object>();
            capture c;
            read_place(item, c);
            c.offsets = offsets_into(item.Get("offsets"), c.rows.size(), item.Get("out"), c.width);
            c.out     = item.Get("out").As<Napi::Float32Array>().Data();
            job.captures.push_back(std::move(c));
        }
    }
    if (has(o, "patches")) {
        auto list = o.Get("patches").As<Napi::Array>();
        for (uint32_t i = 0; i < list.Length(); ++i) {
            auto item = list.Get(i).As<Napi::Object>();
            patch p;
            read_place(item, p);
            const int32_t op = int_of(item, "op");
            if (op < 0 || op >= static_cast<int32_t>(patch_op::count)) {
                throw js_error(o.Env(), "INVALID_ARGUMENT", "unknown patch operation");
            }
            p.op     = static_cast<patch_op>(op);
            p.factor = item.Get("factor").As<Napi::Number>().FloatValue();
            p.upper  = item.Get("upper").As<Napi::Number>().FloatValue();
            const bool valued = p.op == patch_op::replace || p.op == patch_op::add || p.op == patch_op::remove || p.op == patch_op::keep;
            p.values = valued ? array_of<float>(item.Get("values"), p.rows.size() * p.width, "patch values") : nullptr;
            p.deltas = array_of<float>(item.Get("deltas"), p.rows.size(), "deltas");
            job.patches.push_back(std::move(p));
        }
    }
    if (has(o, "logits")) {
        auto list = o.Get("logits").As<Napi::Array>();
        for (uint32_t i = 0; i < list.Length(); ++i) {
            auto item = list.Get(i).As<Napi::Object>();
            decode_job::logit_copy l;
            l.rows    = int_vector(item.Get("rows"));
            l.offsets = offsets_into(item.Get("offsets"), l.rows.size(), item.Get("out"), n_vocab);
            l.out     = item.Get("out").As<Napi::Float32Array>().Data();
            job.logits.push_back(std::move(l));
        }
    }
    if (has(o, "top")) {
        auto item = o.Get("top").As<Napi::Object>();
        job.top_rows      = int_vector(item.Get("rows"));
        job.top_k         = int_of(item, "k");
        const size_t rows = job.top_rows.size();
        job.top_ids       = array_of<int32_t>(item.Get("ids"), rows * job.top_k, "top ids");
        job.top_logits    = array_of<float>(item.Get("logits"), rows * job.top_k, "top logits");
        job.top_logsumexp = array_of<float>(item.Get("logsumexp"), rows, "logsumexp");
    }
    return job;
}

inline lens_job read_lens_job(const Napi::Object & o, const model & owner) {
    const size_t n_embd  = llama_model_n_embd(owner.handle);
    const size_t n_vocab = llama_vocab_n_tokens(owner.vocab);
    lens_job job;
    const size_t n = int_of(o, "rows");
    const int32_t tail = int_of(o, "tail");
    job.tail       = static_cast<lens_job::part>(tail);
    job.n_rows     = static_cast<int32_t>(n);
    job.states     = array_of<float>(o.Get("states"), n * n_embd, "states");
    if (job.n_rows < 1 || tail < 0 || tail >= static_cast<int32_t>(lens_job::part::count)) {
        throw js_error(o.Env(), "INVALID_ARGUMENT", "a lens needs rows and a part of the graph");
    }
    if (job.tail == lens_job::part::norm) {
        job.normed = array_of<float>(o.Get("normed"), n * n_embd, "normed states");
        return job;
    }
    if (!has(o, "readings")) {
        return job;
    }
    const auto r = o.Get("readings").As<Napi::Object>();
    job.top_k = int_of(r, "topK");
    if (job.top_k < 0 || static_cast<size_t>(job.top_k) > n_vocab) {
        throw js_error(o.Env(), "INVALID_ARGUMENT", "a top-k is not within the vocabulary");
    }
    job.top_ids      = array_of<int32_t>(r.Get("topIds"), n * job.top_k, "top ids");
    job.top_logits   = array_of<float>(r.Get("topLogits"), n * job.top_k, "top logits");
    job.tokens       = int_vector(r.Get("tokens"));
    job.token_logits = array_of<float>(r.Get("tokenLogits"), n * job.tokens.size(), "token logits");
    job.token_ranks  = array_of<int32_t>(r.Get("tokenRanks"), n * job.tokens.size(), "token ranks");
    job.logsumexp    = array_of<float>(r.Get("logsumexp"), n, "logsumexp");
    job.entropy      = array_of<float>(r.Get("entropy"), n, "entropy");
    job.reference    = array_of<int32_t>(r.Get("reference"), n, "reference");
    job.kl           = array_of<float>(r.Get("kl"), n, "kl");
    for (int32_t token : job.tokens) {
        if (token < 0 || static_cast<size_t>(token) >= n_vocab) {
            throw js_error(o.Env(), "TOKEN_INVALID", "token id " + std::to_string(token) + " is outside the vocabulary");
        }
    }
    for (size_t i = 0; i < n; ++i) {
        if (job.reference[i] < 0 || job.reference[i] >= job.n_rows) {
            throw js_error(o.Env(), "INVALID_ARGUMENT", "a reference is not a row of the job");
        }
    }
    return job;
}
