#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/given_clock.h"
#include "auth/methods.h"
#include "auth/policy.h"
#include "control/objects.h"
#include "control/ways_in.h"
#include "crypto/examination.h"
#include "tls/context.h"

namespace penstock::control {

struct MethodEntry;

/// What a port's TLS came to: something to serve with, or why not yet.
struct PreparedTls {
    std::shared_ptr<const tls::Context> context;
    std::string fault;                   ///< not empty: the port must not open; for people
    bool is_being_issued = false;        ///< ... though its issuer may be about to make it
    std::string secret;                  ///< whose certificate is served
    std::string wanted;                  ///< the Secret that the listener names now: what is put there is served next
    /// What clients make of the certificate that is served (`context`'s), as of now: with findings of weight all_refuse the port
    /// is open and no client that verifies gets in.
    crypto::IdentityJudgement judgement;
    std::vector<std::string> warnings;   ///< names that clients may use and the certificate lacks, dates, weak chains
};
struct PreparedAuthenticator {
    std::shared_ptr<auth::Authenticator> authenticator;
    std::string fault;
    std::string methods;                 ///< `ServiceAccountToken, X509`
    bool wants_certificate = false;
    std::vector<crypto::Certificate> authorities;
    std::vector<std::string> warnings;
    std::vector<WayIn> ways;             ///< by method, for what changes with time alone
    /// Not empty: the rules, or what they are made of, were deleted. `authenticator` is the last there was, for those who are connected;
    /// newcomers must wait for rules.
    std::string deleted;
    bool lacks_source = false;           ///< a fault is a ConfigMap or Secret that does not exist
    bool only_lacks = true;              ///< ... and there is no other fault
};
struct PreparedPolicy {
    std::shared_ptr<const auth::Policy> policy;
    std::string fault;
    std::size_t rules = 0;
    std::vector<std::string> warnings;   ///< parts that are empty and so match nobody
    std::string deleted;                 ///< as with PreparedAuthenticator
};

/// Keys and issuers of service-account tokens: a JWKS document (RFC 7517) and the issuers whose tokens it signs.
struct TokenKeys {
    std::vector<std::string> issuers;
    resources::Json key_set;
};

/// Makes what the data plane needs for security from the resources, and hands the same object out as long as nothing it was
/// made from changed, so that a look at the resources costs connected clients nothing. Core: one control thread.
class SecurityBuilder {
  public:
    struct Options {
        Clock clock;
        std::function<TokenKeys()> token_keys;                     ///< empty issuers: not known yet
        std::shared_ptr<const std::string> probe_secret;
        std::shared_ptr<auth::Crew> crew;
        /// A connection to a custom authentication server; the settings are a method's `customSettings`, with PEM texts
        /// resolved: `endpoint`, `ca`, `certificate`, `key`, `headers`, `timeoutSeconds`.
        std::function<std::shared_ptr<auth::CustomMethod::Server>(const resources::Json& settings)> custom_server;
        std::function<std::shared_ptr<auth::X509Method::Revocation>(const std::string& mode)> revocation;
    };
    SecurityBuilder(Objects& objects, Options options) : objects_(objects), options_(std::move(options)) {}

    /// TLS of one port. In mode Automatic it writes the Certificate resource, owned by the listener. `expected`: names and
    /// addresses clients may use, for the warnings.
    PreparedTls tls(const resources::Json& listener, const resources::Json& port, const std::vector<std::string>& expected, bool ask_certificate, const std::vector<crypto::Certificate>& authorities, bool websocket);
    PreparedAuthenticator authenticator(const std::string& name_space, const std::string& name);
    PreparedPolicy policy(const std::string& name_space, const std::string& name);
    /// A listener, and the names under which it may be dialled.
    struct Dialled {
        const resources::Json& listener;
        bool is_automatic = false;
        const std::vector<std::string>& expected;
    };
    /// Forgets what no port asked for since the last call.
    void sweep();

  private:
    template <class T>
    struct Kept {
        std::string made_from;
        T value;
        bool used = true;
        std::int64_t judged_until_ms = 0;        ///< Unix time from which the judgement about `value` may be another one
        std::string told;                ///< the fault in the log
    };
    /// Fills in the judgement and the warnings; answers until when they hold.
    std::int64_t judge(PreparedTls& prepared, const Dialled& dialled) const;
    /// The certificate before goes on when the wanted one is not there or cannot be used; without one, the fault stands.
    static PreparedTls or_last_good(Kept<PreparedTls>& kept, PreparedTls wanted, const std::string& listener);
    /// How a port uses what its Secret holds.
    struct TlsUse {
        const std::string& name_space;
        bool is_automatic = false, asks_certificate = false;
        const std::vector<crypto::Certificate>& authorities;
        bool is_websocket = false;
    };
    /// Writes the Certificate of an Automatic port, unless it is there as it is wanted. Empty, or why it
    /// could not.
    std::string ask_for_certificate(const registry::ObjectRef& current, const resources::Json& wanted);
    /// What is served out of the Secret, into `out`: a context, or a fault.
    void load(PreparedTls& out, const resources::Json& secret, const TlsUse& use) const;
    std::shared_ptr<const auth::TokenFacts> token_facts();
    /// An entry of a BrokerAuthentication with what it is made of, which is noted in `made_from` too.
    MethodEntry entry_of(const resources::Json& authentication, std::size_t index, std::string& made_from);
    [[nodiscard]] PreparedAuthenticator assemble(const std::vector<MethodEntry>& entries) const;
    /// Of a BrokerAuthentication that is not there: its last rules, or a fault.
    PreparedAuthenticator last_of_deleted(Kept<PreparedAuthenticator>& kept, const std::string& space,
                                          const std::string& name) const;
    /// The rules before, where those that are wanted have faults.
    static PreparedAuthenticator last_of_faulty(Kept<PreparedAuthenticator>& kept,
                                                const PreparedAuthenticator& faulty);

    Objects& objects_;
    Options options_;
    std::map<std::string, Kept<PreparedTls>> tls_;
    std::map<std::string, Kept<PreparedAuthenticator>> authenticators_;
    std::map<std::string, Kept<PreparedPolicy>> policies_;
    std::string facts_of_;
    std::shared_ptr<const auth::TokenFacts> facts_;
};

/// The rules of a BrokerAuthorization's spec.
std::vector<auth::Rule> rules_of(const resources::Json& authorization);
/// What is empty in a BrokerAuthorization, with its path: a person may have meant everybody, and it is nobody.
std::vector<std::string> empty_parts_of(const resources::Json& authorization);
/// Keys of the state store as resources write them (`stateStoreResources`).
std::vector<auth::Rule::Key> keys_of(const resources::Json& list);
/// The names under which clients on this machine or beyond may know a listener: its Service's, the machine's own.
std::vector<std::string> expected_hosts(const resources::Json& listener);
/// `default` of a BrokerListener's port: name of its Certificate and of its Secret.
std::string certificate_name(const resources::Json& listener, const resources::Json& port);

}  // namespace penstock::control
