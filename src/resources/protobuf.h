#pragma once
#include <string>
#include <string_view>

#include "resources/json.h"

namespace penstock::resources {

/// True when the bytes begin with the envelope of Kubernetes' protobuf encoding (`k8s` and a zero).
bool is_protobuf(std::string_view body);
/// A request body of `application/vnd.kubernetes.protobuf` as JSON, with its apiVersion and kind. The error says what is
/// wrong with the bytes, or that there is no table for the kind (then `unknown_kind` is set).
Result<Json> decode_protobuf(std::string_view body, bool& unknown_kind);
/// The wire form of a JSON object, for tests and fuzzing: the inverse of decode_protobuf.
Result<std::string> encode_protobuf(const Json& object);

}  // namespace penstock::resources
