#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace penstock::auth {

using Attributes = std::map<std::string, std::string>;

/// Who a client turned out to be.
struct Principal {
    std::string method;                  ///< `X509`, `ServiceAccountToken`, `Custom`, `Password`; empty: nobody asked
    std::string user_name;               ///< what rules see: the certificate's CN, the account, the verified user name
    /// Whose session it is: another identity does not get it. Empty: anybody's.
    std::string id;
    std::shared_ptr<const Attributes> attributes;
    std::int64_t expires_at = 0;         ///< Unix ms at which the credential ends; 0: never
    std::int64_t review_at = 0;          ///< Unix ms at which Authenticator::review is to be asked again while the client is connected; 0: never
    /// What the method needs to look at the client again, such as the account's uid.
    std::string evidence;

    [[nodiscard]] const std::string* attribute(const std::string& name) const {
        if (attributes == nullptr) return nullptr;
        const auto found = attributes->find(name);
        return found == attributes->end() ? nullptr : &found->second;
    }
};

}  // namespace penstock::auth
