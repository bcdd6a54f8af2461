#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "app/identity.h"
#include "base/held_folder.h"

namespace penstock::app {

/// Keeps the API's certificates and keys current while it runs: what is due is renewed, what somebody put
/// into the folder `pki` is taken over, and whoever uses it is told. What cannot be read or written leaves
/// what is in force as it is, and says so. Core: one control thread; facts() from any.
class IdentityKeeper {
  public:
    struct Users {
        /// Takes other certificates over. The error says why it could not; it is called again at the next
        /// look then.
        std::function<Result<void>(const Identity&)> identity;
        std::function<void(const std::vector<std::string>&)> token_keys;
    };
    /// How often look() is to be called: clocks jump and files change, so nothing sleeps until a date.
    static constexpr int look_ms = 10'000;

    explicit IdentityKeeper(std::filesystem::path folder) : folder_(std::move(folder)) {}
    /// The folder `pki` of that one: nothing is read or made while it is not there.
    explicit IdentityKeeper(std::shared_ptr<HeldFolder> data) : folder_(data->at("pki")), data_(std::move(data)) {}
    /// Reads what there is and makes what is missing. `now_ms`: Unix time, here and below.
    Result<void> open(std::int64_t now_ms);
    [[nodiscard]] const Identity& identity() const { return identity_; }
    [[nodiscard]] const TokenKeys& token_keys() const { return token_keys_; }

    void set_users(Users users) { users_ = std::move(users); }
    /// Renews and takes over what is due, and puts back what is in force and was lost. Of a folder in which files
    /// are missing or empty it waits for the second look that finds the same: somebody may be at work in it.
    void look(std::int64_t now_ms);
    /// Files are missing or empty about which look() has not done anything yet. Cheap: it may be asked often.
    [[nodiscard]] bool has_lost_files() const;
    /// Every certificate and key with its dates and faults.
    [[nodiscard]] std::vector<api::OwnCertificate> facts(std::int64_t now_ms) const;

  private:
    void look_at_certificates(std::int64_t now_ms);
    void look_at_token_keys(std::int64_t now_ms);
    void say(std::string& last, std::string now, const char* what) const;

    [[nodiscard]] std::string named(std::string text) const { return data_ ? data_->named(std::move(text)) : text; }

    std::filesystem::path folder_;
    std::shared_ptr<HeldFolder> data_;   ///< null: folder_ is where it is
    Users users_;
    Identity identity_;
    TokenKeys token_keys_;
    bool is_told_ = true;   ///< the users have what is in force
    std::vector<std::string> lost_;      ///< what the last look found missing or empty
    bool is_lost_settled_ = false;       ///< and the one before it
    std::string said_, said_of_keys_;   ///< what was logged last, so that it is logged once
    mutable std::mutex guard_;   ///< of what facts() reads: written by look(), which alone reads it without
    std::string fault_;
};

}  // namespace penstock::app
