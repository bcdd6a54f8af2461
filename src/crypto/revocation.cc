#include "crypto/revocation.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/clock.h"
#include "crypto/native.h"

namespace penstock::crypto {
namespace {

constexpr std::size_t lists_max = 1000;
constexpr std::string_view list_begin = "-----BEGIN X509 CRL-----", list_end = "-----END X509 CRL-----";

/// A positive number of any size (cRLNumber has up to 20 octets), comparable by length and then byte by byte.
std::optional<std::string> number_of(const ASN1_INTEGER* value) {
    const std::unique_ptr<BIGNUM, Freer<BN_free>> number(ASN1_INTEGER_to_BN(value, nullptr));
    if (!number || BN_is_negative(number.get()) != 0) return std::nullopt;
    std::vector<unsigned char> bytes(static_cast<std::size_t>(BN_num_bytes(number.get())));
    BN_bn2bin(number.get(), bytes.data());
    return std::string(bytes.begin(), bytes.end());
}

bool is_greater(const std::string& a, const std::string& b) { return a.size() != b.size() ? a.size() > b.size() : a > b; }

std::optional<std::string> number_extension(const X509_CRL* list, int id) {
    const std::unique_ptr<ASN1_INTEGER, Freer<ASN1_INTEGER_free>> value(static_cast<ASN1_INTEGER*>(X509_CRL_get_ext_d2i(list, id, nullptr, nullptr)));
    return value ? number_of(value.get()) : std::nullopt;
}

std::string object_text(const ASN1_OBJECT* object) {
    std::array<char, 128> text{};
    OBJ_obj2txt(text.data(), text.size(), object, 1);
    return text.data();
}

/// The object identifier of a critical extension that is not among `known`; empty when there is none.
template <class Get>
std::string unknown_critical(int count, Get get, std::initializer_list<int> known) {
    for (int i = 0; i < count; ++i) {
        auto* extension = get(i);
        auto* object = X509_EXTENSION_get_object(extension);
        if (X509_EXTENSION_get_critical(extension) != 0 && std::ranges::find(known, OBJ_obj2nid(object)) == known.end()) return object_text(object);
    }
    return {};
}

std::string key_id_of(const X509_CRL* list) {
    const std::unique_ptr<AUTHORITY_KEYID, Freer<AUTHORITY_KEYID_free>> id(static_cast<AUTHORITY_KEYID*>(X509_CRL_get_ext_d2i(list, NID_authority_key_identifier, nullptr, nullptr)));
    return id && id->keyid != nullptr ? text_of_string(id->keyid) : std::string();
}

bool has_name_of(const RevocationList& list, const Certificate& issuer) { return X509_NAME_cmp(X509_CRL_get_issuer(list.native()), X509_get_subject_name(issuer.native())) == 0; }

bool is_about(const RevocationList& list, const Certificate& certificate) { return X509_NAME_cmp(X509_CRL_get_issuer(list.native()), X509_get_issuer_name(certificate.native())) == 0; }

bool may_sign_lists(const Certificate& issuer) { return (X509_get_key_usage(issuer.native()) & KU_CRL_SIGN) != 0; }   // all bits when there is no key usage

bool have_one_key(const Certificate& a, const Certificate& b) {
    auto *one = X509_get0_pubkey(a.native()), *two = X509_get0_pubkey(b.native());
    return one != nullptr && two != nullptr && EVP_PKEY_eq(one, two) == 1;
}

}  // namespace

RevocationList::RevocationList(X509_crl_st* owned) : native_(owned, [](X509_crl_st* p) { X509_CRL_free(p); }) {
    this_update_ms_ = unix_ms_of(X509_CRL_get0_lastUpdate(native()));
    read_extensions();
    // OpenSSL sorts the entries at the first look-up, under a lock: that is now.
    X509_REVOKED* found = nullptr;
    const std::unique_ptr<ASN1_INTEGER, Freer<ASN1_INTEGER_free>> nobody(ASN1_INTEGER_new());
    X509_CRL_get0_by_serial(native(), &found, nobody.get());
    ERR_clear_error();
}

void RevocationList::read_extensions() {
    const auto* list = native();
    number_ = number_extension(list, NID_crl_number);
    if (X509_CRL_get_ext_by_NID(list, NID_delta_crl, -1) >= 0) {
        delta_base_ = number_extension(list, NID_delta_crl);
        if (!delta_base_) fault_ = "its delta CRL indicator cannot be read";
    }
    if (const int at = X509_CRL_get_ext_by_NID(list, NID_issuing_distribution_point, -1); at >= 0) {
        scope_ = text_of_string(X509_EXTENSION_get_data(X509_CRL_get_ext(list, at)));
        const std::unique_ptr<ISSUING_DIST_POINT, Freer<ISSUING_DIST_POINT_free>> point(static_cast<ISSUING_DIST_POINT*>(X509_CRL_get_ext_d2i(list, NID_issuing_distribution_point, nullptr, nullptr)));
        if (!point) fault_ = "its issuing distribution point cannot be read";
        else if (point->indirectCRL > 0) fault_ = "it is an indirect list (RFC 5280, 5.2.5), which may name certificates of other CAs; put in the list that each CA signed itself";
        else if (point->onlyattr > 0) fault_ = "it is about attribute certificates alone, which no client shows; take it out";
    }
    if (fault_.empty())
        if (const auto object = unknown_critical(X509_CRL_get_ext_count(list), [&](int i) { return X509_CRL_get_ext(list, i); }, {NID_authority_key_identifier, NID_crl_number, NID_delta_crl, NID_issuing_distribution_point, NID_freshest_crl}); !object.empty())
            fault_ = fmt::format("it has the critical extension {}, which is not understood here, so it must not be used (RFC 5280, 5.2); put in a list without it", object);
    auto* entries = X509_CRL_get_REVOKED(native());
    for (int i = 0; fault_.empty() && i < sk_X509_REVOKED_num(entries); ++i) {
        const auto* entry = sk_X509_REVOKED_value(entries, i);
        if (X509_REVOKED_get_ext_by_NID(entry, NID_certificate_issuer, -1) >= 0)
            fault_ = "it is an indirect list: an entry names another issuer (RFC 5280, 5.3.3); put in the list that each CA signed itself";
        else if (const auto object = unknown_critical(X509_REVOKED_get_ext_count(entry), [&](int k) { return X509_REVOKED_get_ext(entry, k); }, {NID_crl_reason, NID_invalidity_date, NID_hold_instruction_code}); !object.empty())
            fault_ = fmt::format("an entry has the critical extension {}, which is not understood here, so it must not be used (RFC 5280, 5.3); put in a list without it", object);
    }
    ERR_clear_error();
}

std::string RevocationList::issuer() const { return distinguished_name(X509_CRL_get_issuer(native())); }
std::int64_t RevocationList::next_update_ms() const { return unix_ms_of(X509_CRL_get0_nextUpdate(native())); }

bool RevocationList::is_signed_by(const Certificate& by) const {
    auto* key = X509_get0_pubkey(by.native());
    const bool good = key != nullptr && X509_CRL_verify(native(), key) == 1;
    ERR_clear_error();
    return good;
}

bool RevocationList::names_another_key_than(const Certificate& by) const {
    const auto wanted = key_id_of(native());
    const auto* own = X509_get0_subject_key_id(by.native());
    return !wanted.empty() && own != nullptr && text_of_string(own) != wanted;
}

bool RevocationList::is_newer_than(const RevocationList& other) const {
    if (number_ && other.number_ && *number_ != *other.number_) return is_greater(*number_, *other.number_);
    return this_update_ms_ > other.this_update_ms_;
}

bool RevocationList::continues(const RevocationList& complete) const { return delta_base_ && complete.number_ && !is_greater(*delta_base_, *complete.number_); }

RevocationList::Entry RevocationList::entry_of(const Certificate& certificate) const {
    X509_REVOKED* found = nullptr;
    switch (X509_CRL_get0_by_serial(native(), &found, X509_get_serialNumber(certificate.native()))) {
        case 0: return Entry::none;
        case 2: return Entry::removed;
        default: return Entry::revoked;
    }
}

Result<std::vector<RevocationList>> read_revocation_lists(const std::string& text) {
    std::vector<RevocationList> out;
    for (auto at = text.find(list_begin); at != std::string::npos; at = text.find(list_begin, at + 1)) {
        const auto end = text.find(list_end, at);
        const auto block = text.substr(at, end == std::string::npos ? end : end - at + list_end.size()) + "\n";
        const auto bio = memory_of(block);
        auto* list = PEM_read_bio_X509_CRL(bio.get(), nullptr, no_pass_phrase, nullptr);
        if (list == nullptr) {
            ERR_clear_error();
            return fail(fmt::format("revocation list {} cannot be read", out.size() + 1));
        }
        out.emplace_back(list);
        if (const auto& why = out.back().fault(); !why.empty()) return fail(fmt::format("revocation list {} (of \"{}\") cannot be used: {}", out.size(), out.back().issuer(), why));
        if (out.size() > lists_max) return fail(fmt::format("more than {} revocation lists", lists_max));
    }
    return out;
}

// --- which list speaks for whom ---

RevocationLists::RevocationLists(std::vector<RevocationList> lists, const std::vector<Certificate>& trusted) : lists_(std::move(lists)), signers_(lists_.size()), trusted_(trusted) {
    for (std::size_t i = 0; i < lists_.size(); ++i)
        for (const auto& one : trusted)
            if (has_name_of(lists_[i], one) && lists_[i].is_signed_by(one)) signers_[i].push_back(one);
}

std::size_t RevocationLists::signatures_of(const std::vector<RevocationList>& lists, const std::vector<Certificate>& trusted) {
    std::size_t out = 0;
    for (const auto& list : lists) out += static_cast<std::size_t>(std::ranges::count_if(trusted, [&](const auto& one) { return has_name_of(list, one); }));
    return out;
}

bool RevocationLists::has_list_about(const Certificate& certificate) const {
    return std::ranges::any_of(lists_, [&](const auto& list) { return is_about(list, certificate); });
}

std::string RevocationLists::fault_of(const Certificate& certificate, const Certificate& issuer) const {
    std::vector<std::size_t> own;
    bool may_sign = true;
    std::size_t unknown = lists_.size();
    for (std::size_t i = 0; i < lists_.size(); ++i) {
        if (!is_about(lists_[i], certificate)) continue;
        const auto& signers = signers_[i];
        if (signers.empty() ? lists_[i].is_signed_by(issuer) : std::ranges::any_of(signers, [&](const auto& one) { return have_one_key(one, issuer); })) {
            own.push_back(i);
            // Of several certificates of one key it is enough that one may.
            if (!may_sign_lists(issuer) && std::ranges::none_of(signers, may_sign_lists)) may_sign = false;
        } else if (signers.empty() && !lists_[i].names_another_key_than(issuer)) {
            unknown = i;
        }
    }
    if (is_named(own, certificate)) return fmt::format("certificate \"{}\" is revoked (serial {})", certificate.subject(), certificate.serial());
    if (!may_sign) return fmt::format("\"{}\" has signed a revocation list and may not (its key usage lacks cRLSign), so it cannot be relied on", issuer.subject());
    // Nobody's list: spoilt, or of a key that is not known here. Without another one nothing is known of this certificate.
    if (own.empty() && unknown != lists_.size())
        return fmt::format("the revocation list of \"{}\" is not signed by this CA's key, so it cannot be relied on; if the CA has another key, its certificate belongs among the trusted ones too", lists_[unknown].issuer());
    return {};
}

bool RevocationLists::is_named(const std::vector<std::size_t>& of_one_key, const Certificate& certificate) const {
    using Entry = RevocationList::Entry;
    auto is_latest = [&](std::size_t i) {
        return std::ranges::none_of(of_one_key, [&](std::size_t k) { return lists_[k].is_delta() == lists_[i].is_delta() && lists_[k].has_scope_of(lists_[i]) && lists_[k].is_newer_than(lists_[i]); });
    };
    for (const auto i : of_one_key) {
        const auto& list = lists_[i];
        const auto entry = list.entry_of(certificate);
        if (entry != Entry::revoked || !is_latest(i)) continue;
        // A newer list of the other kind may have the last word.
        const bool is_overruled = std::ranges::any_of(of_one_key, [&](std::size_t k) {
            const auto& other = lists_[k];
            if (!other.has_scope_of(list) || other.is_delta() == list.is_delta() || !other.is_newer_than(list) || !is_latest(k)) return false;
            return list.is_delta() ? true : other.continues(list) && other.entry_of(certificate) == Entry::removed;
        });
        if (!is_overruled) return true;
    }
    return false;
}

std::vector<std::string> RevocationLists::warnings() const {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < lists_.size(); ++i) {
        const auto& list = lists_[i];
        if (signers_[i].empty()) {
            bool name_is_trusted = false, may_be_theirs = false;
            for (const auto& one : trusted_) {
                if (!has_name_of(list, one)) continue;
                name_is_trusted = true;
                may_be_theirs |= !list.names_another_key_than(one);
            }
            if (may_be_theirs) out.push_back(fmt::format("the revocation list of \"{}\" is signed by none of the trusted certificates of that name, so it cannot be relied on: clients whose CA has no other list are refused; put in the list anew, or the certificate whose key signed it", list.issuer()));
            else if (name_is_trusted) out.push_back(fmt::format("the revocation list of \"{}\" is of another key than those of the trusted certificates of that name and refuses nobody; put in the certificate whose key signed it", list.issuer()));
        }
        if (!signers_[i].empty() && std::ranges::none_of(signers_[i], may_sign_lists)) out.push_back(fmt::format("\"{}\" may not sign revocation lists (key usage cRLSign is missing), and has: its clients are refused", list.issuer()));
        if (list.next_update_ms() != 0 && list.next_update_ms() <= wall_ms()) out.push_back(fmt::format("the revocation list of \"{}\" is past its next update ({}): it goes on refusing those it names, and whom its CA has revoked since gets in; put the list that the CA issues now in its place (of a CA of openssl: openssl ca -gencrl -out LIST.pem)", list.issuer(), rfc3339(list.next_update_ms())));
        if (!list.is_delta()) continue;
        const bool has_base = std::ranges::any_of(lists_, [&](const auto& other) { return !other.is_delta() && other.has_scope_of(list) && X509_NAME_cmp(X509_CRL_get_issuer(other.native()), X509_CRL_get_issuer(list.native())) == 0 && list.continues(other); });
        if (!has_base) out.push_back(fmt::format("the delta revocation list of \"{}\" stands without the complete list it continues: those it names are refused, and those the complete one names are not known; put both in", list.issuer()));
    }
    return out;
}

}  // namespace penstock::crypto
