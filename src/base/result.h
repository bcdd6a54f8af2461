#pragma once
#include <expected>
#include <string>

namespace penstock {

/// Control-plane error: a sentence for a person. The data plane uses mqtt::Refusal instead.
struct Error {
    std::string message;
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(std::string message) {
    return std::unexpected(Error{std::move(message)});
}

}  // namespace penstock
