#include "app/identity.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <tuple>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "crypto/signature.h"
#include "io/socket.h"
#include "io/wait.h"

namespace penstock::app {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t token_key_ms = 90LL * 86'400'000;
/// Brokers elsewhere read the keys every five minutes (run_broker).
constexpr std::int64_t token_key_known_ms = 15 * 60'000;

}  // namespace

Result<std::string> read_file(const fs::path& path, Streams streams, std::size_t bytes_max) {
    return read_whole_file(path, streams, bytes_max);
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

struct KeyFile {
    fs::path path;
    std::int64_t made_ms = 0;
};

/// Newest first.
std::vector<KeyFile> token_key_files(const fs::path& folder) {
    std::vector<KeyFile> out;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
        if (!entry.path().filename().string().starts_with("service-account") ||
            entry.path().extension() != ".key")
            continue;
        struct stat s {};
        if (stat(entry.path().c_str(), &s) == 0)
            out.push_back({entry.path(), s.st_mtim.tv_sec * 1000LL + s.st_mtim.tv_nsec / 1'000'000});
    }
    std::ranges::sort(out, [](const auto& a, const auto& b) {
        return std::pair(a.made_ms, a.path) > std::pair(b.made_ms, b.path);
    });
    return out;
}

/// The file's time is the key's age.
Result<void> write_token_key(const fs::path& path, const std::string& text, std::int64_t made_ms) {
    if (auto written = write_private(path, text); !written) return written;
    const timespec at{.tv_sec = made_ms / 1000, .tv_nsec = made_ms % 1000 * 1'000'000};
    const timespec times[] = {at, at};
    utimensat(AT_FDCWD, path.c_str(), times, 0);
    return {};
}

Result<KeyFile> make_token_key(const fs::path& folder, bool is_first, std::int64_t now_ms) {
    auto made = crypto::make_signing_key();
    if (!made) return std::unexpected(made.error());
    auto stamp = rfc3339(now_ms);
    std::erase_if(stamp, [](char c) { return c == ':' || c == '-'; });
    const auto path =
        folder / (is_first ? std::string("service-account.key") : "service-account-" + stamp + ".key");
    if (auto written = write_token_key(path, *made, now_ms); !written) return std::unexpected(written.error());
    return KeyFile{path, now_ms};
}

crypto::KeyPair pair_of(const fs::path& folder, const std::string& name) {
    return {.certificate = read_file(folder / (name + ".crt")).value_or(""),
            .key = read_file(folder / (name + ".key")).value_or("")};
}

/// Key before certificate: what has the certificate has the key.
Result<void> write_pair(const fs::path& folder, const std::string& name, const crypto::KeyPair& pair,
                        const crypto::KeyPair& before) {
    if (pair.key != before.key)
        if (auto r = write_private(folder / (name + ".key"), pair.key); !r) return r;
    if (pair.certificate != before.certificate)
        if (auto r = write_private(folder / (name + ".crt"), pair.certificate); !r) return r;
    return {};
}

/// The public half verifies what the private one signs: a file with a changed byte may be read all the same.
bool is_whole_key(const std::string& pem) {
    const auto signature = crypto::sign_es256(pem, "penstock");
    return signature && crypto::verify_es256(pem, "penstock", *signature);
}

constexpr const char* next_ca = "api-ca-next.pem";
constexpr const char* trusted_file = "api-ca-trusted.crt";

/// Left behind it would undo what somebody puts there later.
Result<void> forget_next_ca(const fs::path& folder) {
    std::error_code error;
    fs::remove(folder / next_ca, error);
    if (error) return fail(fmt::format("{}: {}", (folder / next_ca).string(), error.message()));
    return {};
}

/// A CA is two files, and a crash may come between them: the new one stands whole in a third file first, and
/// is taken from there.
Result<void> write_ca(const fs::path& folder, const crypto::KeyPair& ca, const crypto::KeyPair& before) {
    if (ca.key == before.key && ca.certificate == before.certificate) return {};
    if (auto r = write_private(folder / next_ca, ca.key + ca.certificate); !r) return r;
    if (auto r = write_pair(folder, "api-ca", ca, before); !r) return r;
    return forget_next_ca(folder);
}

/// What write_ca() was interrupted in.
Result<void> finish_ca(const fs::path& folder) {
    const auto whole = read_file(folder / next_ca);
    if (!whole) return {};
    const auto begin = whole->find("-----BEGIN CERTIFICATE-----");
    const auto parts = begin == std::string::npos ? crypto::KeyPair{}
                                                  : crypto::KeyPair{.certificate = whole->substr(begin),
                                                                    .key = whole->substr(0, begin)};
    const auto chain = crypto::read_certificates(parts.certificate);
    // What is not whole was never begun to be taken: the files before it are as they were.
    if (chain && !chain->empty() && chain->front().matches_key(parts.key))
        if (auto r = write_pair(folder, "api-ca", parts, {}); !r) return r;
    return forget_next_ca(folder);
}

}  // namespace

