#include "app/pki_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/identity.h"
#include "base/log.h"
#include "base/mark.h"
#include "base/own_command.h"
#include "base/shell.h"
#include "crypto/hash.h"
#include "crypto/signature.h"
#include "crypto/x509.h"

namespace penstock::app {

namespace fs = std::filesystem;

namespace {

constexpr const char* interrupted_ca = "api-ca-next.pem";   // a new CA that is whole there is put in place at the start

constexpr const char* registry_name = "registry.sqlite";

bool has_bytes(const fs::path& file) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    return !error && size > 0;
}

std::string hex(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return out;
}

std::vector<fs::path> token_keys(const fs::path& folder) {
    std::vector<fs::path> out;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error))
        if (entry.path().filename().string().starts_with("service-account") && entry.path().extension() == ".key") out.push_back(entry.path());
    return out;
}

/// Why the pair cannot be used, beginning with the file's name; empty: it is whole.
std::string fault_of(const fs::path& folder, const std::string& name, std::vector<crypto::Certificate>& chain) {
    const auto text = read_file(folder / (name + ".crt")), key = read_file(folder / (name + ".key"));
    if (!text || text->empty()) return fmt::format("{}/{}.crt: is missing or empty", folder.string(), name);
    if (!key || key->empty()) return fmt::format("{}/{}.key: is missing or empty", folder.string(), name);
    auto certificates = crypto::read_certificates(*text);
    if (!certificates || certificates->empty()) return fmt::format("{}/{}.crt: is damaged: {}", folder.string(), name, certificates ? "no certificate is in it" : certificates.error().message);
    chain = std::move(*certificates);
    if (!chain.front().matches_key(*key)) {
        const auto path = (folder / name).string();
        return fmt::format("{}.key: is damaged, or not the key of {}.crt (their public keys, which must be one, are shown with: openssl x509 -in {} -noout -pubkey; openssl pkey -in {} -pubout)", path, name, shell_quoted(path + ".crt"), shell_quoted(path + ".key"));
    }
    return {};
}

/// A changed byte in a certificate breaks its signature, where that can be checked.
bool is_signed_well(const std::vector<crypto::Certificate>& chain) {
    return chain.front().is_self_signed() || (chain.size() > 1 && chain.front().is_signed_by(chain[1]));
}

Result<void> check_ca(const fs::path& folder, const Mark::Values& marked, const std::string& mark) {
    std::error_code error;
    const bool has_certificate = fs::exists(folder / "api-ca.crt", error), has_key = fs::exists(folder / "api-ca.key", error);
    if (fs::exists(folder / interrupted_ca, error)) return {};
    // Before the first start has come to its end the key may stand there alone.
    if (!marked.contains("ca") && !has_certificate) return {};
    const auto cure = fmt::format("put {}/api-ca.crt and api-ca.key back from a copy; to begin with a new CA, which no kubeconfig in use trusts, remove both of them and {}", folder.string(), mark);
    std::vector<crypto::Certificate> chain;
    auto fault = fault_of(folder, "api-ca", chain);
    if (fault.empty() && marked.contains("ca") && !is_signed_well(chain) && chain.front().fingerprint() != marked.at("ca") && hex(crypto::sha256(read_file(folder / "api-ca.key").value_or(""))) == marked.at("ca-key"))
        fault = fmt::format("{}/api-ca.crt: is damaged: it is not what it was, and not signed by its key", folder.string());
    if (fault.empty() && chain.front().subject() == chain.front().issuer() && !chain.front().is_self_signed()) fault = fmt::format("{}/api-ca.crt: is damaged: its signature is not its own", folder.string());
    if (!fault.empty()) return fail(fmt::format("{}; {}", fault, has_certificate || has_key ? cure : fmt::format("{} says that there was one; {}", mark, cure)));
    // What the CA has issued is made anew.
    for (const char* leaf : {"api-server", "admin"}) {
        std::vector<crypto::Certificate> own;
        auto why = fault_of(folder, leaf, own);
        if (why.empty() && own.front().issuer() == chain.front().subject() && !own.front().is_signed_by(chain.front())) why = fmt::format("{}/{}.crt: is damaged, or of another CA of that name", folder.string(), leaf);
        if (why.empty()) continue;
        if (fs::exists(folder / (std::string(leaf) + ".crt"), error)) log::warn("app", "a certificate of the resource API is made anew why=\"{}\"", why);
        fs::remove(folder / (std::string(leaf) + ".crt"), error);
        fs::remove(folder / (std::string(leaf) + ".key"), error);
    }
    return {};
}

