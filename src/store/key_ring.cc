#include "store/key_ring.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "base/file.h"
#include "base/random.h"
#include "base/text.h"

namespace penstock::store {
namespace fs = std::filesystem;

const KeyRing::Key* KeyRing::find(std::uint32_t id) const noexcept {
    const auto at = std::ranges::find(keys, id, &Key::id);
    return at == keys.end() ? nullptr : &*at;
}

void KeyRing::add(std::string label) {
    Key key{.id = 1, .bytes = std::string(32, '\0'), .label = std::move(label)};
    for (const auto& other : keys) key.id = std::max(key.id, other.id + 1);
    random_bytes(key.bytes.data(), key.bytes.size());
    keys.push_back(std::move(key));
}

Result<KeyRing> KeyRing::parse(std::string_view text, const std::string& name) {
    KeyRing out;
    int number = 0;
    for (const auto raw : split(text, '\n')) {
        ++number;
        const auto line = trim(raw);
        if (line.empty() || line.starts_with('#')) continue;
        const auto first = line.find(' ');
        const auto second = line.find(' ', first == std::string_view::npos ? first : first + 1);
        const auto id = parse_number<std::uint32_t>(line.substr(0, first));
        if (!id || *id == 0) return fail(fmt::format("{} line {}: begins with no key number from 1 on; a line is NUMBER KEY LABEL", name, number));
        const auto bytes = first == std::string_view::npos ? std::nullopt : base64_decode(line.substr(first + 1, second == std::string_view::npos ? second : second - first - 1));
        if (!bytes || bytes->size() != 32) return fail(fmt::format("{} line {}: the key is not 32 bytes in base64 (openssl rand -base64 32 makes one)", name, number));
        if (out.find(*id) != nullptr) return fail(fmt::format("{} line {}: key {} is there twice", name, number, *id));
        out.keys.push_back({.id = *id, .bytes = *bytes, .label = second == std::string_view::npos ? "" : std::string(trim(line.substr(second)))});
    }
    return out;
}

Result<KeyRing> KeyRing::read(const std::string& path) {
    std::error_code error;
    if (!fs::exists(path, error) && !error) return KeyRing{};
    const auto text = read_whole_file(path);
    if (!text) return std::unexpected(text.error());
    return parse(*text, path);
}

Result<void> KeyRing::write(const std::string& path) const {
    std::string text = "# Keys of the broker's state on disk; the last one seals what is written now. Without them it cannot be read.\n";
    for (const auto& key : keys) text += fmt::format("{} {} {}\n", key.id, base64_encode(key.bytes), key.label);
    const auto beside = path + ".new";
    auto failed = [&](const std::string& where) { return fail(fmt::format("{}: {}", where, std::strerror(errno))); };
    ::unlink(beside.c_str());
    std::error_code error;
    if (fs::create_directories(fs::path(path).parent_path(), error)) fs::permissions(fs::path(path).parent_path(), fs::perms::owner_all, error);
    const int file = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) return failed(beside);
    const auto size = ::write(file, text.data(), text.size());
    if (size >= 0 && size < static_cast<ssize_t>(text.size())) errno = ENOSPC;   // no more than a part has room
    const bool written = size == static_cast<ssize_t>(text.size()) && ::fsync(file) == 0 && ::rename(beside.c_str(), path.c_str()) == 0;
    auto why = written ? Result<void>() : failed(beside);
    ::close(file);
    if (!written) {
        ::unlink(beside.c_str());   // a part takes room too
        return why;
    }
    const int folder = ::open(fs::path(path).parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = folder >= 0 && ::fsync(folder) == 0;
    if (folder >= 0) ::close(folder);
    if (!synced) return failed(path);
    return {};
}

}  // namespace penstock::store
