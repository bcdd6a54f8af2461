#include <array>
#include <vector>

#include "auth/methods.h"
#include "base/keyed_hash.h"
#include "base/random.h"
#include "crypto/hash.h"
#include "crypto/password.h"
#include "crypto/signature.h"

namespace penstock::auth {

namespace {
constexpr std::size_t remembered_max = 10'000;
constexpr std::size_t password_bytes_max = 1024, user_bytes_max = 1024;
}  // namespace

struct PasswordMethod::State {
    std::map<std::string, User, std::less<>> users;
    /// What a user that does not exist is checked against: as costly as the hashes of those who do, in the same proportions.
    std::vector<std::string> decoys;
    std::string salt;                    ///< of the digests below; never leaves the process
    std::mutex guard;                    ///< remembered
    std::unordered_map<std::string, std::string, TextHash> remembered;   ///< user → digest of the password that was right

    [[nodiscard]] std::string digest(std::string_view user, std::string_view password) const {
        return crypto::sha256(salt + std::to_string(user.size()) + ":" + std::string(user) + std::string(password));
    }
    [[nodiscard]] Principal principal(const std::string& user) const {
        Principal out{.method = "Password", .user_name = user, .id = "user/" + user};
        if (const auto found = users.find(user); found != users.end()) {
            out.attributes = found->second.attributes;
            out.evidence = crypto::sha256(found->second.hash);
        }
        return out;
    }
};

PasswordMethod::PasswordMethod(std::map<std::string, User, std::less<>> users, std::shared_ptr<Crew> crew) : state_(std::make_shared<State>()), crew_(std::move(crew)) {
    state_->users = std::move(users);
    state_->salt.resize(32);
    random_bytes(state_->salt.data(), state_->salt.size());
    for (const auto& [name, user] : state_->users) state_->decoys.push_back(user.hash);
    if (state_->decoys.empty()) state_->decoys.push_back(crypto::hash_password(random_text(40)));
}

Step PasswordMethod::check(const Credentials& credentials, const std::function<Resume()>& later) {
    if (!credentials.user_name || credentials.is_again) return {};
    const std::string user(*credentials.user_name), password(credentials.password.value_or(""));
    const auto wrong = [] { return Verdict::refused(mqtt::ReasonCode::bad_user_name_or_password, "the user name or the password is wrong"); };
    if (password.size() > password_bytes_max || user.size() > user_bytes_max) return Step::of(wrong());
    const auto digest = state_->digest(user, password);
    {
        const std::lock_guard lock(state_->guard);
        const auto found = state_->remembered.find(user);
        if (found != state_->remembered.end() && crypto::equal_constant_time(found->second, digest)) return Step::of(Verdict::accepted(state_->principal(user)));
    }
    const auto known = state_->users.find(user);
    const bool exists = known != state_->users.end();
    // The same name always meets the same decoy, so that asking twice tells no more than asking once.
    const auto choice = crypto::sha256(state_->salt + user);
    auto hash = exists ? known->second.hash : state_->decoys[(static_cast<std::size_t>(static_cast<unsigned char>(choice[0])) << 8 | static_cast<unsigned char>(choice[1])) % state_->decoys.size()];
    const auto bytes = 512 + hash.size() + credentials.client_id.size() + user.size() + password.size() + credentials.data.size();
    crew_->add(credentials.network, [state = state_, resume = later(), hash = std::move(hash), exists, user, password, digest, wrong, asker = credentials.asker](bool has_room) {
        if (asker && asker->expired()) return;   // its client did not wait: others do
        if (!has_room) {
            auto busy = Verdict::refused(mqtt::ReasonCode::server_busy, "too many passwords are being checked; retry later");
            busy.is_fault = true;
            return resume(Step::of(std::move(busy)));
        }
        const bool good = crypto::verify_password(hash, password) && exists;
        if (good) {
            const std::lock_guard lock(state->guard);
            if (state->remembered.size() >= remembered_max) state->remembered.clear();
            state->remembered[user] = digest;
        }
        resume(Step::of(good ? Verdict::accepted(state->principal(user)) : wrong()));
    }, bytes);
    return {.kind = Step::Kind::wait, .verdict = {}};
}

std::string PasswordMethod::review(Principal& principal, const std::vector<crypto::Certificate>&, std::int64_t) {
    const auto known = state_->users.find(principal.user_name);
    if (known == state_->users.end()) return "the user is gone";
    if (crypto::sha256(known->second.hash) != principal.evidence) return "the user's password was changed";
    principal.attributes = known->second.attributes;
    return {};
}

}  // namespace penstock::auth
