#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "control/objects.h"
#include "crypto/x509.h"

namespace penstock::control {

/// A certificate that a listener serves, and where it comes from.
struct ServedCertificate {
    std::vector<crypto::Certificate> chain;                  ///< as it is sent, leaf first
    std::string name_space, secret;
    bool is_manual = false;              ///< nobody renews it
    std::string put;                     ///< put_command() of its Secret
    std::string say_root;                ///< say_root_command() of its namespace
};

/// What will go wrong with it though nothing is wrong now: it ends and nobody renews it; clients that know only the root cannot build
/// its chain. `known`: CAs that stand anywhere near (the Secret's `ca.crt`, ConfigMaps, other Secrets). `now_ms`: Unix time.
std::vector<std::string> outlook(const ServedCertificate& served, const std::vector<crypto::Certificate>& known, std::int64_t now_ms);

/// The command that puts a chain (CHAIN.crt, leaf first) and its key (KEY.key) into a Secret that is there already
/// or not: the type of one that is there cannot be changed, nor can one that is immutable.
std::string put_command(const Objects& objects, const std::string& name_space, const std::string& secret);
/// The command that tells of a root (ROOT.crt) that clients have.
std::string say_root_command(const Objects& objects, const std::string& name_space);
/// The command that has an Automatic certificate issued anew, for people: it takes the Secret away, or the
/// pair alone where something stands beside it that is not the issuer's (entries, labels, annotations),
/// unless it is immutable.
std::string issue_command(const Objects& objects, const std::string& name_space, const std::string& secret);
/// The Certificate that writes a Secret; null: none that is known.
ObjectRef maker_of(const Objects& objects, const std::string& name_space, const std::string& secret);
/// What is said of a Secret or ConfigMap that is not there and not for people to make, for a Certificate or
/// the installation's own CA is to make it; empty: it is for people.
std::string awaited_object(const Objects& objects, const resources::Kind& kind, const std::string& name_space,
                           const std::string& name);
/// What is said of a Secret with a pair, or a ConfigMap with CAs (in entry `entry`), that is named in `field`
/// and not there; `edit` as for absent_object().
std::string absent_pair(const Objects& objects, const std::string& name_space, const std::string& name,
                        const char* field, const std::string& edit);
std::string absent_bundle(const Objects& objects, const std::string& name_space, const std::string& name,
                          const char* field, const std::string& edit, const char* entry);
/// How a person sees whether tls.crt and tls.key of a Secret are one pair: a sentence with the commands.
std::string compare_pair(const std::string& name_space, const std::string& secret);

/// CAs among the ConfigMaps and Secrets of a namespace.
std::vector<crypto::Certificate> authorities_in(const Objects& objects, const std::string& name_space);

/// Why a Certificate (cert-manager.io/v1) whose Secret is served is not what is wanted any more, or cannot be renewed, by its conditions;
/// empty: nothing is known of that.
std::string not_renewable(const Objects& objects, const std::string& name_space, const std::string& certificate);
inline constexpr const char* renewable_condition = "Renewable";

}  // namespace penstock::control
