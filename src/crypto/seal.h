#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace penstock::crypto {

/// AES-256-GCM (NIST SP 800-38D) under one key with numbers for nonces: who seals never uses a number twice.
/// Not for use by two threads at once.
class Sealer {
  public:
    static constexpr std::size_t key_size = 32, tag_size = 16;
    /// `key` has key_size bytes.
    explicit Sealer(std::string_view key);
    ~Sealer();
    Sealer(const Sealer&) = delete;
    Sealer& operator=(const Sealer&) = delete;

    /// Writes plain.size() + tag_size bytes to `out`; `bound` is authenticated beside them. False: OpenSSL refused.
    [[nodiscard]] bool seal(std::uint64_t number, std::string_view bound, std::string_view plain, char* out);
    /// `sealed` ends with its tag; writes sealed.size() - tag_size bytes. False: not what was sealed under this key and number.
    [[nodiscard]] bool open(std::uint64_t number, std::string_view bound, std::string_view sealed, char* out);

  private:
    struct Context;
    std::unique_ptr<Context> context_;
};

/// Gives back what OpenSSL keeps for the calling thread; for threads that are not ours and never end.
void leave_thread() noexcept;

}  // namespace penstock::crypto
