#pragma once
#include <rocksdb/slice.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// How the durable store names its records: see docs/internals/formats.md.
namespace penstock::store {

inline constexpr std::uint64_t tracked = std::uint64_t{1} << 63;   // bit of a key: its delivery has a record of its own

/// Keys: one letter, the client id with its length, then what tells apart. Big-endian, so that order is order.
inline std::string client_key(char kind, std::string_view client_id) {
    std::string out(1, kind);
    out += static_cast<char>(client_id.size() >> 8);
    out += static_cast<char>(client_id.size());
    out += client_id;
    return out;
}
inline void append_u64(std::string& out, std::uint64_t number) {
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(number >> shift);
}
inline std::uint64_t read_u64(std::string_view bytes) {
    std::uint64_t out = 0;
    for (const char c : bytes.substr(0, 8)) out = out << 8 | static_cast<unsigned char>(c);
    return out;
}
inline std::string number_key(char kind, std::uint64_t number) {
    std::string out(1, kind);
    append_u64(out, number);
    return out;
}
/// The client id of a key, and what stands behind it.
inline std::string_view client_of(std::string_view key, std::string_view& rest) {
    const auto size = static_cast<std::size_t>(static_cast<unsigned char>(key[1])) << 8 | static_cast<unsigned char>(key[2]);
    rest = key.substr(3 + size);
    return key.substr(3, size);
}

/// The name of a key that ends with a packet identifier, and this. The publisher of a mark stands there with the group that it is of,
/// so that the name can be longer than its length says (it is that modulo 65,536); what stands behind it has always two bytes.
inline std::string_view name_of(std::string_view key, std::string_view& packet_id) {
    constexpr std::size_t front = 3, back = 2;
    if (key.size() < front + back) return {};
    const auto name = key.substr(front, key.size() - front - back);
    const auto size = static_cast<std::size_t>(static_cast<unsigned char>(key[1])) << 8 | static_cast<unsigned char>(key[2]);
    if ((name.size() & 0xFFFF) != size) return {};
    packet_id = key.substr(key.size() - back);
    return name;
}

/// The client id of a key with its length in front.
inline std::string_view client_part(std::string_view key) {
    std::string_view rest;
    const auto client = client_of(key, rest);
    return key.substr(1, client.size() + 2);
}

/// Clients in the order of their keys. What is kept of them stands in the same order, so that going along is cheaper than looking up.
class Clients {
  public:
    void add(std::string_view key) { all_.emplace_back(client_part(key)); }
    /// Before the keys of another kind.
    void rewind() noexcept { at_ = 0; }
    /// Keys come in order.
    bool has(std::string_view key) {
        const auto client = client_part(key);
        while (at_ < all_.size() && all_[at_] < client) ++at_;
        return at_ < all_.size() && all_[at_] == client;
    }

  private:
    std::vector<std::string> all_;
    std::size_t at_ = 0;
};

inline std::string_view view_of(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }
inline rocksdb::Slice slice_of(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace penstock::store
