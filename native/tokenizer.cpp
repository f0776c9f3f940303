#include "tokenizer.h"

#include "deep_stack.h"
#include "errors.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <queue>

// std::regex takes that much of the stack for each character of a match (measured: up to 400 bytes, by any pre-tokenizer).
static constexpr size_t STACK_PER_CHARACTER = 1024;
static constexpr size_t STACK_BASE = 1 << 20;
static constexpr size_t SHALLOW = 500;       // any thread has room for these
static constexpr size_t MOST_DIGITS = 3000;  // looked ahead over at every digit
static constexpr size_t DEEPEST = 2'000'000; // 2 GB of addresses, of which only what is needed becomes memory

static constexpr int CONTROL = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;

// llama.cpp makes plain tokens of some control tokens of gpt-oss, so that answers show them.
static bool looks_like_control(std::string_view text) {
    return text.size() > 4 && text.substr(0, 2) == "<|" && text.substr(text.size() - 2) == "|>";
}

tokenizer::tokenizer(const llama_model * model)
    : vocab(llama_model_get_vocab(model)), type(llama_vocab_type(vocab)) {
    if (type == LLAMA_VOCAB_TYPE_NONE) { // llama.cpp asserts on the attributes of these
        return;
    }
    for (int32_t id = 0; id < llama_vocab_n_tokens(vocab); ++id) {
        const int attributes = llama_vocab_get_attr(vocab, id);
        if (attributes & (CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED)) {
            const std::string text  = llama_vocab_get_text(vocab, id);
            const bool        plain = !(attributes & CONTROL);
            specials.push_back({ id, text, !plain || looks_like_control(text), plain,
                (attributes & LLAMA_TOKEN_ATTR_LSTRIP) != 0, (attributes & LLAMA_TOKEN_ATTR_RSTRIP) != 0 });
        }
    }
    std::sort(specials.begin(), specials.end(), [](const auto & a, const auto & b) { return a.text.size() > b.text.size(); });
    char value[8] = "";
    space_prefix = llama_model_meta_val_str(model, "tokenizer.ggml.add_space_prefix", value, sizeof(value)) < 0 ||
        std::string_view(value) == "true";
    char pre[16] = "";
    llama_model_meta_val_str(model, "tokenizer.ggml.pre", pre, sizeof(pre));
    counts_digits = std::string_view(pre) == "superbpe";
}

std::vector<int32_t> tokenizer::control_tokens() const {
    std::vector<int32_t> tokens;
    for (const auto & special : specials) {
        if (special.control) {
            tokens.push_back(special.id);
        }
    }
    std::sort(tokens.begin(), tokens.end());
    return tokens;
}

std::vector<int32_t> tokenizer::plain(std::string_view text, bool parse_special) const {
    std::vector<int32_t> tokens(text.size() + 8);
    int32_t n = llama_tokenize(vocab, text.data(), text.size(), tokens.data(), tokens.size(), false, parse_special);
    if (n < 0) {
        tokens.resize(-n);
        n = llama_tokenize(vocab, text.data(), text.size(), tokens.data(), tokens.size(), false, parse_special);
    }
    tokens.resize(std::max(n, 0));
    return tokens;
}

// An upper bound of the characters that an expression of a pre-tokenizer takes in at once: none goes on behind a line break
// but for blanks.
static size_t longest_match(const std::string & text) {
    size_t longest = 0, length = 0, blanks = 0;
    bool   broken  = false; // a line break among the blanks in front
    for (const char c : text) {
        if ((c & 0xC0) == 0x80) {
            continue;
        }
        if (std::isspace(static_cast<unsigned char>(c))) {
            ++blanks;
            broken = broken || c == '\n' || c == '\r';
        } else if (broken) {
            length = blanks;
            blanks = 0;
            broken = false;
        } else {
            blanks = 0;
        }
        longest = std::max(longest, ++length);
    }
    return longest;
}

static size_t longest_digits(const std::string & text) {
    size_t longest = 0, length = 0;
    for (const char c : text) {
        length  = c >= '0' && c <= '9' ? length + 1 : 0;
        longest = std::max(longest, length);
    }
    return longest;
}

