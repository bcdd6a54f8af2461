#include "control/housekeeper.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "control/projection.h"
#include "control/report_age.h"

namespace penstock::control {

using registry::ObjectRef;
using registry::Registry;
using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }

Key key_of(const resources::Kind& kind, const Json& object) { return {kind.qualified_plural(), text_at(object, "metadata.namespace"), text_at(object, "metadata.name")}; }

constexpr registry::WriteOptions as(const char* manager) { return {.manager = manager}; }

/// A Namespace gets its default account and the API's CA; one that is ending loses its content, then itself.
class NamespaceReconciler : public Reconciler {
  public:
    NamespaceReconciler(Registry& registry, std::function<std::string()> api_ca)
        : registry_(registry), api_ca_(std::move(api_ca)) {}
    const char* name() const override { return "namespace"; }
    std::vector<Key> all() override {
        std::vector<Key> out;
        for (const auto& item : registry_.list(core("Namespace"), "").items) out.push_back(key_of(core("Namespace"), *item));
        return out;
    }
    std::vector<Key> concerned(const registry::Event& event) override {
        if (event.kind == &core("Namespace")) return {key_of(*event.kind, *event.object)};
        // The default account or the CA went away, or a namespace that is ending lost something.
        if (event.type == registry::Event::Type::deleted && event.kind->namespaced) return {{core("Namespace").qualified_plural(), "", event.name_space}};
        return {};
    }
    Outcome reconcile(const Key& key) override {
        const auto space = registry_.get(core("Namespace"), "", key.name);
        if (!space) return Outcome::settled();
        if (text_at(**space, "status.phase") == "Terminating") return end(key.name);
        if (!registry_.get(core("ServiceAccount"), key.name, "default"))
            if (auto made = registry_.create(core("ServiceAccount"), key.name, {{"metadata", {{"name", "default"}}}}, as("penstock-namespace")); !made && made.error().reason != "AlreadyExists" && made.error().code != 403)
                return Outcome::retry(made.error().message);
        const auto bundle = registry_.get(core("ConfigMap"), key.name, "kube-root-ca.crt");
        const Json data = {{"ca.crt", api_ca_()}};
        if (!bundle) {
            if (auto made = registry_.create(core("ConfigMap"), key.name, {{"metadata", {{"name", "kube-root-ca.crt"}}}, {"data", data}}, as("penstock-namespace")); !made && made.error().reason != "AlreadyExists" && made.error().code != 403)
                return Outcome::retry(made.error().message);
        } else if (at_path(**bundle, "data") != data) {
            if (auto done = registry_.patch(core("ConfigMap"), key.name, "kube-root-ca.crt", registry::PatchType::merge, {{"data", data}}, false, as("penstock-namespace")); !done) return Outcome::retry(done.error().message);
        }
        return Outcome::settled();
    }

  private:
    Outcome end(const std::string& space) {
        std::size_t left = 0;
        std::set<std::string> seen;
        for (const auto* kind : registry_.kinds()) {
            if (!kind->namespaced || !kind->stored || !seen.insert(kind->qualified_plural()).second) continue;
            for (const auto& item : registry_.list(*kind, space).items) {
                if (!at_path(*item, "metadata.deletionTimestamp").is_string())
                    if (auto gone = registry_.remove(*kind, space, text_at(*item, "metadata.name")); gone && gone->is_gone) continue;
                ++left;
            }
        }
        if (left > 0) return Outcome::after(500);   // finalizers of others must come off first
        registry_.finalize_namespace(space);
        return Outcome::settled();
    }
    Registry& registry_;
    std::function<std::string()> api_ca_;
};

