#include "store/memory_engine.h"

#include <algorithm>

namespace penstock::store {
namespace {

constexpr std::string_view leaving_prefix{"\0leaving", 8};

}  // namespace

std::unique_ptr<Engine> make_memory_engine(OverflowLane* overflow) { return std::make_unique<MemoryEngine>(overflow); }

std::string leaving_name(std::uint64_t number) {
    std::string out(leaving_prefix);
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(number >> shift);
    return out;
}
bool is_leaving_name(std::string_view publisher) noexcept { return publisher.starts_with(leaving_prefix) && publisher.size() >= leaving_prefix.size() + 8; }
std::uint64_t number_of_leaving(std::string_view name) noexcept {
    std::uint64_t out = 0;
    for (const char c : name.substr(leaving_prefix.size(), 8)) out = out << 8 | static_cast<unsigned char>(c);
    return out;
}

}  // namespace penstock::store
