#pragma once
#include <map>
#include <string>
#include <string_view>

namespace penstock::api {

/// The path of a request as a handler takes it: cut where its '/' are and decoded then (RFC 3986, 2.2). A '/'
/// that was encoded separates nothing and stays as `%2F`; what is no encoding stays as it is. Any thread.
std::string decoded_path(std::string_view path);
/// The parameters behind the '?'. Of one that is given twice the first counts, as in Kubernetes. Any thread.
std::map<std::string, std::string> decoded_query(std::string_view query);

}  // namespace penstock::api
