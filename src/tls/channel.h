#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/x509.h"
#include "tls/context.h"

struct ssl_st;
struct bio_st;

namespace penstock::tls {

/// One connection's TLS, without a socket: ciphertext in by set_input(), plaintext out by read(); plaintext in by write(),
/// ciphertext out in output(). Core: one at a time; it may move between threads in between.
class Channel {
  public:
    Channel(std::shared_ptr<const Context> context, bool is_server, const std::string& server_name = {});
    ~Channel();
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    /// What came from the network; must live until read() returned 0. The parts of an incomplete record are kept inside.
    void set_input(std::string_view ciphertext) noexcept { input_ = ciphertext; }
    /// Plaintext bytes; 0: nothing more without further input; -1: the peer closed or broke the protocol (see fault()), output()
    /// may hold an alert to send. Drives the handshake too.
    long read(char* into, std::size_t size);
    /// Encrypts all of it into output(). False when the channel is not open or failed.
    bool write(std::string_view plaintext);
    /// Goes on with the handshake without input (a client's first flight).
    bool advance();
    /// Appends close_notify once.
    void close();

    [[nodiscard]] bool is_open() const noexcept { return is_open_; }
    /// Why read() or advance() failed; empty when the peer simply closed.
    [[nodiscard]] const std::string& fault() const noexcept { return fault_; }
    /// Ciphertext to be sent.
    std::string& output() noexcept { return output_; }
    [[nodiscard]] const std::string& output() const noexcept { return output_; }

    /// The client's certificates, leaf first; empty when it showed none. Also after a resumption.
    [[nodiscard]] std::vector<crypto::Certificate> peer_chain() const;
    [[nodiscard]] bool has_peer_certificate() const noexcept;
    /// The name the client asked for (SNI).
    [[nodiscard]] std::string server_name() const;
    /// `TLSv1.3`.
    [[nodiscard]] const char* version() const noexcept;
    [[nodiscard]] const char* cipher() const noexcept;
    [[nodiscard]] bool is_resumed() const noexcept;
    [[nodiscard]] ssl_st* native() const noexcept { return native_; }
    [[nodiscard]] const Context& context() const noexcept { return *context_; }

  private:
    static int bio_read(bio_st* bio, char* into, int size);
    static int bio_write(bio_st* bio, const char* from, int size);
    static long bio_control(bio_st* bio, int command, long number, void* pointer);
    static Channel& of(bio_st* bio) noexcept;
    friend struct BioMethod;
    bool failed(int result);

    std::shared_ptr<const Context> context_;
    ssl_st* native_ = nullptr;
    std::string_view input_;
    std::string output_;
    std::string fault_;
    bool is_open_ = false;
    bool is_closed_ = false;             ///< close_notify sent, or broken
};

}  // namespace penstock::tls