Result<void> check_token_keys(const fs::path& folder, const Mark::Values& marked, const std::string& mark) {
    const auto files = token_keys(folder);
    if (files.empty() && marked.contains("tokens"))
        return fail(fmt::format("{}/service-account.key: is missing, though {} says that there was one; put it back from a copy; to begin with a new one, with which the tokens in use end, remove {}", folder.string(), mark, mark));
    for (const auto& file : files) {
        const auto text = read_file(file);
        const auto signature = text ? crypto::sign_es256(*text, "penstock") : Result<std::string>(std::unexpected(text.error()));
        if (!signature || !crypto::verify_es256(*text, "penstock", *signature))
            return fail(fmt::format("{}: is damaged: no private key can be read from it; put it back from a copy; to go on without it, with which the tokens it signed end, remove it{}", file.string(), files.size() == 1 ? " and " + mark : ""));
    }
    return {};
}

std::string mark_of(const fs::path& data_folder) { return (data_folder / "pki.mark").string(); }

}  // namespace

Result<void> check_pki(const fs::path& data_folder) {
    Mark mark(mark_of(data_folder));
    Mark::Values marked;
    const auto state = mark.read(marked);
    if (!state) return std::unexpected(state.error());
    const auto folder = data_folder / "pki";
    if (auto good = check_ca(folder, marked, mark.path()); !good) return good;
    return check_token_keys(folder, marked, mark.path());
}

Result<void> check_registry(const fs::path& data_folder) {
    const auto file = data_folder / registry_name;
    if (has_bytes(file)) return {};
    std::vector<std::string> marks;
    for (const auto& [name, value] : {std::pair{"registry.sqlite.mark", "version"}, std::pair{"pki.mark", "registry"}, std::pair{"broker.mark", "synced"}}) {
        Mark mark((data_folder / name).string());
        Mark::Values values;
        const auto state = mark.read(values);
        if (!state) return std::unexpected(state.error());
        if (*state == Mark::State::good && values.contains(value) && values.at(value) != "0") marks.push_back(mark.path());
    }
    if (marks.empty()) return {};
    return fail(fmt::format("{}: is missing or empty, though resources were kept in it ({} says so); is its disk mounted? put it back, or restore a backup ({}); to begin anew without resources, remove {}",
                            file.string(), marks.front(), restore_command(file.string()), fmt::join(marks, " and ")));
}

void mark_pki(const fs::path& data_folder) {
    const auto folder = data_folder / "pki";
    Mark::Values values;
    if (const auto chain = crypto::read_certificates(read_file(folder / "api-ca.crt").value_or("")); chain && !chain->empty()) {
        values["ca"] = chain->front().fingerprint();
        values["ca-key"] = hex(crypto::sha256(read_file(folder / "api-ca.key").value_or("")));
    }
    if (has_bytes(data_folder / registry_name)) values["registry"] = "1";
    if (const auto keys = token_keys(folder); !keys.empty()) values["tokens"] = std::to_string(keys.size());
    Mark mark(mark_of(data_folder));
    Mark::Values before;
    const auto state = mark.read(before);
    values.insert(before.begin(), before.end());   // what is gone in this moment was there all the same
    if (state && *state == Mark::State::good && before == values) return;
    static bool is_said = false;
    const bool is_written = mark.write(values) && mark.sync();
    if (!is_written && !is_said) log::warn("app", "the mark of the keys cannot be written; a key that is missing at the next start cannot be told file={}", mark.path());
    is_said = !is_written;
}

}  // namespace penstock::app
