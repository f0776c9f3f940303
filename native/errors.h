#pragma once

#include <stdexcept>
#include <string>

// An error with one of the codes of src/util/errors.ts; the addon hands it to JavaScript as `error.code`.
struct coded_error : std::runtime_error {
    std::string code;

    coded_error(std::string code, const std::string & message)
        : std::runtime_error(message), code(std::move(code)) {}
};
