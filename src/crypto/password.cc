#include "crypto/password.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <map>
#include <optional>
#include <set>

#include "base/random.h"
#include "base/text.h"
#include "crypto/native.h"
#include "crypto/signature.h"

namespace penstock::crypto {
namespace {

constexpr std::uint64_t memory_max = 256ull << 20;
constexpr unsigned iterations_max = 10'000'000;

struct Parsed {
    enum class Kind : std::uint8_t { scrypt, pbkdf2_sha256, pbkdf2_sha512, mosquitto } kind{};
    std::uint64_t n = 0;                 ///< scrypt's N, or iterations
    std::uint32_t r = 0, p = 0;
    std::string salt, hash;
};

/// PHC strings have no padding; mosquitto's have.
std::optional<std::string> decode(std::string_view text) {
    std::string padded(text);
    while (padded.size() % 4 != 0) padded += '=';
    return base64_decode(padded);
}
std::string encode(std::string_view bytes) {
    auto out = base64_encode(bytes);
    while (out.ends_with('=')) out.pop_back();
    return out;
}

bool known_kind(std::string_view word) {
    return word == "scrypt" || word == "pbkdf2-sha256" || word == "pbkdf2-sha512" || word == "7";
}

Result<Parsed> parse(const std::string& text) {
    const auto parts = split(text, '$');
    constexpr const char* taken = "scrypt, pbkdf2-sha256, pbkdf2-sha512 and $7$ of mosquitto_passwd 2.0 are";
    // Told by its name whatever follows it: people bring files that another program wrote.
    if (parts.size() > 2 && parts[0].empty() && parts[1] == "6")
        return fail(
            fmt::format("its kind \"6\" ($6$, a salted SHA-512 of mosquitto_passwd before 2.0 or of crypt) "
                        "is not taken; {}; "
                        "set the password anew with penstock passwd, or mosquitto_passwd -H sha512-pbkdf2",
                        taken));
    if (parts.size() > 2 && parts[0].empty() && !known_kind(parts[1]))
        return fail(fmt::format("its kind \"{}\" is not known; {}", clipped(parts[1], 32), taken));
    if (parts.size() != 5 || !parts[0].empty()) return fail("it is no hash in the form $KIND$PARAMETERS$SALT$HASH");
    Parsed out;
    const auto salt = decode(parts[3]), hash = decode(parts[4]);
    if (!salt || !hash || salt->size() < 8 || hash->size() < 16 || hash->size() > 64) return fail("its salt or hash is not in base64, or too short");
    out.salt = *salt;
    out.hash = *hash;
    std::map<std::string_view, std::uint64_t> numbers;
    for (const auto part : split(parts[2], ',')) {
        const auto equal = part.find('=');
        const auto number = parse_number<std::uint64_t>(equal == std::string_view::npos ? part : part.substr(equal + 1));
        if (!number) return fail("its parameters are no numbers");
        numbers[equal == std::string_view::npos ? "i" : part.substr(0, equal)] = *number;
    }
    if (parts[1] == "scrypt") {
        out.kind = Parsed::Kind::scrypt;
        if (numbers["ln"] < 10 || numbers["ln"] > 20 || numbers["r"] < 1 || numbers["r"] > 32 || numbers["p"] < 1 || numbers["p"] > 16) return fail("its parameters are out of range (ln 10 to 20, r 1 to 32, p 1 to 16)");
        out.n = 1ull << numbers["ln"];
        out.r = static_cast<std::uint32_t>(numbers["r"]);
        out.p = static_cast<std::uint32_t>(numbers["p"]);
        if (128 * out.n * out.r > memory_max) return fail("it would need more than 256 MiB");
        return out;
    }
    if (parts[1] == "pbkdf2-sha256") out.kind = Parsed::Kind::pbkdf2_sha256;
    else if (parts[1] == "pbkdf2-sha512") out.kind = Parsed::Kind::pbkdf2_sha512;
    else
        out.kind = Parsed::Kind::mosquitto;
    out.n = numbers["i"];
    if (out.n < 1 || out.n > iterations_max) return fail("its iterations are out of range (1 to 10,000,000)");
    return out;
}

std::string derive(const Parsed& rules, std::string_view password) {
    std::string out(rules.hash.size(), '\0');
    auto* to = static_cast<unsigned char*>(static_cast<void*>(out.data()));
    bool good = false;
    if (rules.kind == Parsed::Kind::scrypt) {
        good = EVP_PBE_scrypt(password.data(), password.size(), bytes_of(rules.salt), rules.salt.size(), rules.n, rules.r, rules.p, memory_max + (1u << 20), to, out.size()) == 1;
    } else {
        const auto* digest = rules.kind == Parsed::Kind::pbkdf2_sha256 ? EVP_sha256() : EVP_sha512();
        good = PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), bytes_of(rules.salt), static_cast<int>(rules.salt.size()), static_cast<int>(rules.n), digest, static_cast<int>(out.size()), to) == 1;
    }
    ERR_clear_error();
    return good ? out : std::string();
}

