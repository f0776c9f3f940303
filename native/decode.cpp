#include "backends.h"
#include "errors.h"
#include "kernel_backend.h"
#include "logits.h"
#include "output_head.h"
#include "runtime.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>

// ggml-rpc remembers which graph a server was given last, and no lock guards that: what uses servers takes turns.
static std::unique_lock<std::mutex> turn_of(const model & owner) {
    static std::mutex using_servers;
    return owner.servers.devices.empty() ? std::unique_lock<std::mutex>() : std::unique_lock<std::mutex>(using_servers);
}

output_head & context::head_of() {
    if (!head) {
        head = std::make_unique<output_head>(owner, handle, n_threads, threadpool.get(), points.last_block);
    }
    return *head;
}

// The states that the logits of these rows are computed from, by the head, which is made ready for them. Nothing where an
// architecture computes them from more than that.
std::optional<capture> context::before_head(const decode_job & job, const std::vector<int32_t> & rows) {
    const auto used = [](const auto & places) {
        return std::any_of(places.begin(), places.end(), [](const place & p) { return p.hook == hook_point::final_norm; });
    };
    const bool norm = used(job.captures) || used(job.patches);
    capture    c;
    c.hook  = norm ? hook_point::final_norm : hook_point::resid_post;
    c.layer = llama_model_n_layer(owner->handle) - 1;
    if (headless || !points.has(c.hook, c.layer)) {
        return {};
    }
    try {
        head_of().prepare(norm ? lens_job::part::head : lens_job::part::whole, static_cast<int32_t>(rows.size()));
    } catch (const coded_error &) {
        headless = true;
        return {};
    }
    c.rows  = rows;
    c.width = points.at(c.hook, c.layer).width;
    c.spans = { { 0, static_cast<int32_t>(c.width) } };
    for (size_t i = 0; i < rows.size(); ++i) {
        c.offsets.push_back(i * c.width);
    }
    return c;
}

