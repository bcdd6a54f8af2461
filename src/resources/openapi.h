#pragma once
#include <string>
#include <vector>

#include "resources/schema.h"

namespace penstock::resources {

/// `api/v1` or `apis/GROUP/VERSION`: the name of the kind's group in OpenAPI and its path in the API.
std::string group_path(const Kind& kind);
/// `io.k8s.api.core.v1.Secret`: the name of a kind's definition.
std::string definition_name(const Kind& kind);
/// The OpenAPI v3 document of one group and version; null when none of the kinds is in it.
Json openapi_v3(const std::vector<const Kind*>& kinds, const std::string& group, const std::string& version);
/// The OpenAPI v2 document of all kinds as JSON.
Json openapi_v2(const std::vector<const Kind*>& kinds, const std::string& version);
/// The same in the protobuf form of gnostic's openapi_v2.Document, which kubectl up to 1.26 demands.
std::string openapi_v2_protobuf(const std::vector<const Kind*>& kinds, const std::string& version);

}  // namespace penstock::resources
