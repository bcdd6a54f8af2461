#pragma once
#include "store/memory_session.h"

namespace penstock::store {

/// The engine that keeps nothing; tests derive from it. Core: its worker.
class MemoryEngine : public Engine {
  public:
    explicit MemoryEngine(OverflowLane* overflow = nullptr) : overflow_(overflow) {}
    bool is_durable() const noexcept override { return false; }
    std::unique_ptr<SessionStore> open_session(std::string_view client_id, bool) override { return std::make_unique<MemorySessionStore>(client_id, overflow_); }
    // Sessions, subscriptions and retained messages live in the core's own indexes; without durability there is
    // nothing more to write.
    void take_session(SessionStore& store) override { static_cast<MemorySessionStore&>(store).use(overflow_); }
    void put_session(const SessionRecord&) override {}
    void erase_session(std::string_view, bool) override {}
    void put_subscription(std::string_view, std::string_view, const topics::Options&, std::uint32_t) override {}
    void erase_subscription(std::string_view, std::string_view) override {}
    void put_incoming(std::string_view, std::uint16_t) override {}
    void erase_incoming(std::string_view, std::uint16_t) override {}
    void put_seen(std::string_view, std::uint16_t, Portion) override {}
    void erase_seen(std::string_view, std::uint16_t, Portion) override {}
    std::uint64_t next_number() override { return 0; }
    void put_leaving(std::uint64_t, const LeavingRecord&) override {}
    void erase_leaving(std::uint64_t) override {}
    void put_shares(std::string_view, const std::vector<Share>&) override {}
    void erase_shares(std::string_view) override {}
    std::uint64_t next_ticket() const noexcept override { return 0; }
    void put_state(const std::string&, const statestore::Entry&) override {}
    void erase_state(const std::string&) override {}
    void put_retained(const mqtt::MessageRef&, std::uint64_t) override {}
    void erase_retained(std::string_view) override {}
    std::uint64_t commit(const MailCounts&) override { return 0; }
    std::uint64_t durable() const noexcept override { return ~std::uint64_t{0}; }
    const char* fault() const noexcept override { return nullptr; }
    void recover(const std::function<bool(std::string_view)>&, Recovered&) override {}

  private:
    OverflowLane* overflow_;
};

}  // namespace penstock::store