/// Fills Secrets of type kubernetes.io/service-account-token; they go with their account.
class TokenSecretReconciler : public Reconciler {
  public:
    TokenSecretReconciler(Registry& registry, const HousekeeperOptions& options,
                          std::function<std::string()> api_ca)
        : registry_(registry), options_(options), api_ca_(std::move(api_ca)) {}
    const char* name() const override { return "token-secret"; }
    std::vector<Key> all() override {
        std::vector<Key> out;
        for (const auto& item : registry_.list(core("Secret"), "").items)
            if (is_token(*item)) out.push_back(key_of(core("Secret"), *item));
        return out;
    }
    std::vector<Key> concerned(const registry::Event& event) override {
        if (event.kind == &core("Secret") && event.type != registry::Event::Type::deleted && is_token(*event.object)) return {key_of(*event.kind, *event.object)};
        if (event.kind != &core("ServiceAccount")) return {};
        std::vector<Key> out;
        for (const auto& item : registry_.list(core("Secret"), event.name_space).items)
            if (is_token(*item) && account_of(*item) == text_at(*event.object, "metadata.name")) out.push_back(key_of(core("Secret"), *item));
        return out;
    }
    Outcome reconcile(const Key& key) override {
        const auto secret = registry_.get(core("Secret"), key.name_space, key.name);
        if (!secret || !is_token(**secret)) return Outcome::settled();
        const auto account = registry_.get(core("ServiceAccount"), key.name_space, account_of(**secret));
        const auto& annotations = at_path(**secret, "metadata.annotations");
        const auto uid = annotations.value("kubernetes.io/service-account.uid", "");
        if (!account || (!uid.empty() && uid != text_at(**account, "metadata.uid"))) {
            // As with Kubernetes: a token Secret whose account is gone, or never was, goes too.
            [[maybe_unused]] const auto gone = registry_.remove(core("Secret"), key.name_space, key.name, {.preconditions = {{"uid", text_at(**secret, "metadata.uid")}}});
            return Outcome::settled();
        }
        const auto& data = at_path(**secret, "data");
        const auto ca = base64_encode(api_ca_());
        if (data.is_object() && data.contains("token") && data.contains("ca.crt") &&
            data.contains("namespace") && !uid.empty()) {
            if (data["ca.crt"] == Json(ca)) return Outcome::settled();
            if (auto done =
                    registry_.patch(core("Secret"), key.name_space, key.name, registry::PatchType::merge,
                                    {{"data", {{"ca.crt", ca}}}}, false, as("penstock-token"));
                !done)
                return Outcome::retry(done.error().message);
            return Outcome::settled();
        }
        const auto token = options_.make_token(**account, {{"kind", "Secret"}, {"name", key.name}, {"uid", text_at(**secret, "metadata.uid")}});
        if (token.empty()) return Outcome::retry("the token could not be made");
        const Json patch = {
            {"metadata",
             {{"annotations", {{"kubernetes.io/service-account.uid", text_at(**account, "metadata.uid")}}}}},
            {"data",
             {{"token", base64_encode(token)},
              {"ca.crt", ca},
              {"namespace", base64_encode(key.name_space)}}}};
        if (auto done = registry_.patch(core("Secret"), key.name_space, key.name, registry::PatchType::merge, patch, false, as("penstock-token")); !done) return Outcome::retry(done.error().message);
        return Outcome::settled();
    }

  private:
    static bool is_token(const Json& secret) { return text_at(secret, "type") == "kubernetes.io/service-account-token"; }
    static std::string account_of(const Json& secret) {
        const auto& annotations = at_path(secret, "metadata.annotations");
        return annotations.is_object() ? annotations.value("kubernetes.io/service-account.name", "") : std::string();
    }
    Registry& registry_;
    const HousekeeperOptions& options_;
    std::function<std::string()> api_ca_;
};

