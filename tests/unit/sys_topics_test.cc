// `$SYS`: what the server tells of itself is of this run, and goes when it is switched off.
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "control/sys_topics.h"
#include "harness/memory_net.h"
#include "harness/packets.h"
#include "store/durable.h"

namespace penstock::test {
namespace {

constexpr std::string_view uptime = "$SYS/broker/uptime", bridge = "$SYS/broker/connection/edge/state";

mqtt::MessageView retained(std::string_view topic, std::string_view payload) {
    return {.topic = topic,
            .payload = payload,
            .properties = {},
            .partition = {},
            .has_partition = false,
            .retain = true,
            .qos = mqtt::Qos::at_most_once,
            .expires_at = 0,
            .publisher = 0};
}

struct Folder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / ("penstock-sys-" + random_uuid());
    ~Folder() { std::filesystem::remove_all(path); }
};

/// A process with state on disk that keeps all retained messages.
struct Process {
    std::unique_ptr<store::Durable> durable;
    store::Engine* engine = nullptr;
    std::unique_ptr<MemoryNet> net;
    explicit Process(const Folder& folder)
        : durable(store::Durable::open({.folder = folder.path.string(), .owner = "test/broker", .file_system = {}})
                      .value()) {
        broker::BrokerConfig config;
        config.persistence.retain = config.persistence.queues = broker::Persistence::Mode::all;
        net = std::make_unique<MemoryNet>(1, config, nullptr, nullptr,
                                          [&](std::uint32_t core) {
                                              auto made = durable->engine(core, [] {});
                                              engine = made.get();
                                              return made;
                                          },
                                          monotonic_ms());
        durable->start();
        net->turn_end = [this](std::uint32_t) {
            commit();
            return true;
        };
        net->open_port();
        net->settle();
    }
    ~Process() {
        net->settle();
        durable->stop();
        net.reset();
    }
    void commit() {
        const auto ticket = net->commit(0);
        const auto end = monotonic_ms() + 10'000;
        while (net->core(0).durable() < ticket && monotonic_ms() < end) std::this_thread::yield();
    }
    std::vector<std::string> get(const std::string& filter) {
        auto* end = net->open();
        net->send(*end, connect_packet("reader") + subscribe_packet(filter, mqtt::Qos::at_most_once));
        std::vector<std::string> out;
        count_publishes(end->received, mqtt::Version::v5, &out);
        return out;
    }
};

TEST(SysTopics, of_another_run_nothing_is_left) {
    const Folder folder;
    {
        Process p(folder);
        p.net->core(0).publish(retained(uptime, "7 seconds"), p.net->now());
        p.net->core(0).publish(retained(bridge, "1"), p.net->now());
        p.net->core(0).publish(retained("plant/recipe", "steel"), p.net->now());
        p.net->settle();
        EXPECT_EQ(p.get(std::string(uptime)), std::vector<std::string>{"7 seconds"});
    }
    {
        Process p(folder);
        EXPECT_EQ(p.net->core(0).figures().retained_messages, 2u);
        EXPECT_EQ(p.get(std::string(uptime)), std::vector<std::string>());
        EXPECT_EQ(p.get(std::string(bridge)), std::vector<std::string>{"1"});   // a bridge's own words
        EXPECT_EQ(p.get("plant/recipe"), std::vector<std::string>{"steel"});
        // As a version did that kept them.
        p.engine->put_retained(mqtt::MessageRef(mqtt::Message::make(retained(uptime, "8 seconds"))), 50);
        p.commit();
    }
    for (int start = 0; start < 2; ++start) {
        Process p(folder);
        EXPECT_EQ(p.net->core(0).figures().retained_messages, 2u);
        EXPECT_EQ(p.get(std::string(uptime)), std::vector<std::string>());
    }
}

TEST(SysTopics, what_was_told_is_withdrawn_once_and_told_anew) {
    control::SysTopics topics;
    EXPECT_TRUE(topics.withdraw().empty());
    const auto told = topics.update({}, 0, 1000, "1");
    const auto gone = topics.withdraw();
    ASSERT_EQ(gone.size(), told.size());
    for (std::size_t i = 0; i < gone.size(); ++i) EXPECT_EQ(gone[i], std::pair(told[i].first, std::string()));
    EXPECT_TRUE(topics.withdraw().empty());
    EXPECT_EQ(topics.update({}, 0, 2000, "1").size(), told.size());
}

}  // namespace
}  // namespace penstock::test