std::vector<int32_t> tokenizer::tokenize(const std::vector<std::string> & parts) const {
    if (type == LLAMA_VOCAB_TYPE_NONE) {
        throw coded_error("TOKEN_INVALID", "this model has no tokenizer; give the prompt as token ids");
    }
    std::string        text;
    std::vector<range> literals;
    for (size_t i = 0; i < parts.size(); ++i) {
        if (i % 2 == 1 && !parts[i].empty()) {
            literals.push_back({ text.size(), text.size() + parts[i].size() });
        }
        text += parts[i];
    }
    const size_t depth = longest_match(text);
    if (depth <= SHALLOW) {
        return masked(text, literals);
    }
    if (depth > DEEPEST) {
        throw coded_error("INVALID_ARGUMENT", "a line of the text has " + std::to_string(depth) + " characters, and at most " +
            std::to_string(DEEPEST) + " can be tokenised: break it up");
    }
    if (counts_digits && longest_digits(text) > MOST_DIGITS) {
        throw coded_error("INVALID_ARGUMENT", "the text has a number of more than " + std::to_string(MOST_DIGITS) +
            " digits, for which this model's tokenizer takes minutes: break it up");
    }
    std::vector<int32_t> tokens;
    run_on_deep_stack(STACK_BASE + depth * STACK_PER_CHARACTER, [&] { tokens = masked(text, literals); });
    return tokens;
}

static bool overlaps(const auto & literals, size_t from, size_t to) {
    const auto next = std::upper_bound(literals.begin(), literals.end(), from, [](size_t at, const auto & l) { return at < l.to; });
    return next != literals.end() && next->from < to;
}

bool tokenizer::holds_control(std::string_view text) const {
    return std::any_of(specials.begin(), specials.end(), [&](const special & s) {
        return s.control && !s.text.empty() && text.find(s.text) != std::string::npos;
    });
}

std::vector<int32_t> tokenizer::masked(const std::string & text, const std::vector<range> & literals) const {
    const size_t reach = specials.empty() ? 0 : specials.front().text.size();
    const bool   hides = std::any_of(literals.begin(), literals.end(), [&](const range & literal) {
        const size_t from = literal.from - std::min(literal.from, reach);
        return holds_control(std::string_view(text).substr(from, literal.to + reach - from));
    });
    // llama.cpp's own way takes time with the square of the special tokens in a text.
    if (!hides && text.size() < 10'000) {
        return plain(text, true);
    }
    std::vector<int32_t> tokens;
    for (const auto & [at, token] : partition(text, literals)) {
        const auto piece = std::string_view(text).substr(at.from, at.to - at.from);
        if (token >= 0) {
            tokens.push_back(token);
        } else if (!holds_control(piece)) {
            const auto found = plain(piece, false);
            tokens.insert(tokens.end(), found.begin(), found.end());
        } else if (type == LLAMA_VOCAB_TYPE_SPM) {
            spell_spm(piece, tokens);
        } else {
            spell(piece, tokens);
        }
    }
    return tokens;
}

// As llama.cpp does it (tokenizer_st_partition), but for what overlaps a literal.
std::vector<tokenizer::fragment> tokenizer::partition(const std::string & text, const std::vector<range> & literals) const {
    std::vector<fragment> fragments { { { 0, text.size() }, -1 } };
    const auto is_space = [&](size_t at) { return std::isspace(static_cast<unsigned char>(text[at])) != 0; };
    for (const auto & special : specials) {
        const size_t length = special.text.size();
        if (length == 0) {
            continue;
        }
        std::vector<fragment> next;
        for (const auto & piece : fragments) {
            if (piece.token >= 0) {
                next.push_back(piece);
                continue;
            }
            const std::string_view until = std::string_view(text).substr(0, piece.at.to);
            size_t from = piece.at.from;
            size_t at   = until.find(special.text, from);
            while (at != std::string::npos) {
                if (special.control && overlaps(literals, at, at + length)) {
                    at = until.find(special.text, at + 1);
                    continue;
                }
                size_t left = at;
                while (special.strips_left && left > from && is_space(left - 1)) {
                    --left;
                }
                if (left > from) {
                    next.push_back({ { from, left }, -1 });
                }
                next.push_back({ { at, at + length }, special.id });
                from = at + length;
                while (special.strips_right && from < piece.at.to && is_space(from)) {
                    ++from;
                }
                at = until.find(special.text, from);
            }
            if (from < piece.at.to) {
                next.push_back({ { from, piece.at.to }, -1 });
            }
        }
        fragments = std::move(next);
    }
    return fragments;
}

bool tokenizer::is_control(int32_t token) const {
    const int attributes = llama_vocab_get_attr(vocab, token);
    return (attributes & LLAMA_TOKEN_ATTR_CONTROL) ||
        ((attributes & LLAMA_TOKEN_ATTR_USER_DEFINED) && looks_like_control(llama_vocab_get_text(vocab, token)));
}

static size_t last_character(std::string_view text) {
    size_t at = text.size() - 1;
    while (at > 0 && (text[at] & 0xC0) == 0x80) {
        --at;
    }
    return at;
}

