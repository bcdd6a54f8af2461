#include "base/random.h"

#include <sys/random.h>

#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

namespace penstock {

void random_bytes(void* out, std::size_t size) noexcept {
    auto* at = static_cast<char*>(out);
    while (size > 0) {
        const auto got = getrandom(at, size, 0);
        if (got < 0) std::abort();
        at += got;
        size -= static_cast<std::size_t>(got);
    }
}

std::uint64_t random_u64() noexcept {
    std::uint64_t out = 0;
    random_bytes(&out, sizeof out);
    return out;
}

std::string random_uuid() {
    unsigned char b[16];
    random_bytes(b, sizeof b);
    b[6] = static_cast<unsigned char>((b[6] & 0x0F) | 0x40);
    b[8] = static_cast<unsigned char>((b[8] & 0x3F) | 0x80);
    std::string out;
    for (int i = 0; i < 16; ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
        out += fmt::format("{:02x}", b[i]);
    }
    return out;
}

std::string random_text(std::size_t length, const char* alphabet) {
    const auto size = std::strlen(alphabet);
    std::string out;
    while (out.size() < length) out += alphabet[random_u64() % size];
    return out;
}

}  // namespace penstock
