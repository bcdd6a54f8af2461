// Request bodies in Kubernetes' protobuf, by tables: newer kubectl and helm send the built-in kinds in this form alone.
// Field numbers are those of k8s.io/api's generated.proto files.
#include "resources/protobuf.h"

#include <map>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/text.h"
#include "base/utf8.h"

namespace penstock::resources {
namespace {

constexpr int depth_max = 32;

/// s text, b boolean, i integer, y bytes, t Time, u MicroTime, I int-or-string, r raw JSON, or the name of a message.
/// `[]` before it: repeated; `{}`: map from text; `*`: a pointer in Go, so that a zero is meant.
/// One line per message: `Name: number name type, ...`.
constexpr std::string_view tables = R"(
ObjectMeta: 1 name s, 2 generateName s, 3 namespace s, 4 selfLink s, 5 uid s, 6 resourceVersion s, 7 generation i, 8 creationTimestamp t, 9 deletionTimestamp t, 10 deletionGracePeriodSeconds *i, 11 labels {}s, 12 annotations {}s, 13 ownerReferences []OwnerReference, 14 finalizers []s, 17 managedFields []ManagedFieldsEntry
OwnerReference: 1 kind s, 3 name s, 4 uid s, 5 apiVersion s, 6 controller *b, 7 blockOwnerDeletion *b
ManagedFieldsEntry: 1 manager s, 2 operation s, 3 apiVersion s, 4 time t, 6 fieldsType s, 7 fieldsV1 FieldsV1, 8 subresource s
FieldsV1: 1 raw r
LabelSelector: 1 matchLabels {}s, 2 matchExpressions []LabelSelectorRequirement
LabelSelectorRequirement: 1 key s, 2 operator s, 3 values []s
DeleteOptions: 1 gracePeriodSeconds *i, 2 preconditions Preconditions, 3 orphanDependents *b, 4 propagationPolicy *s, 5 dryRun []s
Preconditions: 1 uid *s, 2 resourceVersion *s
Namespace: 1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status NamespaceStatus
NamespaceSpec: 1 finalizers []s
NamespaceStatus: 1 phase s
Secret: 1 metadata ObjectMeta, 2 data {}y, 3 type s, 4 stringData {}s, 5 immutable *b
ConfigMap: 1 metadata ObjectMeta, 2 data {}s, 3 binaryData {}y, 4 immutable *b
ServiceAccount: 1 metadata ObjectMeta, 2 secrets []ObjectReference, 3 imagePullSecrets []LocalObjectReference, 4 automountServiceAccountToken *b
LocalObjectReference: 1 name s
ObjectReference: 1 kind s, 2 namespace s, 3 name s, 4 uid s, 5 apiVersion s, 6 resourceVersion s, 7 fieldPath s
Service: 1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status ServiceStatus
ServiceStatus: 1 loadBalancer LoadBalancerStatus
LoadBalancerStatus: 1 ingress []LoadBalancerIngress
LoadBalancerIngress: 1 ip s, 2 hostname s, 3 ipMode *s
ServiceSpec: 1 ports []ServicePort, 2 selector {}s, 3 clusterIP s, 4 type s, 5 externalIPs []s, 7 sessionAffinity s, 8 loadBalancerIP s, 9 loadBalancerSourceRanges []s, 10 externalName s, 11 externalTrafficPolicy s, 12 healthCheckNodePort i, 13 publishNotReadyAddresses b, 17 ipFamilyPolicy *s, 18 clusterIPs []s, 19 ipFamilies []s, 20 allocateLoadBalancerNodePorts *b, 21 loadBalancerClass *s, 22 internalTrafficPolicy *s, 23 trafficDistribution *s
ServicePort: 1 name s, 2 protocol s, 3 port i, 4 targetPort I, 5 nodePort i, 6 appProtocol *s
Event: 1 metadata ObjectMeta, 2 involvedObject ObjectReference, 3 reason s, 4 message s, 5 source EventSource, 6 firstTimestamp t, 7 lastTimestamp t, 8 count i, 9 type s, 10 eventTime u, 11 series EventSeries, 12 action s, 13 related ObjectReference, 14 reportingComponent s, 15 reportingInstance s
EventSource: 1 component s, 2 host s
EventSeries: 1 count i, 2 lastObservedTime u
PolicyRule: 1 verbs []s, 2 apiGroups []s, 3 resources []s, 4 resourceNames []s, 5 nonResourceURLs []s
Role: 1 metadata ObjectMeta, 2 rules []PolicyRule
ClusterRole: 1 metadata ObjectMeta, 2 rules []PolicyRule, 3 aggregationRule AggregationRule
AggregationRule: 1 clusterRoleSelectors []LabelSelector
RoleBinding: 1 metadata ObjectMeta, 2 subjects []Subject, 3 roleRef RoleRef
ClusterRoleBinding: 1 metadata ObjectMeta, 2 subjects []Subject, 3 roleRef RoleRef
Subject: 1 kind s, 2 apiGroup s, 3 name s, 4 namespace s
RoleRef: 1 apiGroup s, 2 kind s, 3 name s
TokenRequest: 1 metadata ObjectMeta, 2 spec TokenRequestSpec, 3 status TokenRequestStatus
TokenRequestSpec: 1 audiences []s, 3 boundObjectRef BoundObjectReference, 4 expirationSeconds *i
BoundObjectReference: 1 kind s, 2 apiVersion s, 3 name s, 4 uid s
TokenRequestStatus: 1 token s, 2 expirationTimestamp t
TokenReview: 1 metadata ObjectMeta, 2 spec TokenReviewSpec, 3 status TokenReviewStatus
TokenReviewSpec: 1 token s, 2 audiences []s
TokenReviewStatus: 1 authenticated b, 2 user UserInfo, 3 error s, 4 audiences []s
UserInfo: 1 username s, 2 uid s, 3 groups []s, 4 extra {}Items
Items: 1 items []s
SelfSubjectReview: 1 metadata ObjectMeta, 2 status SelfSubjectReviewStatus
SelfSubjectReviewStatus: 1 userInfo UserInfo
SelfSubjectAccessReview: 1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec, 3 status AccessReviewStatus
SelfSubjectAccessReviewSpec: 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes
SubjectAccessReview: 1 metadata ObjectMeta, 2 spec SubjectAccessReviewSpec, 3 status AccessReviewStatus
LocalSubjectAccessReview: 1 metadata ObjectMeta, 2 spec SubjectAccessReviewSpec, 3 status AccessReviewStatus
SubjectAccessReviewSpec: 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes, 3 user s, 4 groups []s, 5 extra {}Items, 6 uid s
ResourceAttributes: 1 namespace s, 2 verb s, 3 group s, 4 version s, 5 resource s, 6 subresource s, 7 name s
NonResourceAttributes: 1 path s, 2 verb s
AccessReviewStatus: 1 allowed b, 2 reason s, 3 evaluationError s, 4 denied b
SelfSubjectRulesReview: 1 metadata ObjectMeta, 2 spec SelfSubjectRulesReviewSpec
SelfSubjectRulesReviewSpec: 1 namespace s
Lease: 1 metadata ObjectMeta, 2 spec LeaseSpec
LeaseSpec: 1 holderIdentity *s, 2 leaseDurationSeconds *i, 3 acquireTime u, 4 renewTime u, 5 leaseTransitions *i, 6 strategy *s, 7 preferredHolder *s
)";

struct Entry {
    std::string name;
    bool repeated = false, map = false, pointer = false;
    std::string type;                    // a letter or a message's name
};
using Message = std::map<std::uint32_t, Entry>;

const std::map<std::string, Message, std::less<>>& messages() {
    static const auto all = [] {
        std::map<std::string, Message, std::less<>> out;
        for (const auto line : split(tables, '\n')) {
            const auto colon = line.find(':');
            if (colon == std::string_view::npos) continue;
            auto& message = out[std::string(line.substr(0, colon))];
            for (const auto part : split(line.substr(colon + 1), ',')) {
                const auto words = split(trim(part), ' ');
                Entry entry{.name = std::string(words[1])};
                auto type = words[2];
                if (type.starts_with("[]")) entry.repeated = true, type.remove_prefix(2);
                if (type.starts_with("{}")) entry.map = true, type.remove_prefix(2);
                if (type.starts_with("*")) entry.pointer = true, type.remove_prefix(1);
                entry.type = type;
                message.emplace(parse_number<std::uint32_t>(words[0]).value_or(0), std::move(entry));
            }
        }
        return out;
    }();
    return all;
}

/// Reads wire-format fields one after the other; `fault` says why it stopped early.
class Reader {
  public:
    explicit Reader(std::string_view input) : rest_(input) {}
    bool next() {
        if (rest_.empty() || !fault.empty()) return false;
        const auto key = varint();
        if (!fault.empty()) return false;
        number = static_cast<std::uint32_t>(key >> 3);
        wire = static_cast<int>(key & 7);
        if (key >> 3 == 0 || key >> 3 > 536'870'911) return stop("field number out of range");
        if (wire == 0) value = varint();
        else if (wire == 2) {
            const auto size = varint();
            if (!fault.empty()) return false;
            if (size > rest_.size()) return stop("a length reaches past the end");
            bytes = rest_.substr(0, static_cast<std::size_t>(size));
            rest_.remove_prefix(static_cast<std::size_t>(size));
        } else if (wire == 1 || wire == 5) {
            const std::size_t size = wire == 1 ? 8 : 4;
            if (size > rest_.size()) return stop("a fixed-size number reaches past the end");
            rest_.remove_prefix(size);
        } else return stop(fmt::format("wire type {} is not used", wire));
        return fault.empty();
    }
    std::uint32_t number = 0;
    int wire = 0;
    std::uint64_t value = 0;
    std::string_view bytes;
    std::string fault;

