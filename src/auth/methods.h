#pragma once
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "auth/authenticator.h"
#include "auth/crew.h"
#include "crypto/jws.h"
#include "crypto/trust.h"

namespace penstock::auth {

/// What one method says: not about me, the verdict, or later.
struct Step {
    enum class Kind : std::uint8_t { not_mine, verdict, wait };
    Kind kind = Kind::not_mine;
    Verdict verdict;
    static Step of(Verdict verdict) { return {.kind = Kind::verdict, .verdict = std::move(verdict)}; }
};
using Resume = std::function<void(Step)>;

/// One entry of `authenticationMethods`. Core: any; immutable.
class Method {
  public:
    virtual ~Method() = default;
    [[nodiscard]] virtual const char* name() const noexcept = 0;
    /// `later` makes the continuation of a Step::wait; at most once.
    virtual Step check(const Credentials& credentials, const std::function<Resume()>& later) = 0;
    /// See Authenticator::review; asked for principals of this name alone.
    virtual std::string review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) = 0;
};

/// Methods in order, as BrokerAuthentication has them: the first to which the credentials belong decides (fact sheet 4.3).
///
/// Penstock's own self-test is let in everywhere by a secret that lives in this process alone (method `PENSTOCK-PROBE`).
class MethodChain final : public Authenticator, public std::enable_shared_from_this<MethodChain> {
  public:
    static constexpr std::string_view probe_method = "PENSTOCK-PROBE";
    static constexpr const char* probe_name = "Probe";
    MethodChain(std::vector<std::shared_ptr<Method>> methods, std::shared_ptr<const std::string> probe_secret) : methods_(std::move(methods)), probe_secret_(std::move(probe_secret)) {}
    Verdict begin(const Credentials& credentials, std::unique_ptr<Exchange>& exchange, const Later& later) override;
    std::string review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) override;
    /// True when `method` is one that a client may name in its CONNECT.
    [[nodiscard]] const std::vector<std::shared_ptr<Method>>& methods() const noexcept { return methods_; }

  private:
    struct Kept;
    Verdict walk(std::size_t from, const Credentials& credentials, const Later& later, const std::shared_ptr<Kept>& kept);

    std::vector<std::shared_ptr<Method>> methods_;
    std::shared_ptr<const std::string> probe_secret_;
};

/// X.509 client certificates (fact sheet 4.5).
class X509Method final : public Method {
  public:
    struct Entry {
        std::string label, subject;
        std::shared_ptr<const Attributes> attributes;
    };
    /// Answers whether a certificate or one of those it hangs on is revoked, where that needs to be asked over the network (OCSP, RFC 6960).
    class Revocation {
      public:
        virtual ~Revocation() = default;
        struct Known {
            std::string fault;                    ///< why the client is not to be let in; empty: it is good, or the policy lets it in
            bool is_revoked = false;              ///< the fault is a responder's word, and not that there was none
            std::int64_t until_ms = 0;            ///< Unix time at which it must be asked anew; 0: there is nobody to ask
        };
        using Done = std::function<void(const Known&)>;
        /// `path`: from the client's certificate to the trusted one, or to the issuer of that where it is known. Nothing: it must be asked
        /// first, and what `later` returns gets the answer, on another thread. Any thread.
        virtual std::optional<Known> look(const std::vector<crypto::Certificate>& path, const std::function<Done()>& later) = 0;
    };
    X509Method(std::shared_ptr<const crypto::TrustStore> trust, std::vector<Entry> entries, std::string trust_name, std::shared_ptr<Revocation> revocation = nullptr)
        : rules_(std::make_shared<const Rules>(Rules{std::move(trust), std::move(entries), std::move(trust_name), std::move(revocation)})) {}
    static constexpr const char* method_name = "X509";
    const char* name() const noexcept override { return method_name; }
    Step check(const Credentials& credentials, const std::function<Resume()>& later) override;
    std::string review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) override;
    [[nodiscard]] const crypto::TrustStore& trust() const noexcept { return *rules_->trust; }

  private:
    /// What stays the same; outlives the method while an answer is waited for.
    struct Rules {
        std::shared_ptr<const crypto::TrustStore> trust;
        std::vector<Entry> entries;
        std::string trust_name;
        std::shared_ptr<Revocation> revocation;
        [[nodiscard]] Principal principal_of(const std::vector<crypto::Certificate>& path) const;
    };
    struct Search;
    static std::optional<Verdict> go_on(const std::shared_ptr<Search>& search, const std::function<Resume()>& later);
    std::shared_ptr<const Rules> rules_;
};

