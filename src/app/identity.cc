#include "app/identity.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "crypto/signature.h"
#include "io/socket.h"
#include "io/wait.h"

namespace penstock::app {

namespace fs = std::filesystem;

namespace {

constexpr int token_key_days = 90;
constexpr int server_certificate_days = 365, ca_days = 3650, renew_before_days = 90;

}  // namespace

Result<std::string> read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return fail(fmt::format("{}: cannot be read", path.string()));
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

namespace {

/// Writes FILE.new; empty when FILE has this content already.
Result<std::string> stage(const fs::path& path, const std::string& content) {
    struct stat now {};
    if (::stat(path.c_str(), &now) == 0 && (now.st_mode & 0777) == 0600)
        if (const auto there = read_file(path); there && *there == content) return std::string();
    const auto beside = path.string() + ".new";
    ::unlink(beside.c_str());
    const int file = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    std::size_t at = 0;
    bool good = file >= 0;
    while (good && at < content.size()) {
        const auto n = ::write(file, content.data() + at, content.size() - at);
        if (n > 0) at += static_cast<std::size_t>(n);
        else good = n < 0 && errno == EINTR;
    }
    good = good && ::fsync(file) == 0;
    const auto why = fmt::format("{}: cannot be written: {}", beside, std::strerror(errno));
    if (file >= 0) ::close(file);
    if (good) return beside;
    ::unlink(beside.c_str());   // a part takes room too, perhaps the last
    return fail(why);
}

}  // namespace

Result<void> write_private(const fs::path& path, const std::string& content) {
    const auto staged = stage(path, content);
    if (!staged) return std::unexpected(staged.error());
    if (!staged->empty() && ::rename(staged->c_str(), path.c_str()) != 0) return fail(fmt::format("{}: {}", path.string(), std::strerror(errno)));
    return {};
}

namespace {

/// Both or none, as far as room goes: a key never stands beside the certificate of another.
Result<void> write_pair(const fs::path& folder, const std::string& name, const crypto::KeyPair& pair) {
    const auto key = folder / (name + ".key"), certificate = folder / (name + ".crt");
    const auto staged_key = stage(key, pair.key);
    if (!staged_key) return std::unexpected(staged_key.error());
    const auto staged_certificate = stage(certificate, pair.certificate);
    if (!staged_certificate) {
        ::unlink(staged_key->c_str());
        return std::unexpected(staged_certificate.error());
    }
    for (const auto& [from, to] : {std::pair(*staged_key, key), std::pair(*staged_certificate, certificate)})
        if (!from.empty() && ::rename(from.c_str(), to.c_str()) != 0) return fail(fmt::format("{}: {}", to.string(), std::strerror(errno)));
    return {};
}

Result<crypto::KeyPair> kept_or_made(const fs::path& folder, const std::string& name, const std::function<bool(const crypto::KeyPair&)>& good,
                                     const std::function<Result<crypto::KeyPair>()>& make) {
    crypto::KeyPair pair{.certificate = read_file(folder / (name + ".crt")).value_or(""), .key = read_file(folder / (name + ".key")).value_or("")};
    if (!pair.certificate.empty() && !pair.key.empty() && good(pair)) return pair;
    auto fresh = make();
    if (!fresh) return fresh;
    if (auto r = write_pair(folder, name, *fresh); !r) {
        if (pair.key.empty() || crypto::seconds_left(pair.certificate) <= 0) return std::unexpected(r.error());
        log::error("app", "a certificate has its successor only when the disk takes it; the one that is there goes on name={} why=\"{}\"", name, r.error().message);
        return pair;
    }
    return fresh;
}

}  // namespace

Result<std::vector<std::string>> open_token_keys(const fs::path& folder) {
    std::vector<fs::path> files;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error))
        if (entry.path().filename().string().starts_with("service-account") && entry.path().extension() == ".key") files.push_back(entry.path());
    // Newest first: it signs, the others go on verifying what they signed.
    std::ranges::sort(files, std::greater{}, [&](const fs::path& file) { return fs::last_write_time(file, error); });
    const bool old = !files.empty() && fs::file_time_type::clock::now() - fs::last_write_time(files.front(), error) > std::chrono::hours(24 * token_key_days);
    if (files.empty() || old) {
        auto made = crypto::make_signing_key();
        if (!made) return std::unexpected(made.error());
        auto name = folder / "service-account.key";
        if (!files.empty()) {
            auto stamp = rfc3339(wall_ms());
            std::erase_if(stamp, [](char c) { return c == ':' || c == '-'; });
            name = folder / ("service-account-" + stamp + ".key");
        }
        if (auto written = write_private(name, *made); written) files.insert(files.begin(), name);
        else if (files.empty()) return std::unexpected(written.error());
        else log::error("app", "the key of service-account tokens has its successor only when the disk takes it; the one that is there goes on why=\"{}\"", written.error().message);
    }
    std::vector<std::string> out;
    for (const auto& file : files) {
        auto text = read_file(file);
        if (!text) return std::unexpected(text.error());
        out.push_back(std::move(*text));
    }
    return out;
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

}  // namespace penstock::app