std::string text_of_hash(const Parsed& parsed) {
    switch (parsed.kind) {
        case Parsed::Kind::scrypt: return fmt::format("$scrypt$ln={},r={},p={}${}${}", std::countr_zero(parsed.n), parsed.r, parsed.p, encode(parsed.salt), encode(parsed.hash));
        case Parsed::Kind::pbkdf2_sha256: return fmt::format("$pbkdf2-sha256$i={}${}${}", parsed.n, encode(parsed.salt), encode(parsed.hash));
        case Parsed::Kind::pbkdf2_sha512: return fmt::format("$pbkdf2-sha512$i={}${}${}", parsed.n, encode(parsed.salt), encode(parsed.hash));
        case Parsed::Kind::mosquitto: return fmt::format("$7${}${}${}", parsed.n, base64_encode(parsed.salt), base64_encode(parsed.hash));
    }
    return {};
}

}  // namespace

std::string hash_like(const std::string& sample, std::string_view password) {
    auto rules = parse(sample);
    if (!rules) {
        rules = Parsed{.kind = Parsed::Kind::scrypt, .n = 1u << 15, .r = 8, .p = 1, .salt = {}, .hash = std::string(32, '\0')};
    }
    rules->salt.resize(16);
    random_bytes(rules->salt.data(), rules->salt.size());
    rules->hash = derive(*rules, password);
    return text_of_hash(*rules);
}

std::string hash_password(std::string_view password) { return hash_like({}, password); }

bool verify_password(const std::string& hash, std::string_view password) {
    const auto rules = parse(hash);
    if (!rules) return false;
    const auto derived = derive(*rules, password);
    return !derived.empty() && equal_constant_time(derived, rules->hash);
}

std::string password_hash_fault(const std::string& hash) {
    const auto parsed = parse(hash);
    return parsed ? std::string() : parsed.error().message;
}

Result<std::vector<PasswordLine>> read_password_file(std::string_view text) {
    constexpr std::size_t name_max = 253;    // of a Secret's key
    std::vector<PasswordLine> out;
    std::set<std::string, std::less<>> seen;
    std::size_t number = 0;
    for (const auto raw : split(text, '\n')) {
        ++number;
        const auto line = trim(raw);
        if (line.empty() || line.starts_with('#')) continue;
        const auto colon = line.find(':');
        if (colon == 0 || colon == std::string_view::npos || colon + 1 == line.size())
            return fail(fmt::format("line {}: expected USER:HASH", number));
        PasswordLine one{.number = number,
                         .user = std::string(line.substr(0, colon)),
                         .hash = std::string(line.substr(colon + 1)),
                         .fault = {}};
        const auto& user = one.user;
        const bool plausible =
            user.size() <= name_max && user != "." && !user.starts_with("..") &&
            std::ranges::all_of(user, [](char c) {
                return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
            });
        const auto why = password_hash_fault(one.hash);
        if (!plausible)
            one.fault = "the user's name cannot be an entry of a Secret, of letters, digits, '-', '_', '.'";
        else if (!seen.insert(user).second)
            one.fault = fmt::format("user \"{}\" stands there twice", clipped(user, 64));
        else if (!why.empty())
            one.fault = fmt::format("user \"{}\": {}", clipped(user, 64), why);
        out.push_back(std::move(one));
    }
    return out;
}

}  // namespace penstock::crypto