namespace {

/// What is in force and was deleted or damaged in the folder is put back, so that the next start finds it.
Result<void> put_token_keys_back(const fs::path& folder, const TokenKeys& current, std::vector<std::string>* done) {
    const bool are_all_gone = token_key_files(folder).empty();
    for (const auto& file : current.files) {
        const auto path = folder / file.name;
        std::error_code error;
        if (!are_all_gone && !fs::exists(path, error)) continue;   // removed beside others: it ends
        if (const auto there = read_file(path); there && is_whole_key(*there)) continue;
        if (auto written = write_token_key(path, file.text, file.made_ms); !written) return written;
        if (done != nullptr) done->push_back(fmt::format("{} was deleted or damaged while it was in use, and is written back", file.name));
    }
    return {};
}

/// What became of a file of the CA that is in force.
enum class Left : std::uint8_t { ours, none, bad, others };

Left left_of_certificate(const fs::path& path, const std::string& text, const crypto::KeyPair& current) {
    std::error_code error;
    if (!fs::exists(path, error)) return Left::none;
    if (text == current.certificate) return Left::ours;
    const auto chain = crypto::read_certificates(text);
    if (!chain || chain->empty()) return Left::bad;
    const auto& own = chain->front();
    // A changed byte breaks the signature of a certificate that is its own issuer.
    if (own.subject() == own.issuer() && !own.is_self_signed()) return Left::bad;
    return own.matches_key(current.key) ? Left::ours : Left::others;
}

Left left_of_key(const fs::path& path, const std::string& text, const crypto::KeyPair& current) {
    std::error_code error;
    if (!fs::exists(path, error)) return Left::none;
    if (text == current.key) return Left::ours;
    const auto certificate = crypto::issue_certificate(text, nullptr, {.subject = {{"CN", "penstock"}}, .not_before_ms = 0, .not_after_ms = 1000});
    const auto own = certificate ? crypto::read_certificates(*certificate) : Result<std::vector<crypto::Certificate>>(std::unexpected(certificate.error()));
    if (!own || own->empty() || !own->front().matches_key(text)) return Left::bad;   // it signs what it does not verify
    const auto in_force = crypto::read_certificates(current.certificate);
    return in_force && !in_force->empty() && in_force->front().matches_key(text) ? Left::ours : Left::others;
}

/// True: what is in force stood there and was deleted or damaged; nobody put another one in its place, nor took it away on purpose.
bool is_to_be_put_back(const fs::path& folder, const crypto::KeyPair& there, const crypto::KeyPair& current) {
    const auto certificate = left_of_certificate(folder / "api-ca.crt", there.certificate, current);
    const auto key = left_of_key(folder / "api-ca.key", there.key, current);
    if (certificate == Left::others || key == Left::others) return false;
    std::error_code error;
    // The two alone: what docs/operating.md says for a new CA.
    if (certificate == Left::none && key == Left::none) return !fs::exists(folder / trusted_file, error);
    return certificate != Left::ours || key != Left::ours;
}

}  // namespace

std::vector<std::string> lost_files(const fs::path& folder, const TokenKeys& keys) {
    std::vector<std::string> names{"api-ca.crt", "api-ca.key", trusted_file, "api-server.crt", "api-server.key", "admin.crt", "admin.key"};
    for (const auto& file : keys.files) names.push_back(file.name);
    std::erase_if(names, [&](const auto& name) {
        struct stat s {};
        return ::stat((folder / name).c_str(), &s) == 0 && s.st_size > 0;
    });
    return names;
}