  private:
    bool stop(std::string why) {
        fault = std::move(why);
        return false;
    }
    std::uint64_t varint() {
        std::uint64_t out = 0;
        for (int shift = 0; shift < 70; shift += 7) {
            if (rest_.empty()) {
                stop("a number ends early");
                return 0;
            }
            const auto byte = static_cast<unsigned char>(rest_.front());
            rest_.remove_prefix(1);
            if (shift < 64) out |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
            if ((byte & 0x80) == 0) return out;
        }
        stop("a number is longer than ten bytes");
        return 0;
    }
    std::string_view rest_;
};

Result<Json> decode_message(const Message& message, std::string_view bytes, int depth);

Result<Json> decode_time(std::string_view bytes, bool micro) {
    Reader in(bytes);
    std::int64_t seconds = 0, nanos = 0;
    while (in.next()) {
        if (in.wire != 0) continue;
        if (in.number == 1) seconds = static_cast<std::int64_t>(in.value);
        if (in.number == 2) nanos = static_cast<std::int64_t>(in.value);
    }
    if (!in.fault.empty()) return fail(in.fault);
    if (bytes.empty()) return Json();
    if (seconds < 0 || seconds > 253'402'300'799) return fail("a time is outside the years 1970 to 9999");
    auto text = rfc3339(seconds * 1000);
    if (micro) text = text.substr(0, text.find_first_of(".Z")) + fmt::format(".{:06}Z", std::clamp<std::int64_t>(nanos / 1000, 0, 999'999));
    return Json(text);
}

Result<Json> decode_value(const Entry& entry, const Reader& in, int depth) {
    const char letter = entry.type.size() == 1 ? entry.type[0] : 0;
    const bool is_number = letter == 'b' || letter == 'i';
    if (in.wire != (is_number ? 0 : 2)) return fail(fmt::format("{}: wrong wire type {}", entry.name, in.wire));
    switch (letter) {
        case 's':
            if (utf8_fault(in.bytes) != std::string_view::npos) return fail("the text is not UTF-8");
            return Json(std::string(in.bytes));
        case 'y': return Json(base64_encode(in.bytes));
        case 'b': return Json(in.value != 0);
        case 'i': return Json(static_cast<std::int64_t>(in.value));
        case 't': return decode_time(in.bytes, false);
        case 'u': return decode_time(in.bytes, true);
        case 'r': return parse_json(in.bytes);
        case 'I': {
            Reader inner(in.bytes);
            std::int64_t type = 0, number = 0;
            std::string text;
            while (inner.next()) {
                if (inner.number == 1 && inner.wire == 0) type = static_cast<std::int64_t>(inner.value);
                if (inner.number == 2 && inner.wire == 0) number = static_cast<std::int64_t>(inner.value);
                if (inner.number == 3 && inner.wire == 2) text = inner.bytes;
            }
            if (!inner.fault.empty()) return fail(inner.fault);
            if (utf8_fault(text) != std::string_view::npos) return fail("the text is not UTF-8");
            return type == 1 ? Json(text) : Json(number);
        }
        default: break;
    }
    auto made = decode_message(messages().at(entry.type), in.bytes, depth + 1);
    if (made && (entry.type == "FieldsV1" || entry.type == "Items")) return made->contains("raw") ? (*made)["raw"] : made->value("items", Json::array());
    return made;
}

/// A zero that Go's `omitempty` would not have written into JSON.
bool is_omitted(const Entry& entry, const Json& value) {
    if (entry.pointer) return false;
    return value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty()) || (value.is_number() && value == 0) || (value.is_boolean() && value == false) ||
           (value.is_structured() && value.empty());
}

Result<Json> decode_message(const Message& message, std::string_view bytes, int depth) {
    if (depth > depth_max) return fail("nested too deeply");
    Json out = Json::object();
    Reader in(bytes);
    while (in.next()) {
        const auto found = message.find(in.number);
        if (found == message.end()) continue;   // a field of a newer version
        const auto& entry = found->second;
        if (entry.map) {
            if (in.wire != 2) return fail(fmt::format("{}: wrong wire type {}", entry.name, in.wire));
            Reader pair(in.bytes);
            std::string key;
            Json value = entry.type == "s" || entry.type == "y" ? Json("") : Json::array();
            const Entry shape{.name = entry.name, .type = entry.type};
            while (pair.next()) {
                if (pair.number == 1 && pair.wire == 2) key = pair.bytes;
                if (pair.number != 2) continue;
                auto made = decode_value(shape, pair, depth + 1);
                if (!made) return made;
                value = std::move(*made);
            }
            if (!pair.fault.empty()) return fail(fmt::format("{}: {}", entry.name, pair.fault));
            if (utf8_fault(key) != std::string_view::npos) return fail(fmt::format("{}: a key is not UTF-8", entry.name));
            out[entry.name][key] = std::move(value);
            continue;
        }
        auto made = decode_value(entry, in, depth);
        if (!made) return fail(fmt::format("{}: {}", entry.name, made.error().message));
        if (entry.repeated) out[entry.name].push_back(std::move(*made));
        else if (!is_omitted(entry, *made)) out[entry.name] = std::move(*made);
        else out.erase(entry.name);
    }
    if (!in.fault.empty()) return fail(in.fault);
    return out;
}

void put_varint(std::string& out, std::uint64_t value) {
    while (value >= 128) out += static_cast<char>(value | 0x80), value >>= 7;
    out += static_cast<char>(value);
}
void put_bytes(std::string& out, std::uint32_t number, std::string_view bytes) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.size());
    out += bytes;
}
void put_number(std::string& out, std::uint32_t number, std::uint64_t value) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

Result<std::string> encode_message(const Message& message, const Json& value);

Result<void> encode_value(std::string& out, std::uint32_t number, const Entry& entry, const Json& value) {
    const char letter = entry.type.size() == 1 ? entry.type[0] : 0;
    auto wrong = [&] { return fail(fmt::format("{}: {} does not fit", entry.name, value.dump())); };
    if (letter == 'i' || letter == 'b') {
        if (letter == 'i' ? !value.is_number_integer() : !value.is_boolean()) return wrong();
        put_number(out, number, letter == 'b' ? static_cast<std::uint64_t>(value.get<bool>()) : static_cast<std::uint64_t>(value.get<std::int64_t>()));
        return {};
    }
    if (letter == 'I') {
        std::string inner;
        put_number(inner, 1, value.is_string() ? 1 : 0);
        put_number(inner, 2, value.is_number_integer() ? static_cast<std::uint64_t>(value.get<std::int64_t>()) : 0);
        put_bytes(inner, 3, value.is_string() ? value.get<std::string>() : "");
        put_bytes(out, number, inner);
        return {};
    }
    if (letter == 'r') {
        put_bytes(out, number, value.dump());
        return {};
    }
    if (letter != 0 && !value.is_string()) return wrong();
    if (letter == 's') put_bytes(out, number, value.get<std::string>());
    else if (letter == 'y') put_bytes(out, number, base64_decode(value.get<std::string>()).value_or(""));
    else if (letter == 't' || letter == 'u') {
        std::string inner;
        const auto text = value.get<std::string>();
        const auto at = parse_rfc3339(text);
        if (at < 0) return wrong();
        put_number(inner, 1, static_cast<std::uint64_t>(at / 1000));
        const auto dot = text.find('.');
        put_number(inner, 2, dot == std::string::npos ? 0 : parse_number<std::uint64_t>(text.substr(dot + 1, 6)).value_or(0) * 1000);
        put_bytes(out, number, inner);
    } else {
        const Json wrapped = entry.type == "FieldsV1" ? Json{{"raw", value}} : entry.type == "Items" ? Json{{"items", value}} : value;
        const auto inner = encode_message(messages().at(entry.type), wrapped);
        if (!inner) return std::unexpected(inner.error());
        put_bytes(out, number, *inner);
    }
    return {};
}

Result<std::string> encode_message(const Message& message, const Json& value) {
    if (!value.is_object()) return fail("an object is needed");
    std::string out;
    for (const auto& [number, entry] : message) {
        const auto found = value.find(entry.name);
        if (found == value.end() || found->is_null()) continue;
        const Entry one{.name = entry.name, .type = entry.type};
        if (entry.map && found->is_object()) {
            for (const auto& [key, item] : found->items()) {
                std::string pair;
                put_bytes(pair, 1, key);
                if (auto done = encode_value(pair, 2, one, item); !done) return std::unexpected(done.error());
                put_bytes(out, number, pair);
            }
        } else if (entry.repeated && found->is_array()) {
            for (const auto& item : *found)
                if (auto done = encode_value(out, number, one, item); !done) return std::unexpected(done.error());
        } else if (auto done = encode_value(out, number, one, *found); !done) {
            return std::unexpected(done.error());
        }
    }
    return out;
}

constexpr std::string_view magic("k8s\0", 4);

}  // namespace

