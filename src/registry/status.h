#pragma once
#include <expected>
#include <string>

#include "resources/schema.h"

namespace penstock::registry {

/// A refusal in the terms of the Kubernetes API (`Status` of kind Failure).
struct Failure {
    int code = 500;
    std::string reason = "InternalError";
    std::string message;
    resources::Json details = resources::Json::object();

    [[nodiscard]] resources::Json to_json() const;
};

template <class T>
using Answer = std::expected<T, Failure>;

Failure not_found(const resources::Kind& kind, const std::string& name);
Failure already_exists(const resources::Kind& kind, const std::string& name);
Failure conflict(const resources::Kind& kind, const std::string& name, const std::string& why);
Failure bad_request(std::string message);
Failure forbidden(const resources::Kind& kind, const std::string& name, const std::string& why);
/// 422 with one cause per fault, all of them in the message.
Failure invalid(const resources::Kind& kind, const std::string& name, const std::vector<resources::Fault>& faults);

}  // namespace penstock::registry