Result<TokenKeys> open_token_keys(const fs::path& folder, std::int64_t now_ms, const TokenKeys* current, std::vector<std::string>* done) {
    if (current != nullptr)
        if (auto put = put_token_keys_back(folder, *current, done); !put) return std::unexpected(put.error());
    auto files = token_key_files(folder);
    TokenKeys out;
    if (files.empty() || now_ms - files.front().made_ms > token_key_ms) {
        auto made = make_token_key(folder, files.empty(), now_ms);
        if (made) files.insert(files.begin(), *made);
        else if (files.empty()) return std::unexpected(made.error());
        else out.fault = "its successor is due and cannot be made: " + made.error().message;
    }
    out.renewal_ms = files.front().made_ms + token_key_ms;
    // The newest one signs once it was known for a while.
    const auto signing = std::ranges::find_if(
        files, [&](const auto& file) { return now_ms - file.made_ms >= token_key_known_ms; });
    if (signing != files.end()) std::rotate(files.begin(), signing, std::next(signing));
    else std::rotate(files.begin(), std::prev(files.end()), files.end());
    out.signing_file = files.front().path.filename().string();
    for (const auto& file : files) {
        auto text = read_file(file.path);
        if (!text) return std::unexpected(text.error());
        if (!is_whole_key(*text))
            return fail(fmt::format("{}: is damaged: no private key that signs can be read from it; put it back from a copy", file.path.string()));
        out.files.push_back({.name = file.path.filename().string(), .text = *text, .made_ms = file.made_ms});
        out.keys.push_back(std::move(*text));
    }
    return out;
}

Result<Identity> open_identity(const fs::path& folder, std::int64_t now_ms, const Identity* current,
                               std::vector<std::string>* done) {
    std::error_code error;
    fs::create_directories(folder, error);
    fs::permissions(folder, fs::perms::owner_all, error);
    if (auto r = finish_ca(folder); !r) return std::unexpected(r.error());
    const Identity kept{.ca = pair_of(folder, "api-ca"),
                        .trusted = read_file(folder / trusted_file).value_or(""),
                        .server = pair_of(folder, "api-server"),
                        .admin = pair_of(folder, "admin")};
    api::ServerNames names{.dns_names = {"localhost", io::machine_name(), "kubernetes", "kubernetes.default",
                                         "kubernetes.default.svc"},
                           .addresses = io::machine_addresses()};
    names.addresses.insert(names.addresses.begin(), {"127.0.0.1", "::1"});
    auto have = kept;
    bool new_ca = false;
    if (current != nullptr) {
        // Leaves that went away while they are in force come back; so does one that could not be written.
        if (const auto ca = crypto::read_certificates(current->ca.certificate); ca && !ca->empty()) {
            if (!api::leaf_due(have.server, ca->front(), &names, now_ms).empty())
                have.server = current->server;
            if (!api::leaf_due(have.admin, ca->front(), nullptr, now_ms).empty()) have.admin = current->admin;
        }
        if (have.trusted.empty() || !crypto::read_certificates(have.trusted)) have.trusted = current->trusted;
        if (is_to_be_put_back(folder, kept.ca, current->ca)) {
            have.ca = current->ca;
            if (done != nullptr) done->push_back("CA: its files were deleted or damaged while it was in use, and are written back");
        }
        // A CA that somebody took away gets its successor while its key is still known: nobody is cut off.
        else if (have.ca.certificate.empty() && have.ca.key.empty()) have.ca = current->ca, new_ca = true;
        else have.ca = api::vouched_for(have.ca, current->ca, now_ms);
    }
    auto next = api::renew(have, names, now_ms, new_ca);
    if (!next) return fail(fmt::format("{}/{}", folder.string(), next.error().message));
    const auto& pki = next->pki;
    auto note = [&](const Error& why) {
        if (done != nullptr) done->push_back("files cannot be written, what they should hold is in force all the same: " + why.message);
    };
    // Whom to trust comes first: no CA comes into force whose predecessor would be forgotten in a crash.
    if (pki.trusted != kept.trusted)
        if (auto r = write_private(folder / trusted_file, pki.trusted); !r) {
            if (pki.ca.key != kept.ca.key) return std::unexpected(r.error());
            note(r.error());
        }
    if (auto r = write_ca(folder, pki.ca, kept.ca); !r) return std::unexpected(r.error());
    for (const auto& [name, pair, before] :
         {std::tuple{"api-server", &pki.server, &kept.server}, std::tuple{"admin", &pki.admin, &kept.admin}})
        if (auto r = write_pair(folder, name, *pair, *before); !r) note(r.error());
    if (done != nullptr) std::ranges::copy(next->done, std::back_inserter(*done));
    return next->pki;
}

std::string kubeconfig_text(const Identity& identity, const std::string& address, int port) {
    return fmt::format(
        "apiVersion: v1\nkind: Config\ncurrent-context: default\n"
        "clusters:\n- name: default\n  cluster:\n    server: https://{}:{}\n    certificate-authority-data: "
        "{}\n"
        "users:\n- name: default\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n"
        "contexts:\n- name: default\n  context:\n    cluster: default\n    user: default\n",
        address == "0.0.0.0" || address == "::" ? "127.0.0.1" : address, port,
        base64_encode(identity.trusted), base64_encode(identity.admin.certificate),
        base64_encode(identity.admin.key));
}

}  // namespace penstock::app