bool is_protobuf(std::string_view body) { return body.starts_with(magic); }

Result<Json> decode_protobuf(std::string_view body, bool& unknown_kind) {
    unknown_kind = false;
    if (!is_protobuf(body)) return fail("the body does not begin with the protobuf envelope");
    Reader envelope(body.substr(magic.size()));
    std::string api_version, kind;
    std::string_view raw;
    while (envelope.next()) {
        if (envelope.number == 1 && envelope.wire == 2) {
            Reader type(envelope.bytes);
            while (type.next()) {
                if (type.number == 1 && type.wire == 2) api_version = type.bytes;
                if (type.number == 2 && type.wire == 2) kind = type.bytes;
            }
            if (utf8_fault(api_version) != std::string_view::npos || utf8_fault(kind) != std::string_view::npos) return fail("envelope: the text is not UTF-8");
            if (!type.fault.empty()) return fail("envelope: " + type.fault);
        } else if (envelope.number == 2 && envelope.wire == 2) {
            raw = envelope.bytes;
        }
    }
    if (!envelope.fault.empty()) return fail("envelope: " + envelope.fault);
    const auto found = messages().find(kind);
    if (found == messages().end() || (!found->second.contains(1) || (found->second.at(1).name != "metadata" && kind != "DeleteOptions"))) {
        unknown_kind = true;
        return fail(fmt::format("there is no protobuf table for kind \"{}\"; send JSON", kind));
    }
    auto out = decode_message(found->second, raw, 0);
    if (!out) return out;
    (*out)["apiVersion"] = api_version;
    (*out)["kind"] = kind;
    return out;
}

Result<std::string> encode_protobuf(const Json& object) {
    const auto kind = text_at(object, "kind");
    const auto found = messages().find(kind);
    if (found == messages().end()) return fail(fmt::format("there is no protobuf table for kind \"{}\"", kind));
    const auto inner = encode_message(found->second, object);
    if (!inner) return inner;
    std::string type, out(magic);
    put_bytes(type, 1, text_at(object, "apiVersion"));
    put_bytes(type, 2, kind);
    put_bytes(out, 1, type);
    put_bytes(out, 2, *inner);
    return out;
}

}  // namespace penstock::resources
