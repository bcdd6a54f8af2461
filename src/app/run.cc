#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "api/server.h"
#include "app/commands.h"
#include "base/log.h"
#include "base/text.h"
#include "client/apply.h"
#include "control/broker_controller.h"
#include "control/housekeeper.h"
#include "crypto/signature.h"
#include "io/socket.h"
#include "io/wait.h"
#include "registry/registry.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;
using resources::Json;
using resources::text_at;

constexpr const char* source_annotation = "penstock.io/applied-from";
constexpr int server_certificate_days = 365, ca_days = 3650, renew_before_days = 90;

Result<std::string> read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return fail(fmt::format("{}: cannot be read", path.string()));
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

/// Written beside and renamed, mode 0600: keys are never readable by others, not even for a moment.
Result<void> write_private(const fs::path& path, const std::string& content) {
    const auto beside = path.string() + ".new";
    std::error_code error;
    fs::remove(beside, error);
    const auto mask = umask(0077);
    std::ofstream out(beside, std::ios::binary | std::ios::trunc);
    umask(mask);
    out << content;
    out.close();
    if (!out) return fail(fmt::format("{}: cannot be written", beside));
    fs::rename(beside, path, error);
    if (error) return fail(fmt::format("{}: {}", path.string(), error.message()));
    return {};
}

/// Keys that sign service-account tokens, newest first. The first start makes one.
Result<std::vector<std::string>> open_token_keys(const fs::path& folder) {
    std::vector<fs::path> files;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error))
        if (entry.path().filename().string().starts_with("service-account") && entry.path().extension() == ".key") files.push_back(entry.path());
    std::ranges::sort(files, std::greater{});
    if (files.empty()) {
        auto made = crypto::make_signing_key();
        if (!made) return std::unexpected(made.error());
        files.push_back(folder / "service-account.key");
        if (auto written = write_private(files.back(), *made); !written) return std::unexpected(written.error());
    }
    std::vector<std::string> out;
    for (const auto& file : files) {
        auto text = read_file(file);
        if (!text) return std::unexpected(text.error());
        out.push_back(std::move(*text));
    }
    return out;
}

/// The API's own CA and certificates: made at the first start, leaves made anew when they near their end or when the
/// machine got other addresses.
struct Identity {
    crypto::KeyPair ca, server, admin;
};

Result<crypto::KeyPair> kept_or_made(const fs::path& folder, const std::string& name, const std::function<bool(const crypto::KeyPair&)>& good,
                                     const std::function<Result<crypto::KeyPair>()>& make) {
    crypto::KeyPair pair{.certificate = read_file(folder / (name + ".crt")).value_or(""), .key = read_file(folder / (name + ".key")).value_or("")};
    if (!pair.certificate.empty() && !pair.key.empty() && good(pair)) return pair;
    auto fresh = make();
    if (!fresh) return fresh;
    if (auto r = write_private(folder / (name + ".key"), fresh->key); !r) return std::unexpected(r.error());
    if (auto r = write_private(folder / (name + ".crt"), fresh->certificate); !r) return std::unexpected(r.error());
    return fresh;
}

