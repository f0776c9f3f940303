#pragma once

#include "llama.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// From text to tokens: by llama.cpp, but for texts of which parts are literal. No control token is read there, and the tokens
// are those of the one text that all parts make.
class tokenizer {
public:
    explicit tokenizer(const llama_model * model);

    // Parts in turn: as written, literal, as written, ... Nothing is added in front.
    std::vector<int32_t> tokenize(const std::vector<std::string> & parts) const;

    // Those that a literal text is never read as.
    std::vector<int32_t> control_tokens() const;

private:
    struct special {
        int32_t     id;
        std::string text;
        bool        control;         // otherwise it belongs to plain texts too
        bool        plain_for_llama; // though it is control
        bool        strips_left, strips_right;
    };
    struct range { size_t from, to; };
    // A piece of the text between special tokens, or such a token.
    struct fragment { range at; int32_t token; };

    std::vector<int32_t>  plain(std::string_view text, bool parse_special) const;
    std::vector<int32_t>  masked(const std::string & text, const std::vector<range> & literals) const;
    std::vector<fragment> partition(const std::string & text, const std::vector<range> & literals) const;
    bool                  is_control(int32_t token) const;
    bool                  holds_control(std::string_view text) const;
    void spell(std::string_view text, std::vector<int32_t> & output) const;
    void spell_spm(std::string_view text, std::vector<int32_t> & output) const;

    const llama_vocab *   vocab;
    enum llama_vocab_type type;
    bool                  space_prefix  = false; // SentencePiece only
    bool                  counts_digits = false; // an expression that takes time with the square of a number's digits
    std::vector<special>  specials;     // in the order in which llama.cpp looks for them
    // SentencePiece only, made when first needed: tokens by their text, without control tokens.
    mutable std::unordered_map<std::string, int32_t> pieces;
};