/// What is needed to check service-account tokens, as it was at one moment.
struct TokenFacts {
    std::vector<std::string> issuers;
    std::map<std::string, crypto::JwsKey> keys;   ///< by `kid`
    struct Account {
        std::string uid;
        std::shared_ptr<const Attributes> attributes;
    };
    std::unordered_map<std::string, Account> accounts;       ///< by `namespace/name`
    std::unordered_set<std::string> bound_uids;              ///< of Secrets, Pods and Nodes a token may be bound to
    bool is_known = false;                                   ///< false: nothing could be read yet
};

/// `K8S-SAT` by enhanced authentication (fact sheet 4.4). Tokens are JWTs (RFC 7519, 7515): the key decides which algorithm is
/// taken, the token's own `alg` must agree.
class TokenMethod final : public Method {
  public:
    static constexpr std::string_view wire_name = "K8S-SAT";
    TokenMethod(std::vector<std::string> audiences, std::shared_ptr<const TokenFacts> facts) : audiences_(std::move(audiences)), facts_(std::move(facts)) {}
    const char* name() const noexcept override { return "ServiceAccountToken"; }
    Step check(const Credentials& credentials, const std::function<Resume()>& later) override;
    std::string review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) override;
    /// The principal behind a token, or why not. Never quotes the token.
    [[nodiscard]] Result<Principal> verify(std::string_view token, std::int64_t now_ms) const;

  private:
    std::vector<std::string> audiences_;
    std::shared_ptr<const TokenFacts> facts_;
};

/// User names with hashed passwords. Hashing runs on a crew; a wrong user costs what a wrong password costs.
class PasswordMethod final : public Method {
  public:
    struct User {
        std::string hash;                         ///< see crypto/password.h
        std::shared_ptr<const Attributes> attributes;
    };
    PasswordMethod(std::map<std::string, User, std::less<>> users, std::shared_ptr<Crew> crew);
    const char* name() const noexcept override { return "Password"; }
    Step check(const Credentials& credentials, const std::function<Resume()>& later) override;
    std::string review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) override;

  private:
    struct State;
    std::shared_ptr<State> state_;
    std::shared_ptr<Crew> crew_;
};

/// Somebody else's HTTPS server decides (fact sheet 4.6).
class CustomMethod final : public Method {
  public:
    struct Question {
        bool is_auth = false;                     ///< AUTH of a connected client instead of CONNECT
        std::optional<std::string> user_name, password, method;
        std::string data;
        std::string certificates;                 ///< PEM
        std::string network;                      ///< see Credentials
        std::optional<std::weak_ptr<const void>> asker{};  ///< see Credentials
    };
    struct Answer {
        enum class Kind : std::uint8_t { accept, refuse, unreachable };
        Kind kind = Kind::unreachable;
        int reason = 0x87;
        std::string message;
        std::int64_t expires_at = 0;              ///< Unix ms
        Attributes attributes;
    };
    class Server {
      public:
        virtual ~Server() = default;
        /// Never blocks; `done` is called once, from any thread.
        virtual void ask(Question question, std::function<void(Answer)> done) = 0;
        /// Why it cannot be reached, by the last word of it; empty: it can, or nobody knows yet. Any thread.
        [[nodiscard]] virtual std::string fault() const { return {}; }
        /// Asks for a sign of life when there was none for long. Never blocks.
        virtual void look() {}
    };
    /// `closed`: an unreachable server refuses instead of leaving the decision to the next method.
    CustomMethod(std::shared_ptr<Server> server, bool closed) : server_(std::move(server)), closed_(closed) {}
    const char* name() const noexcept override { return "Custom"; }
    Step check(const Credentials& credentials, const std::function<Resume()>& later) override;
    std::string review(Principal&, const std::vector<crypto::Certificate>&, std::int64_t) override { return {}; }

  private:
    std::shared_ptr<Server> server_;
    bool closed_;
};

}  // namespace penstock::auth