Result<Identity> open_identity(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    fs::permissions(folder, fs::perms::owner_all, error);
    auto fresh_enough = [](const crypto::KeyPair& p) { return crypto::seconds_left(p.certificate) > renew_before_days * 86'400LL; };
    Identity out;
    auto ca = kept_or_made(folder, "api-ca", fresh_enough, [] { return crypto::make_ca("penstock-api-ca", ca_days); });
    if (!ca) return std::unexpected(ca.error());
    out.ca = *ca;
    std::vector<std::string> names{"localhost", io::machine_name(), "kubernetes", "kubernetes.default", "kubernetes.default.svc"};
    auto addresses = io::machine_addresses();
    addresses.insert(addresses.begin(), {"127.0.0.1", "::1"});
    auto server = kept_or_made(
        folder, "api-server", [&](const auto& p) { return fresh_enough(p) && crypto::covers(p.certificate, names, addresses); },
        [&] { return crypto::make_leaf(out.ca, {.common_name = "penstock-api", .dns_names = names, .addresses = addresses, .server = true, .days = server_certificate_days}); });
    if (!server) return std::unexpected(server.error());
    auto admin = kept_or_made(folder, "admin", fresh_enough,
                              [&] { return crypto::make_leaf(out.ca, {.common_name = "system:admin", .organizations = {"system:masters"}, .days = server_certificate_days}); });
    if (!admin) return std::unexpected(admin.error());
    out.server = *server;
    out.admin = *admin;
    return out;
}

std::string kubeconfig_text(const Identity& identity, const std::string& address, int port) {
    return fmt::format(
        "apiVersion: v1\nkind: Config\ncurrent-context: default\n"
        "clusters:\n- name: default\n  cluster:\n    server: https://{}:{}\n    certificate-authority-data: {}\n"
        "users:\n- name: default\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n"
        "contexts:\n- name: default\n  context:\n    cluster: default\n    user: default\n",
        address == "0.0.0.0" || address == "::" ? "127.0.0.1" : address, port, base64_encode(identity.ca.certificate), base64_encode(identity.admin.certificate),
        base64_encode(identity.admin.key));
}

/// Applies the manifests of `-f` and keeps following them: a change is applied, a document that goes away is deleted.
class FileFollower {
  public:
    FileFollower(client::Access access, std::vector<std::string> files) : client_(std::move(access)), files_(std::move(files)) {
        for (auto& file : files_)
            if (file != "-") file = fs::absolute(file).string();
    }

    /// False: something was refused; what ran goes on running.
    bool sync() {
        std::vector<resources::Document> documents;
        for (const auto& file : files_) {
            auto some = client::read_manifests(file);
            if (!some) {
                log::error("app", "manifests kept as they were: {}", some.error().message);
                return false;
            }
            std::ranges::move(*some, std::back_inserter(documents));
        }
        const auto faults = client::validate_documents(documents);
        for (const auto& fault : faults) log::error("app", "manifest fault: {}", fault);
        if (!faults.empty()) {
            log::error("app", "{} fault{} in the manifests; the running configuration stays as it was", faults.size(), faults.size() == 1 ? "" : "s");
            return false;
        }
        // A Namespace before what is in it, a Broker before its listeners.
        auto rank = [](const resources::Document& d) {
            const auto kind = text_at(d.object, "kind");
            return kind == "Namespace" ? 0 : kind == "Broker" ? 1 : 2;
        };
        // By rank, then as they stand in the files.
        std::vector<resources::Document> sorted;
        for (int wanted = 0; wanted <= 2; ++wanted)
            for (auto& document : documents)
                if (rank(document) == wanted) sorted.push_back(document);
        documents = std::move(sorted);
        bool good = true;
        std::vector<std::string> present;
        // What left the files goes first: a port or service type may have moved to another listener.
        for (auto& document : documents) {
            document.object["metadata"]["annotations"][source_annotation] = files_.front();
            present.push_back(key_of(document.object));
        }
        prune(present);
        for (const auto& document : documents) {
            const auto result = client::apply_document(client_, document, client_.access().name_space, false);
            if (!result.error.empty()) {
                good = false;
                log::error("app", "manifest refused: {}", result.error);
            } else if (result.outcome != "unchanged") {
                log::info("app", "{} {}", result.what, result.outcome);
            }
        }
        return good;
    }

    /// Looks for changes twice a second until `stop`.
    void follow(const std::atomic<bool>& stop, const std::function<void(int)>& pause) {
        auto before = fingerprint();
        while (!stop) {
            pause(500);
            const auto now = fingerprint();
            if (now == before) continue;
            before = now;
            sync();
        }
    }

  private:
    std::string key_of(const Json& object) const {
        return text_at(object, "kind") + "/" + text_at(object, "metadata.namespace", client_.access().name_space) + "/" + text_at(object, "metadata.name");
    }
    void prune(const std::vector<std::string>& present) {
        for (const auto& kind : resources::all_kinds()) {
            const auto list = client_.request("GET", client::path_of(kind, ""));
            if (!list || !list->ok()) continue;
            for (const auto& item : resources::at_path(list->body, "items")) {
                const auto& annotations = resources::at_path(item, "metadata.annotations");
                if (!annotations.is_object() || annotations.value(source_annotation, "") != files_.front()) continue;
                auto object = item;
                object["kind"] = kind.kind;
                if (std::ranges::find(present, key_of(object)) != present.end()) continue;
                const auto removed = client_.request("DELETE", client::path_of(kind, text_at(item, "metadata.namespace"), text_at(item, "metadata.name")));
                if (removed && removed->ok()) log::info("app", "{}/{} deleted, it left the manifests", kind.singular, text_at(item, "metadata.name"));
            }
        }
    }
    std::string fingerprint() const {
        std::string out;
        std::error_code error;
        for (const auto& file : files_) {
            auto add = [&](const fs::path& path) {
                struct stat s {};
                if (stat(path.c_str(), &s) == 0) out += fmt::format("{}:{}:{}.{};", path.string(), s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
            };
            if (!fs::is_directory(file, error)) add(file);
            else
                for (const auto& entry : fs::directory_iterator(file, error)) add(entry.path());
        }
        return out;
    }

    client::Client client_;
    std::vector<std::string> files_;
};

/// The embedded default: a Broker, and without files the loopback listener.
void create_defaults(registry::Registry& registry, bool with_listener) {
    const auto& broker = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker");
    const auto& listener = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener");
    const std::string space = "azure-iot-operations";
    auto create = [&](const resources::Kind& kind, const char* name, Json spec) {
        const auto made = registry.create(kind, space, {{"metadata", {{"name", name}}}, {"spec", std::move(spec)}});
        if (!made) log::error("app", "the default {} could not be made: {}", kind.kind, made.error().message);
    };
    if (registry.list(broker, "").items.empty()) create(broker, "default", Json::object());
    if (with_listener && registry.list(listener, "").items.empty())
        create(listener, "default", {{"brokerRef", "default"}, {"serviceType", "ClusterIp"}, {"serviceName", "aio-broker"}, {"ports", Json::array({{{"port", 18883}}})}});
}

}  // namespace

std::string default_data_folder() {
    if (const char* set = std::getenv("PENSTOCK_DATA"); set != nullptr && *set != 0) return set;
    if (geteuid() == 0) return "/var/lib/penstock";
    const char* home = std::getenv("HOME");
    return std::string(home != nullptr ? home : ".") + "/.local/share/penstock";
}

std::string default_kubeconfig() {
    if (const char* set = std::getenv("KUBECONFIG"); set != nullptr && *set != 0) return std::string(split(set, ':').front());
    return default_data_folder() + "/kubeconfig.yaml";
}

int run(const RunOptions& options) {
    // Signals are taken by this thread alone, at the end of this function; all threads made below inherit the mask.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signal(SIGPIPE, SIG_IGN);
    // Messages come and go by the thousand; giving each 64 KiB back to the kernel and faulting it in again costs more than
    // all the rest of handling them. What is kept is bounded: 16 MiB a thread.
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);

    auto give_up = [](const std::string& why) {
        std::cerr << "penstock: " << why << "\n";
        return 1;
    };
    if (const auto why = log::set_levels(options.log_level); !why.empty()) return give_up("--log-level: " + why);
    std::error_code error;
    fs::create_directories(options.data_folder, error);
    if (error) return give_up(fmt::format("the data folder {} cannot be made: {}; choose another with --data-dir", options.data_folder, error.message()));
    const auto descriptors = io::raise_descriptor_limit();
    const auto identity = open_identity(fs::path(options.data_folder) / "pki");
    if (!identity) return give_up(identity.error().message);
    auto registry = registry::Registry::open((fs::path(options.data_folder) / "registry.sqlite").string());
    if (!registry) return give_up(registry.error().message);

    const auto token_keys = open_token_keys(fs::path(options.data_folder) / "pki");
    if (!token_keys) return give_up(token_keys.error().message);
    const api::Tokens tokens(**registry, "https://kubernetes.default.svc.cluster.local", *token_keys);
    api::Authorizer::bootstrap(**registry);

    control::LocalObjects objects(**registry);
    control::BrokerController controller(objects, version);
    control::Housekeeper housekeeper(**registry, {.api_ca = identity->ca.certificate, .make_token = [&](const Json& account, const Json& secret) {
                                                      const auto made = tokens.issue(account, {}, 0, secret);
                                                      return made ? made->token : std::string();
                                                  },
                                                  .version = version,
                                                  .roles = [&] { return controller.roles(); }});
    api::Handler handler(**registry, tokens, version);
    handler.set_ready_check([&] { return controller.not_ready(); });
    api::Server server(handler, {.address = options.api_address, .port = static_cast<std::uint16_t>(options.api_port), .certificate = identity->server, .client_ca = identity->ca.certificate});
    const auto port = server.start();
    if (!port) return give_up(port.error().message + "; is another penstock running, or choose another with --api-port");
    const auto kubeconfig = (fs::path(options.data_folder) / "kubeconfig.yaml").string();
    if (auto r = write_private(kubeconfig, kubeconfig_text(*identity, options.api_address, *port)); !r) return give_up(r.error().message);
    auto access = client::read_kubeconfig(kubeconfig);
    if (!access) return give_up(access.error().message);

    std::unique_ptr<FileFollower> follower;
    if (!options.files.empty()) {
        follower = std::make_unique<FileFollower>(*access, options.files);
        follower->sync();
    }
    api::PageServer pages([&](const std::string& path) -> api::Reply {
        if (path == "/metrics") return {.content_type = "text/plain; version=0.0.4", .body = controller.metrics_page()};
        if (path == "/healthz" || path == "/livez") return {.content_type = "text/plain", .body = "ok\n"};
        if (path == "/readyz") {
            const auto why = controller.not_ready();
            return {.status = why.empty() ? 200 : 503, .content_type = "text/plain", .body = why.empty() ? "ok\n" : why};
        }
        return {.status = 404, .content_type = "text/plain", .body = "here are /metrics, /healthz and /readyz\n"};
    });

    controller.on_metrics_port([&](int wanted) {
        const auto listening = pages.listen(static_cast<std::uint16_t>(wanted));
        return listening ? std::string() : listening.error().message;
    });
    create_defaults(**registry, options.files.empty());
    housekeeper.start();
    controller.start();

    log::info("app", "penstock {} runs data={} api=https://{}:{} descriptors={}", version, options.data_folder, options.api_address, *port, descriptors);
    std::cout << fmt::format("Penstock {} is running; Ctrl-C stops it.\n  resources   penstock get broker,brokerlistener -A      (or kubectl, with the file below)\n"
                             "  kubeconfig  {}\n",
                             version, kubeconfig)
              << std::flush;

    std::atomic<bool> stopping{false};
    std::thread following;
    auto pause = [&](int milliseconds) { (*registry)->wait_stop(milliseconds); };
    if (follower) following = std::thread([&] { follower->follow(stopping, pause); });
    int signal_number = 0;
    sigwait(&signals, &signal_number);
    log::info("app", "stopping");
    stopping = true;
    (*registry)->stop();
    if (following.joinable()) following.join();
    controller.stop();
    housekeeper.stop();
    pages.stop();
    server.stop();
    return 0;
}

}  // namespace penstock::app
