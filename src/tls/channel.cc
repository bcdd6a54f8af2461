#include "tls/channel.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "crypto/native.h"
#include "tls/peer_chain.h"

namespace penstock::tls {

/// OpenSSL's view of a Channel as its transport.
struct BioMethod {
    BIO_METHOD* native = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "penstock channel");
    BioMethod() {
        BIO_meth_set_read(native, Channel::bio_read);
        BIO_meth_set_write(native, Channel::bio_write);
        BIO_meth_set_ctrl(native, Channel::bio_control);
    }
    BioMethod(const BioMethod&) = delete;
    BioMethod& operator=(const BioMethod&) = delete;
    ~BioMethod() { BIO_meth_free(native); }
};

namespace {
bool is_address(const std::string& name) { return std::unique_ptr<ASN1_OCTET_STRING, crypto::Freer<ASN1_OCTET_STRING_free>>(a2i_IPADDRESS(name.c_str())) != nullptr; }
}  // namespace

Channel& Channel::of(bio_st* bio) noexcept { return *static_cast<Channel*>(BIO_get_data(bio)); }

int Channel::bio_read(bio_st* bio, char* into, int size) {
    auto& input = of(bio).input_;
    BIO_clear_retry_flags(bio);
    if (input.empty()) {
        BIO_set_retry_read(bio);
        return -1;
    }
    const auto taken = std::min(input.size(), static_cast<std::size_t>(size));
    std::memcpy(into, input.data(), taken);
    input.remove_prefix(taken);
    return static_cast<int>(taken);
}

int Channel::bio_write(bio_st* bio, const char* from, int size) {
    of(bio).output_.append(from, static_cast<std::size_t>(size));
    return size;
}

long Channel::bio_control(bio_st*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

Channel::Channel(std::shared_ptr<const Context> context, bool is_server, const std::string& server_name) : context_(std::move(context)), native_(SSL_new(context_->native())) {
    static const BioMethod method;
    auto* bio = BIO_new(method.native);
    BIO_set_data(bio, this);
    BIO_set_init(bio, 1);
    SSL_set_bio(native_, bio, bio);
    if (is_server) {
        SSL_set_accept_state(native_);
        return;
    }
    SSL_set_connect_state(native_);
    if (server_name.empty()) return;
    const bool address = is_address(server_name);
    // The macro SSL_set_tlsext_host_name spelled out: it has an old-style cast.
    if (!address) SSL_ctrl(native_, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(server_name.c_str()));
    if (!context_->verifies_name()) return;
    if (address) X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(native_), server_name.c_str());
    else SSL_set1_host(native_, server_name.c_str());
}

Channel::~Channel() { SSL_free(native_); }

bool Channel::failed(int result) {
    const int error = SSL_get_error(native_, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return false;
    if (error != SSL_ERROR_ZERO_RETURN) {
        const auto verify = SSL_get_verify_result(native_);
        const auto code = ERR_peek_error();
        const char* text = code != 0 ? ERR_reason_error_string(code) : nullptr;
        fault_ = text != nullptr ? text : "the handshake was broken off";
        if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK) fault_ = std::string("the server's certificate: ") + X509_verify_cert_error_string(verify);
        is_closed_ = true;
    }
    ERR_clear_error();
    return true;
}

long Channel::read(char* into, std::size_t size) {
    std::size_t done = 0;
    while (done < size) {
        const int got = SSL_read(native_, into + done, static_cast<int>(std::min<std::size_t>(size - done, INT_MAX)));
        if (!is_open_ && SSL_is_init_finished(native_) == 1) is_open_ = true;
        if (got > 0) {
            done += static_cast<std::size_t>(got);
            continue;
        }
        if (!failed(got)) break;
        // What came before the end is still good.
        if (done > 0) break;
        return -1;
    }
    return static_cast<long>(done);
}

bool Channel::write(std::string_view plaintext) {
    while (!plaintext.empty()) {
        const int step = static_cast<int>(std::min<std::size_t>(plaintext.size(), 1u << 20));
        const int sent = SSL_write(native_, plaintext.data(), step);
        if (sent <= 0) {
            failed(sent);
            is_closed_ = true;
            return false;
        }
        plaintext.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

bool Channel::advance() {
    const int done = SSL_do_handshake(native_);
    if (done == 1) is_open_ = true;
    return done == 1 || !failed(done);
}

void Channel::close() {
    if (is_closed_) return;
    is_closed_ = true;
    if (!is_open_) return;
    SSL_shutdown(native_);
    ERR_clear_error();
}

std::vector<crypto::Certificate> Channel::peer_chain() const { return tls::peer_chain(native_); }

bool Channel::has_peer_certificate() const noexcept { return SSL_get0_peer_certificate(native_) != nullptr; }

std::string Channel::server_name() const {
    const char* name = SSL_get_servername(native_, TLSEXT_NAMETYPE_host_name);
    return name != nullptr ? name : "";
}

const char* Channel::version() const noexcept { return SSL_get_version(native_); }
const char* Channel::cipher() const noexcept { return SSL_get_cipher_name(native_); }
bool Channel::is_resumed() const noexcept { return SSL_session_reused(native_) == 1; }

}  // namespace penstock::tls