void context::decode(const decode_job & job) {
    const auto turn = turn_of(*owner);
    owner->servers.require();
    llama_memory_t memory = llama_get_memory(handle);
    if (job.clear) {
        // Data too after NaN: masked cells still enter the attention, as 0 * NaN.
        llama_memory_clear(memory, poisoned);
        hooks->forget_cells();
        poisoned = false;
    }
    for (const auto & c : job.copies) {
        llama_memory_seq_cp(memory, c.src, c.dst, c.p0, c.p1);
    }
    for (const auto & c : job.cuts) {
        if (!llama_memory_seq_rm(memory, c.seq, c.p0, -1)) {
            throw coded_error("NATIVE_FAILURE", "this model's cache cannot be cut at position " + std::to_string(c.p0));
        }
    }

    const int32_t n_vocab = llama_vocab_n_tokens(owner->vocab);

    // llama.cpp asserts on some of these, which would end the process.
    if (job.n_rows > static_cast<int32_t>(llama_n_ubatch(handle))) {
        throw coded_error("INVALID_ARGUMENT", "a decode of " + std::to_string(job.n_rows) + " rows exceeds n_ubatch");
    }
    std::vector<int32_t>        output_row(job.n_rows, -1), seq_count = job.sequence_counts;
    std::vector<llama_seq_id *> seq_ids(job.n_rows);
    std::vector<int8_t>         outputs(job.n_rows);
    int32_t                     n_output = 0;
    const int32_t *             next     = job.sequences;
    for (int32_t i = 0; i < job.n_rows; next += seq_count[i++]) {
        for (int32_t j = 0; j < seq_count[i]; ++j) {
            if (next[j] < 0 || next[j] >= static_cast<int32_t>(n_seq)) {
                throw coded_error("INVALID_ARGUMENT", "sequence id " + std::to_string(next[j]) + " is out of range");
            }
        }
        if (job.tokens && (job.tokens[i] < 0 || job.tokens[i] >= n_vocab)) {
            throw coded_error("TOKEN_INVALID", "token id " + std::to_string(job.tokens[i]) + " is outside the vocabulary of " +
                std::to_string(n_vocab));
        }
        seq_ids[i] = const_cast<llama_seq_id *>(next);
        outputs[i] = job.outputs[i] != 0;
        if (job.same && (job.same[i] < 0 || job.same[i] > i || job.same[job.same[i]] != job.same[i])) {
            throw coded_error("INVALID_ARGUMENT", "row " + std::to_string(i) + " cannot be the same as row " + std::to_string(job.same[i]));
        }
        if (outputs[i]) {
            output_row[i] = n_output++;
        }
    }
    const auto require_outputs = [&](const std::vector<int32_t> & rows) {
        for (int32_t row : rows) {
            if (row < 0 || row >= job.n_rows || output_row[row] < 0) {
                throw coded_error("INVALID_ARGUMENT", "row " + std::to_string(row) + " is not in the batch or has no output");
            }
        }
    };
    std::vector<int32_t> read = job.top_rows; // rows whose logits are
    for (const auto & l : job.logits) {
        read.insert(read.end(), l.rows.begin(), l.rows.end());
    }
    require_outputs(read);
    std::sort(read.begin(), read.end());
    read.erase(std::unique(read.begin(), read.end()), read.end());
    if (!job.top_rows.empty() && (job.top_k < 1 || job.top_k > n_vocab)) {
        throw coded_error("INVALID_ARGUMENT", "top-k of " + std::to_string(job.top_k) + " in a vocabulary of " + std::to_string(n_vocab));
    }

    llama_batch batch {};
    batch.n_tokens = job.n_rows;
    batch.token    = const_cast<llama_token *>(job.tokens);
    batch.embd     = const_cast<float *>(job.embeddings);
    batch.pos      = const_cast<llama_pos *>(job.positions);
    batch.n_seq_id = seq_count.data();
    batch.seq_id   = seq_ids.data();
    batch.logits   = outputs.data();

    // What an intervention drove out of the range of the cache shows in logits alone, and not wherever this call may end.
    const bool was = poisoned;
    poisoned       = was || !job.patches.empty();
    log_take();
    norm.start();
    struct restore_at_exit {
        context & self;
        ~restore_at_exit() {
            self.hooks->disarm();
            llama_set_causal_attn(self.handle, true);
        }
    } restore { *this };
    // llama.cpp computes the logits of all rows with outputs, which some have only because the last block computes no others.
    const int32_t        n_layer  = llama_model_n_layer(owner->handle);
    const int32_t        block    = std::min(job.n_blocks, n_layer) - 1;
    int32_t              needed   = hook_table::WHOLE_GRAPH;
    std::vector<capture> captures = job.captures;
    std::vector<float>   states; // of the rows whose logits are read, where these are computed by themselves
    if (read.empty() && points.has(hook_point::resid_post, block)) {
        needed = points.at(hook_point::resid_post, block).node;
    } else if (!read.empty() && static_cast<int32_t>(read.size()) < n_output) {
        if (auto before = before_head(job, read)) {
            states.resize(read.size() * before->width);
            before->out = states.data();
            captures.push_back(std::move(*before));
            needed = -1;
        }
    }
    std::vector<float> embeddings;
    if (!captures.empty() || !job.patches.empty() || job.places || block < n_layer - 1) {
        hook_table::batch armed { std::move(output_row), job.places, nullptr, llama_model_n_embd_inp(owner->handle), needed };
        if (job.embeddings) { // a copy, as patches may write into it
            embeddings.assign(job.embeddings, job.embeddings + job.n_rows * armed.n_embd_inp);
            armed.embeddings = batch.embd = embeddings.data();
        }
        hooks->arm(points, std::move(armed), captures, job.patches);
    }
    llama_set_causal_attn(handle, !job.non_causal);
    int32_t status;
    {
        const rpc_servers::without_logits skip(needed != hook_table::WHOLE_GRAPH);
        const same_rows same(job.same ? std::vector<int32_t>(job.same, job.same + job.n_rows) : std::vector<int32_t>());
        status = llama_decode(handle, batch);
        llama_synchronize(handle);
    }
    owner->servers.count_decode();
    owner->servers.require();

    switch (status) {
        case 0:  break;
        case 1:  throw coded_error("CONTEXT_OVERFLOW", "the KV cache has no room for a batch of " + std::to_string(job.n_rows) + " rows");
        case 2:  throw coded_error("ABORTED", "the decode was aborted");
        default: throw coded_error("NATIVE_FAILURE", "llama_decode returned " + std::to_string(status) + ": " + log_take());
    }
    norm.check_fired();
    hooks->check_fired();

    const auto require_finite = [&](const float * values, size_t n, const std::string & what) {
        for (size_t i = 0; i < n; ++i) {
            if (std::isnan(values[i]) || values[i] == INFINITY) { // -inf is how some models rule a token out
                poisoned = true;
                throw coded_error("NOT_FINITE", what + " hold NaN or infinity: the model's file is damaged, "
                    "or an intervention drove its states out of the range of its arithmetic");
            }
        }
    };
    for (const auto & c : captures) {
        for (int64_t offset : c.offsets) {
            require_finite(c.out + offset, c.width, "the hidden states of layer " + std::to_string(c.layer));
        }
    }

    const float * own = states.empty() ? nullptr : head->logits(states.data());
    owner->servers.require();
    const auto logits_of = [&](int32_t row) {
        if (own) {
            return own + (std::lower_bound(read.begin(), read.end(), row) - read.begin()) * n_vocab;
        }
        const float * logits = llama_get_logits_ith(handle, row);
        if (!logits) {
            throw coded_error("NATIVE_FAILURE", "no logits for row " + std::to_string(row));
        }
        return logits;
    };
    for (const auto & l : job.logits) {
        for (size_t i = 0; i < l.rows.size(); ++i) {
            const float * logits = logits_of(l.rows[i]);
            require_finite(logits, n_vocab, "the logits");
            std::copy(logits, logits + n_vocab, l.out + l.offsets[i]);
        }
    }
    for (size_t i = 0; i < job.top_rows.size(); ++i) {
        const float * logits = logits_of(job.top_rows[i]);
        require_finite(logits, n_vocab, "the logits");
        top_k_of(logits, n_vocab, job.top_k, job.top_ids + i * job.top_k, job.top_logits + i * job.top_k);
        job.top_logsumexp[i] = static_cast<float>(log_sum_exp(logits, n_vocab));
    }
    const auto is_read = [&](int32_t row) { return std::binary_search(read.begin(), read.end(), row); };
    if (std::all_of(job.patches.begin(), job.patches.end(), [&](const patch & p) { return std::all_of(p.rows.begin(), p.rows.end(), is_read); })) {
        poisoned = was;
    }
}

void context::lens(const lens_job & job) {
    const auto turn = turn_of(*owner);
    head_of().run(job);
    owner->servers.require();
}