/// Garbage collection by owner references, and the finalizers of foreground and orphaning deletion.
class Collector : public Reconciler {
  public:
    explicit Collector(Registry& registry) : registry_(registry) {}
    const char* name() const override { return "garbage-collector"; }
    std::vector<Key> all() override {
        std::vector<Key> out;
        dependents_.clear();
        std::set<std::string> seen;
        for (const auto* kind : registry_.kinds()) {
            if (!kind->stored || !seen.insert(kind->qualified_plural()).second) continue;
            for (const auto& item : registry_.list(*kind, "").items) {
                note(*kind, *item);
                if (matters(*item)) out.push_back(key_of(*kind, *item));
            }
        }
        return out;
    }
    std::vector<Key> concerned(const registry::Event& event) override {
        std::vector<Key> out;
        const auto key = key_of(*event.kind, *event.object);
        if (event.previous != nullptr) forget(*event.previous, key);
        if (event.type == registry::Event::Type::deleted) {
            const auto found = dependents_.find(text_at(*event.object, "metadata.uid"));
            if (found != dependents_.end()) out.assign(found->second.begin(), found->second.end());
            // An owner that waits for this one in the foreground looks again.
            for (const auto& owner : owners(*event.object))
                if (auto at = owner_key(owner, key.name_space)) out.push_back(*at);
            return out;
        }
        note(*event.kind, *event.object);
        if (matters(*event.object)) out.push_back(key);
        return out;
    }
    Outcome reconcile(const Key& key) override {
        const auto* kind = kind_of(key.kind);
        if (kind == nullptr) return Outcome::settled();
        const auto object = registry_.get(*kind, key.name_space, key.name);
        if (!object) return Outcome::settled();
        if (at_path(**object, "metadata.deletionTimestamp").is_string()) return finish(*kind, key, **object);
        const auto list = owners(**object);
        if (list.empty()) return Outcome::settled();
        Json alive = Json::array();
        for (const auto& owner : list)
            if (is_alive(owner, key.name_space)) alive.push_back(owner);
        if (alive.size() == list.size()) return Outcome::settled();
        if (!alive.empty()) {
            // References to owners that are gone come off while others live, so that they count for nothing later.
            const Json patch = {{"metadata", {{"ownerReferences", alive}, {"resourceVersion", text_at(**object, "metadata.resourceVersion")}}}};
            if (auto done = registry_.patch(*kind, key.name_space, key.name, registry::PatchType::merge, patch, false, as("penstock-collector")); !done) return Outcome::retry(done.error().message);
            return Outcome::settled();
        }
        const Json only = {{"uid", text_at(**object, "metadata.uid")}, {"resourceVersion", text_at(**object, "metadata.resourceVersion")}};
        if (auto gone = registry_.remove(*kind, key.name_space, key.name, {.preconditions = only}); !gone && gone.error().code == 409) return Outcome::retry(gone.error().message);
        log::info("control", "{}/{} collected, its owner is gone", kind->singular, key.name);
        return Outcome::settled();
    }

  private:
    static std::vector<Json> owners(const Json& object) {
        const auto& list = at_path(object, "metadata.ownerReferences");
        return list.is_array() ? list.get<std::vector<Json>>() : std::vector<Json>();
    }
    static bool has_finalizer(const Json& object, const char* word) {
        const auto& list = at_path(object, "metadata.finalizers");
        return list.is_array() && std::ranges::find(list, Json(word)) != list.end();
    }
    static bool matters(const Json& object) { return !owners(object).empty() || has_finalizer(object, "foregroundDeletion") || has_finalizer(object, "orphan"); }
    void note(const resources::Kind& kind, const Json& object) {
        for (const auto& owner : owners(object)) dependents_[text_at(owner, "uid")].insert(key_of(kind, object));
    }
    void forget(const Json& object, const Key& key) {
        for (const auto& owner : owners(object)) {
            const auto found = dependents_.find(text_at(owner, "uid"));
            if (found == dependents_.end()) continue;
            found->second.erase(key);
            if (found->second.empty()) dependents_.erase(found);
        }
    }
    const resources::Kind* kind_of(const std::string& id) const {
        for (const auto* kind : registry_.kinds())
            if (kind->qualified_plural() == id) return kind;
        return nullptr;
    }
    std::optional<Key> owner_key(const Json& owner, const std::string& space) const {
        const auto* kind = registry_.find_kind(text_at(owner, "apiVersion"), text_at(owner, "kind"));
        if (kind == nullptr) return std::nullopt;
        return Key{kind->qualified_plural(), kind->namespaced ? space : "", text_at(owner, "name")};
    }
    /// An owner of a kind that is not served is taken to live: nothing is collected on a guess.
    bool is_alive(const Json& owner, const std::string& space) const {
        const auto* kind = registry_.find_kind(text_at(owner, "apiVersion"), text_at(owner, "kind"));
        if (kind == nullptr) return true;
        const auto found = registry_.get(*kind, kind->namespaced ? space : "", text_at(owner, "name"));
        return found && text_at(**found, "metadata.uid") == text_at(owner, "uid");
    }
    Outcome finish(const resources::Kind& kind, const Key& key, const Json& object) {
        const bool orphans = has_finalizer(object, "orphan");
        if (!orphans && !has_finalizer(object, "foregroundDeletion")) return Outcome::settled();
        const auto uid = text_at(object, "metadata.uid");
        bool waits = false;
        const auto found = dependents_.find(uid);
        const auto dependents = found == dependents_.end() ? std::set<Key>() : found->second;
        for (const auto& at : dependents) {
            const auto* other = kind_of(at.kind);
            const auto dependent = other == nullptr ? registry::Answer<ObjectRef>(std::unexpected(registry::Failure{})) : registry_.get(*other, at.name_space, at.name);
            if (!dependent) continue;
            if (orphans) {
                Json left = Json::array();
                for (const auto& owner : owners(**dependent))
                    if (text_at(owner, "uid") != uid) left.push_back(owner);
                const Json patch = {{"metadata", {{"ownerReferences", left.empty() ? Json(nullptr) : left}, {"resourceVersion", text_at(**dependent, "metadata.resourceVersion")}}}};
                if (auto done = registry_.patch(*other, at.name_space, at.name, registry::PatchType::merge, patch, false, as("penstock-collector")); !done) return Outcome::retry(done.error().message);
            } else {
                if (!at_path(**dependent, "metadata.deletionTimestamp").is_string())
                    if (auto gone = registry_.remove(*other, at.name_space, at.name, {.preconditions = {{"uid", text_at(**dependent, "metadata.uid")}}}); gone && gone->is_gone) continue;
                for (const auto& owner : owners(**dependent)) waits |= text_at(owner, "uid") == uid && owner.value("blockOwnerDeletion", false);
            }
        }
        if (waits) return Outcome::after(500);
        Json finalizers = Json::array();
        for (const auto& word : at_path(object, "metadata.finalizers"))
            if (word != "orphan" && word != "foregroundDeletion") finalizers.push_back(word);
        const Json patch = {{"metadata", {{"finalizers", finalizers.empty() ? Json(nullptr) : finalizers}, {"resourceVersion", text_at(object, "metadata.resourceVersion")}}}};
        if (auto done = registry_.patch(kind, key.name_space, key.name, registry::PatchType::merge, patch, false, as("penstock-collector")); !done) return Outcome::retry(done.error().message);
        return Outcome::settled();
    }

