#include "app/terminal_guard.h"

#include <unistd.h>

#include <array>
#include <iostream>

#include "base/text.h"
#include "base/utf8.h"

namespace penstock::app {
namespace {

constexpr std::array<std::string_view, 4> colours{"\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"};

/// Bytes at the beginning that are a whole unit: a character, one of our colours, or a byte that is neither. 0: more is needed.
std::size_t unit_of(std::string_view text) {
    if (text[0] == '\x1b') {
        for (const auto colour : colours) {
            if (text.starts_with(colour)) return colour.size();
            if (colour.starts_with(text)) return 0;
        }
        return 1;
    }
    if (const auto next = next_utf8(text); next.bytes > 0) return next.bytes;
    const auto first = static_cast<unsigned char>(text[0]);
    const std::size_t wanted = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 1;
    bool is_cut = text.size() < wanted;
    for (std::size_t i = 1; i < text.size() && is_cut; ++i) is_cut = (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
    return is_cut ? 0 : 1;
}

}  // namespace

void TerminalGuard::pass(std::string_view text, bool is_all) {
    std::string out;
    while (!text.empty()) {
        auto size = unit_of(text);
        if (size == 0 && !is_all) break;
        if (size == 0) size = 1;
        const auto unit = text.substr(0, size);
        const bool as_is = unit == "\n" || unit == "\t" || (unit == "\r" && carriage_return_) || (unit[0] == '\x1b' && size > 1);
        out += as_is ? std::string(unit) : printable(unit);
        text.remove_prefix(size);
    }
    cut_ = text;
    to_->sputn(out.data(), static_cast<std::streamsize>(out.size()));
}

std::streamsize TerminalGuard::xsputn(const char* text, std::streamsize size) {
    const auto whole = cut_ + std::string(text, static_cast<std::size_t>(size));
    pass(whole, false);
    return size;
}

TerminalGuard::int_type TerminalGuard::overflow(int_type byte) {
    if (traits_type::eq_int_type(byte, traits_type::eof())) return traits_type::not_eof(byte);
    const auto letter = traits_type::to_char_type(byte);
    xsputn(&letter, 1);
    return byte;
}

int TerminalGuard::sync() {
    const auto rest = cut_;
    pass(rest, true);
    return to_->pubsync();
}

void guard_terminals() {
    // Never destroyed: the streams outlive everything that may write to them.
    if (isatty(STDOUT_FILENO) == 1) std::cout.rdbuf(new TerminalGuard(std::cout.rdbuf(), false));   // NOLINT
    if (isatty(STDERR_FILENO) == 1) std::cerr.rdbuf(new TerminalGuard(std::cerr.rdbuf(), true));    // NOLINT
}

}  // namespace penstock::app
