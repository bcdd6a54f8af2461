#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "crypto/x509.h"

struct X509_crl_st;

namespace penstock::crypto {

/// A certificate revocation list (CRL), RFC 5280 section 5: complete, or a delta to a complete one (5.2.4). Immutable, any thread.
class RevocationList {
  public:
    /// Takes the reference over.
    explicit RevocationList(X509_crl_st* owned);
    [[nodiscard]] X509_crl_st* native() const noexcept { return native_.get(); }
    [[nodiscard]] std::string issuer() const;
    /// Unix time; 0: the list does not say.
    [[nodiscard]] std::int64_t next_update_ms() const;
    /// Why the list cannot be used: indirect (it names certificates of other CAs), for attribute certificates alone, or with a
    /// critical extension that is not understood. Empty: it can.
    [[nodiscard]] const std::string& fault() const noexcept { return fault_; }
    [[nodiscard]] bool is_delta() const noexcept { return delta_base_.has_value(); }
    /// True when the key of `by` made the signature.
    [[nodiscard]] bool is_signed_by(const Certificate& by) const;
    /// True when the list's own authority key identifier says that another key than that of `by` signed it.
    [[nodiscard]] bool names_another_key_than(const Certificate& by) const;
    /// True when this list came after `other`: by cRLNumber where both have one, else by thisUpdate. Neither is newer than the
    /// other when they came in the same second.
    [[nodiscard]] bool is_newer_than(const RevocationList& other) const;
    /// Lists of different scopes (issuingDistributionPoint) stand beside each other; the newest of one scope counts.
    [[nodiscard]] bool has_scope_of(const RevocationList& other) const noexcept { return scope_ == other.scope_; }
    /// A delta's base is `complete` or older than it, so that both together are as good as a newer complete list.
    [[nodiscard]] bool continues(const RevocationList& complete) const;
    enum class Entry : std::uint8_t { none, revoked, removed };
    /// What the list says of a certificate of its issuer. `removed`: a delta's word that it is not revoked any more.
    [[nodiscard]] Entry entry_of(const Certificate& certificate) const;

  private:
    void read_extensions();

    std::shared_ptr<X509_crl_st> native_;
    std::optional<std::string> number_, delta_base_;        ///< big-endian, without leading zeros
    std::string scope_;                                     ///< DER of issuingDistributionPoint; empty: all of the issuer's
    std::int64_t this_update_ms_ = 0;
    std::string fault_;
};

/// Every revocation list of a text in PEM, in order, at most 1,000. One that cannot be read or used is an error that counts from 1.
Result<std::vector<RevocationList>> read_revocation_lists(const std::string& text);

/// The revocation lists that stand beside trusted certificates, and which of them speaks for whom. A list speaks for the key that
/// signed it: a name that two keys have (a CA that was renewed with a new key) has lists of both. Immutable, any thread, no locks.
class RevocationLists {
  public:
    RevocationLists() = default;
    /// How many signatures it takes to find out who signed which list: each list with each certificate of its issuer's name.
    static std::size_t signatures_of(const std::vector<RevocationList>& lists, const std::vector<Certificate>& trusted);
    /// More than this take longer than anybody should wait for (about a second).
    static constexpr std::size_t signatures_max = 10'000;
    RevocationLists(std::vector<RevocationList> lists, const std::vector<Certificate>& trusted);
    [[nodiscard]] const std::vector<RevocationList>& all() const noexcept { return lists_; }
    /// Why `certificate`, whose signature the key of `issuer` made, is not to be accepted: it is revoked, or a list that might
    /// name it cannot be relied on. Empty: no list says so. Issuers without a list are not checked; a list past its next update
    /// still names whom it names. Verifies lists' signatures only when `issuer` is not among the trusted certificates.
    [[nodiscard]] std::string fault_of(const Certificate& certificate, const Certificate& issuer) const;
    /// True when a list has the name of `certificate`'s issuer.
    [[nodiscard]] bool has_list_about(const Certificate& certificate) const;
    /// What a person should know of the lists: signed by no trusted key, by a key that may not, a delta without its base.
    [[nodiscard]] std::vector<std::string> warnings() const;

  private:
    [[nodiscard]] bool is_named(const std::vector<std::size_t>& of_one_key, const Certificate& certificate) const;

    std::vector<RevocationList> lists_;
    std::vector<std::vector<Certificate>> signers_;         ///< of each list: the trusted certificates whose key signed it
    std::vector<Certificate> trusted_;
};

}  // namespace penstock::crypto
