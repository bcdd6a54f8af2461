#include "api/request_target.h"

#include <charconv>
#include <utility>

#include "base/text.h"

namespace penstock::api {
namespace {

std::string percent_decoded(std::string_view text, bool plus_is_space) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned value = 0;
        const auto* digits = text.data() + i + 1;
        const bool is_code = text[i] == '%' && i + 2 < text.size();
        if (is_code && std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2) {
            out += static_cast<char>(value);
            i += 2;
        } else {
            out += plus_is_space && text[i] == '+' ? ' ' : text[i];
        }
    }
    return out;
}

}  // namespace

std::string decoded_path(std::string_view path) {
    std::string out;
    bool first = true;
    for (const auto part : split(path, '/')) {
        if (!std::exchange(first, false)) out += '/';
        for (const char c : percent_decoded(part, false)) c == '/' ? out.append("%2F") : out.append(1, c);
    }
    return out;
}

std::map<std::string, std::string> decoded_query(std::string_view query) {
    std::map<std::string, std::string> out;
    for (const auto pair : split(query, '&')) {
        const auto equal = pair.find('=');
        const auto value = equal == std::string_view::npos ? std::string_view() : pair.substr(equal + 1);
        out.emplace(percent_decoded(pair.substr(0, equal), true), percent_decoded(value, true));
    }
    return out;
}

}  // namespace penstock::api
