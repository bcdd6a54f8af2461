// Runs every case of tests/wire/*.wire over each transport, and the packets of all cases damaged in every way.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/random.h"

#include "harness/memory_net.h"
#include "harness/script.h"

namespace penstock::test {
namespace {

const std::vector<Case>& cases() {
    static const auto all = read_cases(PENSTOCK_SOURCE_DIR "/tests/wire");
    return all;
}

class Wire : public ::testing::TestWithParam<std::size_t> {
  protected:
    const Case& c() const { return cases()[GetParam()]; }
    void SetUp() override {
        for (const auto& statement : c().statements) RecordProperty(statement, "checked");
    }
};

TEST_P(Wire, in_memory) { EXPECT_EQ(run_case(c(), *make_memory_transport(1, c().config, false)), ""); }
TEST_P(Wire, in_memory_two_cores) { EXPECT_EQ(run_case(c(), *make_memory_transport(2, c().config, false)), ""); }
TEST_P(Wire, byte_at_a_time) { EXPECT_EQ(run_case(c(), *make_memory_transport(1, c().config, true)), ""); }
TEST_P(Wire, over_tcp) {
    if (c().memory_only) return;
    EXPECT_EQ(run_case(c(), *make_network_transport(2, c().config, false)), "");
}
TEST_P(Wire, over_websocket) {
    if (c().memory_only) return;
    EXPECT_EQ(run_case(c(), *make_network_transport(2, c().config, true)), "");
}

TEST_P(Wire, over_tls) {
    if (c().memory_only) return;
    EXPECT_EQ(run_case(c(), *make_network_transport(2, c().config, false, true)), "");
}
TEST_P(Wire, over_tls_and_websocket) {
    if (c().memory_only) return;
    EXPECT_EQ(run_case(c(), *make_network_transport(2, c().config, true, true)), "");
}

/// With state on disk: acknowledgements wait for a commit, and nothing else changes.
TEST_P(Wire, over_tcp_durable) {
    if (c().memory_only) return;
    const auto folder = std::filesystem::temp_directory_path() / ("penstock-wire-" + random_uuid());
    auto config = c().config;
    config.persistence = {.retain = broker::Persistence::Mode::all, .queues = broker::Persistence::Mode::all, .retain_topics = {}, .queue_clients = {}};
    EXPECT_EQ(run_case(c(), *make_network_transport(2, config, false, false, folder.string())), "");
    std::filesystem::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(All, Wire, ::testing::Range<std::size_t>(0, cases().size()), [](const auto& p) { return cases()[p.param].name; });

std::vector<std::string> corpus() {
    std::vector<std::string> out;
    for (const auto& c : cases())
        for (const auto& [number, text] : c.lines)
            if (text.size() > 2 && text[1] == '>') {
                bool open_end = false;
                auto packet = packet_bytes(text.substr(3), open_end);
                if (packet.size() < 2000) out.push_back(std::move(packet));
            }
    return out;
}

/// A net with a client that must not notice anything, and one whose packets are damaged.
void attack(const std::string& bytes, bool connected) {
    MemoryNet net(2);
    auto* witness = net.open();
    net.send(*witness, std::string("\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x05witns", 20));
    ASSERT_FALSE(witness->is_closed);
    auto* attacker = net.open(1);
    if (connected) net.send(*attacker, std::string("\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01z", 16));
    net.send(*attacker, bytes);
    net.advance(2000);
    witness->received.clear();
    net.send(*witness, std::string("\xC0\x00", 2));
    EXPECT_FALSE(witness->is_closed);
    EXPECT_TRUE(witness->received.ends_with(std::string("\xD0\x00", 2)));
}

TEST(Damage, every_prefix_leaves_others_alone) {
    for (const auto& packet : corpus())
        for (std::size_t size = 0; size < packet.size(); size += packet.size() > 200 ? 37 : 1) attack(packet.substr(0, size), packet[0] != 0x10);
}

TEST(Damage, every_bit_flip_leaves_others_alone) {
    for (const auto& packet : corpus())
        for (std::size_t bit = 0; bit < packet.size() * 8; bit += packet.size() > 200 ? 131 : 1) {
            auto damaged = packet;
            damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
            attack(damaged, packet[0] != 0x10);
        }
}

}  // namespace
}  // namespace penstock::test