    Registry& registry_;
    std::map<std::string, std::set<Key>> dependents_;      ///< by the owner's uid
};

/// Events are kept for an hour.
class EventExpiry : public Reconciler {
  public:
    EventExpiry(Registry& registry, Clock clock) : registry_(registry), clock_(std::move(clock)) {}
    const char* name() const override { return "event-expiry"; }
    std::vector<Key> all() override { return {{"events", "", ""}}; }
    std::vector<Key> concerned(const registry::Event&) override { return {}; }
    Outcome reconcile(const Key&) override {
        const auto oldest = clock_.wall_ms() - 3'600'000;
        for (const auto& item : registry_.list(core("Event"), "").items) {
            const auto last = text_at(*item, "lastTimestamp", text_at(*item, "metadata.creationTimestamp"));
            if (parse_rfc3339(last) < oldest) [[maybe_unused]] const auto gone = registry_.remove(core("Event"), text_at(*item, "metadata.namespace"), text_at(*item, "metadata.name"));
        }
        return Outcome::after(60'000);
    }

  private:
    Registry& registry_;
    Clock clock_;
};

}  // namespace

Role api_role() { return {.pod = "penstock-api-0", .container = "api", .component = "api", .log_modules = {"api", "registry", "client"}, .ports = {}, .why_not = {}}; }

Housekeeper::Housekeeper(Registry& registry, HousekeeperOptions options)
    : options_(std::move(options)), objects_(registry), engine_(objects_, options_.clock) {
    engine_.add(std::make_unique<NamespaceReconciler>(registry, [this] { return api_ca(); }));
    engine_.add(std::make_unique<TokenSecretReconciler>(registry, options_, [this] { return api_ca(); }));
    engine_.add(std::make_unique<Collector>(registry));
    engine_.add(std::make_unique<EventExpiry>(registry, options_.clock));
    if (options_.broker_elsewhere) engine_.add(make_report_age(objects_, options_.clock));
    if (options_.roles) engine_.add(make_projection(registry, options_));
}

void Housekeeper::set_api_ca(std::string pem) {
    {
        const std::lock_guard lock(guard_);
        options_.api_ca = std::move(pem);
    }
    engine_.look_again();
}

std::string Housekeeper::api_ca() const {
    const std::lock_guard lock(guard_);
    return options_.api_ca;
}

}  // namespace penstock::control