// A text in which what looks like a control token is none. Such a token may still come out, of letters that merge to it: then
// they are cut apart.
void tokenizer::spell(std::string_view text, std::vector<int32_t> & output) const {
    while (!text.empty()) {
        size_t end = text.size();
        for (const auto & special : specials) {
            const size_t at = special.control && !special.text.empty() ? text.find(special.text) : std::string::npos;
            if (at == std::string::npos) {
                continue;
            }
            if (special.plain_for_llama) {
                end = std::min(end, at + 2); // behind "<|", where every pre-tokenizer cuts
            } else if (type == LLAMA_VOCAB_TYPE_RWKV) { // takes the longest token there is
                end = std::min(end, at + std::max<size_t>(last_character(special.text), 1));
            }
        }
        for (int32_t token : plain(text.substr(0, end), false)) {
            if (!is_control(token)) {
                output.push_back(token);
                continue;
            }
            const std::string_view letters = llama_vocab_get_text(vocab, token);
            const size_t           last    = last_character(letters);
            if (last == 0) {
                throw coded_error("TOKEN_INVALID", "the model knows '" + std::string(letters) + "' only as a control token, so it "
                    "cannot stand in a literal text");
            }
            spell(letters.substr(0, last), output);
            spell(letters.substr(last), output);
        }
        text.remove_prefix(end);
    }
}

// SentencePiece's merging as llama.cpp does it, of a text between special tokens. Its own would merge `</` and `s>` into the
// control token.
void tokenizer::spell_spm(std::string_view raw, std::vector<int32_t> & output) const {
    if (pieces.empty()) {
        for (int32_t id = 0; id < llama_vocab_n_tokens(vocab); ++id) {
            if (!(llama_vocab_get_attr(vocab, id) & LLAMA_TOKEN_ATTR_UNKNOWN) && !is_control(id)) {
                pieces[llama_vocab_get_text(vocab, id)] = id;
            }
        }
    }
    std::string text;
    for (char c : (space_prefix ? " " : "") + std::string(raw)) {
        text += c == ' ' ? "\xe2\x96\x81" : std::string(1, c);
    }

    struct symbol { size_t at, length; int previous, next; };
    std::vector<symbol> symbols;
    for (size_t at = 0; at < text.size();) {
        static constexpr size_t lengths[] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4 };
        const size_t length = std::min(lengths[static_cast<uint8_t>(text[at]) >> 4], text.size() - at);
        const int    index  = symbols.size();
        symbols.push_back({ at, length, index - 1, index + 1 });
        at += length;
    }
    symbols.back().next = -1;

    struct merge { int left, right; float score; size_t length; };
    const auto later = [](const merge & a, const merge & b) {
        return a.score < b.score || (a.score == b.score && a.left > b.left);
    };
    std::priority_queue<merge, std::vector<merge>, decltype(later)> queue(later);
    const auto piece_of = [&](size_t at, size_t length) {
        const auto found = pieces.find(text.substr(at, length));
        return found == pieces.end() ? -1 : found->second;
    };
    const auto offer = [&](int left, int right) {
        if (left < 0 || right < 0) {
            return;
        }
        const size_t  length = symbols[left].length + symbols[right].length;
        const int32_t token  = piece_of(symbols[left].at, length);
        if (token >= 0) {
            queue.push({ left, right, llama_vocab_get_score(vocab, token), length });
        }
    };
    for (int i = 1; i < static_cast<int>(symbols.size()); ++i) {
        offer(i - 1, i);
    }
    while (!queue.empty()) {
        const merge best = queue.top();
        queue.pop();
        auto & left  = symbols[best.left];
        auto & right = symbols[best.right];
        if (left.length == 0 || right.length == 0 || left.length + right.length != best.length) {
            continue; // one of them was merged meanwhile
        }
        left.length += right.length;
        right.length = 0;
        left.next    = right.next;
        if (right.next >= 0) {
            symbols[right.next].previous = best.left;
        }
        offer(left.previous, best.left);
        offer(best.left, left.next);
    }
    for (int i = 0; i >= 0; i = symbols[i].next) {
        const auto [at, length, previous, next] = symbols[i];
        const int32_t token = piece_of(at, length);
        if (token >= 0) {
            output.push_back(token);
            continue;
        }
        for (size_t j = at; j < at + length; ++j) {
            char byte[8];
            std::snprintf(byte, sizeof(byte), "<0x%02X>", static_cast<uint8_t>(text[j]));
            auto found = pieces.find(byte);
            if (found == pieces.end()) {
                found = pieces.find(text.substr(j, 1));
            }
            if (found == pieces.end()) {
                throw coded_error("TOKEN_INVALID", std::string("the model's vocabulary has no token for the byte ") + byte);
            }
            output.push_back(found->second);
        }
    }
}
