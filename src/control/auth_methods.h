#pragma once
#include <memory>
#include <string>
#include <vector>

#include "control/security.h"

namespace penstock::control {

/// An entry of spec.authenticationMethods, and what is to be made of it. Borrows what it names.
struct MethodEntry {
    const Objects& objects;
    const SecurityBuilder::Options& options;
    const resources::Json& authentication;         ///< the BrokerAuthentication
    const resources::Json& settings;               ///< the entry
    std::string name_space, name;                  ///< of the BrokerAuthentication
    std::size_t index = 0;                         ///< of the entry
    std::vector<ObjectRef> inputs;                 ///< as the kind's `inputs` names them; null: not there
    std::shared_ptr<const auth::TokenFacts> facts; ///< for service-account tokens

    /// `BrokerAuthentication NAME: spec.authenticationMethods[0]`.
    [[nodiscard]] std::string path() const;
    /// The command that edits the BrokerAuthentication.
    [[nodiscard]] std::string edit() const;
};

/// What came of it: a method, or faults.
struct MadeMethod {
    struct Fault {
        std::string text;                          ///< begins with the field below the entry
        bool is_lack = false;                      ///< a ConfigMap or Secret does not exist
    };
    std::shared_ptr<auth::Method> method;          ///< null: there are faults
    std::vector<Fault> faults;
    std::vector<std::string> warnings;
    std::vector<crypto::Certificate> authorities;  ///< X509: whose certificates clients are asked for
    WayIn way;
};

/// A ConfigMap or Secret that a method is made of.
struct MethodInput {
    const char* kind;
    std::string name;                              ///< empty: the entry names none
};

/// A kind of method: one row of the table below.
struct MethodKind {
    const char* word;                              ///< in the field `method`
    bool wants_certificate;                        ///< clients are asked for one
    bool wants_tokens;                             ///< it needs MethodEntry::facts
    /// The objects it is made of, in the namespace of its BrokerAuthentication. That one of them changes is
    /// noticed by this alone.
    std::vector<MethodInput> (*inputs)(const resources::Json& settings);
    /// On the control thread. Blocks for no network.
    MadeMethod (*make)(const MethodEntry& entry);
};
/// The kind of an entry. A word that is none is taken for a custom server: a stored object of another version
/// may have what this one does not know, and admission lets no other in.
const MethodKind& method_kind_of(const resources::Json& settings);

}  // namespace penstock::control
