#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "base/stable_hash.h"
#include "topics/retained_index.h"
#include "topics/subscription_index.h"

namespace penstock::topics {
namespace {

/// A small generator with a seed that a failure prints; std::mt19937's results are not the same everywhere.
struct Dice {
    std::uint64_t state;
    std::size_t roll(std::size_t sides) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::size_t>(state >> 33) % sides;
    }
};

TEST(Topic, names) {
    EXPECT_TRUE(is_valid_name("a"));
    EXPECT_TRUE(is_valid_name("/"));
    EXPECT_TRUE(is_valid_name("a//b"));
    EXPECT_FALSE(is_valid_name(""));
    EXPECT_FALSE(is_valid_name("a/+"));
    EXPECT_FALSE(is_valid_name(std::string(300, '/')));
    EXPECT_TRUE(is_valid_name(std::string(65'535, 'x')));
    EXPECT_FALSE(is_valid_name(std::string(65'536, 'x')));
}

TEST(Topic, filters) {
    for (const char* good : {"#", "+", "a/#", "+/a/+", "/", "a//+", "$SYS/#"}) EXPECT_TRUE(is_valid_filter(good)) << good;
    for (const char* bad : {"", "a#", "#/a", "a+", "+a", "a/b#", "a/#/b"}) EXPECT_FALSE(is_valid_filter(bad)) << bad;
}

TEST(Topic, shared_filters) {
    EXPECT_FALSE(split_shared("a/b").is_shared);
    const auto good = split_shared("$share/group/a/+/b");
    EXPECT_TRUE(good.is_shared && good.is_valid);
    EXPECT_EQ(good.group, "group");
    EXPECT_EQ(good.filter, "a/+/b");
    for (const char* bad : {"$share/", "$share//a", "$share/g", "$share/g/", "$share/g+/a", "$share/#/a"}) EXPECT_FALSE(split_shared(bad).is_valid) << bad;
}

std::string random_path(Dice& dice, bool filter) {
    std::string out;
    const auto levels = 1 + dice.roll(4);
    for (std::size_t i = 0; i < levels; ++i) {
        if (i > 0) out += '/';
        const auto pick = dice.roll(filter ? 6 : 4);
        if (pick == 5 && i + 1 == levels) out += '#';
        else if (pick >= 4) out += '+';
        else if (pick == 3 && i == 0) out += "$s";
        else out += static_cast<char>('a' + static_cast<char>(pick));
    }
    return out;
}

TEST(SubscriptionIndex, agrees_with_matching_one_by_one) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Dice dice{seed};
        SubscriptionIndex index;
        std::vector<Subscriber> subscribers(8);
        std::map<std::pair<std::string, std::size_t>, Options> model;
        for (int step = 0; step < 2000; ++step) {
            const auto who = dice.roll(subscribers.size());
            const auto filter = random_path(dice, true);
            if (dice.roll(3) > 0) {
                const Options options{.qos = static_cast<std::uint8_t>(dice.roll(3)), .no_local = dice.roll(5) == 0, .id = static_cast<std::uint32_t>(dice.roll(3))};
                EXPECT_EQ(index.add(filter, &subscribers[who], options).is_new, !model.contains({filter, who}));
                model[{filter, who}] = options;
            } else {
                EXPECT_EQ(index.remove(filter, &subscribers[who]).existed, model.erase({filter, who}) > 0) << "seed=" << seed;
            }
            const auto topic = random_path(dice, false);
            const auto& match = index.match(topic, false);
            // Per subscriber and No Local flag: the highest QoS and all identifiers.
            std::map<std::pair<const Subscriber*, bool>, std::pair<int, std::multiset<std::uint32_t>>> wanted, got;
            for (const auto& [key, options] : model) {
                if (!matches(key.first, topic)) continue;
                auto& entry = wanted[{&subscribers[key.second], options.no_local}];
                entry.first = std::max(entry.first, static_cast<int>(options.qos));
                if (options.id != 0) entry.second.insert(options.id);
            }
            for (const auto& t : match.targets) {
                auto& entry = got[{t.subscriber, t.no_local}];
                EXPECT_TRUE(entry.second.empty()) << "two targets for one subscriber, seed=" << seed;
                entry.first = t.qos;
                for (std::uint16_t i = 0; i < t.ids_count; ++i) entry.second.insert(match.ids[t.ids_begin + i]);
            }
            ASSERT_EQ(got, wanted) << "seed=" << seed << " step=" << step << " topic=" << topic;
        }
        EXPECT_EQ(index.plain_count(), model.size());
        for (const auto& [key, options] : model) EXPECT_TRUE(index.remove(key.first, &subscribers[key.second]).existed);
        EXPECT_TRUE(index.match("a", false).targets.empty());
        EXPECT_EQ(index.plain_count(), 0u);
    }
}

TEST(SubscriptionIndex, remote_workers_are_bits) {
    SubscriptionIndex index;
    index.set_remote("a/+", 3, true);
    index.set_remote("a/b", 5, true);
    EXPECT_EQ(index.match("a/b", false).remote_workers, (1u << 3) | (1u << 5));
    EXPECT_EQ(index.match("a/c", false).remote_workers, 1u << 3);
    index.set_remote("a/+", 3, false);
    EXPECT_EQ(index.match("a/b", false).remote_workers, 1u << 5);
}

TEST(SubscriptionIndex, hidden_topics_are_not_seen_by_leading_wildcards) {
    SubscriptionIndex index;
    Subscriber a, b;
    index.add("#", &a, {});
    index.add("azedge/#", &b, {});
    EXPECT_EQ(index.match("azedge/x", false).targets.size(), 2u);
    EXPECT_EQ(index.match("azedge/x", true).targets.size(), 1u);
}

TEST(Group, hash_keeps_keys_with_their_member) {
    SubscriptionIndex index;
    for (std::uint64_t i = 1; i <= 4; ++i) index.add_member("t", "g", {.session = i, .is_connected = true});
    auto* group = index.find_group("t", "g");
    ASSERT_NE(group, nullptr);
    std::map<std::string, std::uint64_t> before;
    std::set<std::uint64_t> used;
    for (int i = 0; i < 200; ++i) {
        const auto key = std::to_string(i);
        before[key] = group->pick_by_hash(key)->session;
        used.insert(before[key]);
    }
    EXPECT_EQ(used.size(), 4u);
    index.remove_member("t", "g", 2);
    for (const auto& [key, member] : before) {
        if (member == 2) continue;
        EXPECT_EQ(group->pick_by_hash(key)->session, member);
    }
}

// However many members: a key's member is looked for once, and stays until it goes.
TEST(Group, a_large_group_is_not_gone_over_for_each_message) {
    constexpr std::uint64_t many = 5000, keys = 100;
    SubscriptionIndex index;
    for (std::uint64_t i = 1; i <= many; ++i) index.add_member("t", "g", {.session = i, .is_connected = true});
    auto* group = index.find_group("t", "g");
    std::map<std::string, std::uint64_t> before;
    for (int round = 0; round < 1000; ++round)
        for (std::uint64_t i = 0; i < keys; ++i) {
            const auto [at, is_new] = before.try_emplace(std::to_string(i), group->pick_by_hash(std::to_string(i))->session);
            ASSERT_TRUE(is_new || at->second == group->pick_by_hash(at->first)->session);
        }
    EXPECT_LE(group->compared, keys * many);
    const auto gone = before.begin()->second;
    index.set_member_connected("t", "g", gone, false);
    for (const auto& [key, member] : before) EXPECT_EQ(group->pick_by_hash(key)->session == member, member != gone) << key;
    index.set_member_connected("t", "g", gone, true);
    for (const auto& [key, member] : before) EXPECT_EQ(group->pick_by_hash(key)->session, member) << key;
    EXPECT_LE(group->compared, 2 * keys * many);
    // With few left it is the same as if they were compared each time.
    for (std::uint64_t i = 11; i <= many; ++i) index.remove_member("t", "g", i);
    for (const auto& [key, member] : before) EXPECT_LE(group->pick_by_hash(key)->session, 10u);
}

// Sixteen bytes of which the second half is chosen so that a hash without a key is the same for all.
TEST(LevelTable, levels_that_meet_in_a_known_hash_do_not_meet_here) {
    constexpr std::uint64_t multiplier = 0xC6A4A7935BD1E995, seed = 0xC70F6907;
    std::uint64_t inverse = 1;
    for (int i = 0; i < 6; ++i) inverse *= 2 - multiplier * inverse;
    const auto folded = [](std::uint64_t value) { return value ^ value >> 47; };
    LevelTable<Subscriber> table;
    std::set<std::uint64_t> hashes;
    constexpr std::uint64_t many = 3000;
    for (std::uint64_t i = 0; i < many; ++i) {
        const std::uint64_t first = 0x6161616161616161u + i;
        const auto half = ((seed ^ 16 * multiplier) ^ folded(first * multiplier) * multiplier) * multiplier;
        const auto second = folded((half ^ 12'345u * inverse) * inverse) * inverse;
        std::string level(16, '\0');
        std::memcpy(level.data(), &first, 8);
        std::memcpy(level.data() + 8, &second, 8);
        hashes.insert(stable_hash(level));
        table.find_or_add(table.root(), level);
    }
    ASSERT_EQ(hashes.size(), 1u) << "they are what they should be";
    EXPECT_EQ(table.size(), many);
    EXPECT_LT(table.longest_search(), many / 20);
}

// One of very many subscribers, members or groups of a filter subscribes anew with other options, comes or goes: the others are not
// gone over.
TEST(SubscriptionIndex, a_change_of_one_looks_at_one) {
    constexpr std::size_t many = 30'000, at_most = 16;     // looked at in one step, on average
    SubscriptionIndex index;
    std::uint64_t before = 0;
    const auto begin = [&] { before = index.looked_at(); };
    const auto spent = [&] { return (index.looked_at() - before) / many; };
    std::vector<Subscriber> subscribers(many);
    begin();
    for (auto& one : subscribers) EXPECT_TRUE(index.add("t/#", &one, {}).is_new);
    EXPECT_LE(spent(), at_most) << "subscribing";
    begin();
    for (auto& one : subscribers) EXPECT_FALSE(index.add("t/#", &one, {.qos = 1}).is_new);
    EXPECT_LE(spent(), at_most) << "subscribing with other options";
    EXPECT_EQ(index.match("t/x", false).targets.size(), many);
    begin();
    for (auto& one : subscribers) EXPECT_TRUE(index.remove("t/#", &one).existed);
    EXPECT_LE(spent(), at_most) << "leaving";

    begin();
    for (std::uint64_t i = 1; i <= many; ++i) EXPECT_TRUE(index.add_member("t/#", "g", {.session = i}));
    EXPECT_LE(spent(), at_most) << "joining a group";
    begin();
    for (std::uint64_t i = 1; i <= many; ++i) EXPECT_FALSE(index.add_member("t/#", "g", {.session = i, .options = {.qos = 1}}));
    for (std::uint64_t i = 1; i <= many; ++i) index.set_member_connected("t/#", "g", i, true);
    EXPECT_LE(spent(), 2 * at_most) << "joining with other options, and coming online";
    ASSERT_NE(index.find_group("t/#", "g"), nullptr);
    for (const std::uint64_t i : {std::uint64_t{1}, std::uint64_t{777}, std::uint64_t{many}}) {
        const auto* member = index.find_group("t/#", "g")->find(i);
        ASSERT_NE(member, nullptr);
        EXPECT_TRUE(member->session == i && member->is_connected && member->options.qos == 1);
    }
    begin();
    for (std::uint64_t i = 1; i <= many; ++i) EXPECT_TRUE(index.remove_member("t/#", "g", i));
    EXPECT_LE(spent(), 2 * at_most) << "leaving a group";

    begin();
    for (std::uint64_t i = 1; i <= many; ++i) EXPECT_TRUE(index.add_member("t/#", "g" + std::to_string(i), {.session = i}));
    for (std::uint64_t i = 1; i <= many; ++i) EXPECT_TRUE(index.remove_member("t/#", "g" + std::to_string(i), i));
    EXPECT_LE(spent(), 4 * at_most) << "a group each";
    EXPECT_EQ(index.plain_count() + index.shared_count(), 0u);
}

// Lists that grow past what is gone over, shrink, and grow again, beside groups that do the same.
TEST(SubscriptionIndex, long_lists_agree_with_simple_ones) {
    MessageBytes pool;
    MessageBytes::use(pool);
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        Dice dice{seed};
        {
            SubscriptionIndex index;
            const auto empty = pool.value();
            std::vector<Subscriber> subscribers(300);
            std::map<const Subscriber*, Options> model;
            std::map<std::string, std::map<std::uint64_t, Options>> groups;
            for (int step = 0; step < 12'000; ++step) {
                const bool grows = dice.roll(8) > 0 ? step / 1500 % 2 == 0 : step / 1500 % 2 != 0;
                auto& who = subscribers[dice.roll(subscribers.size())];
                const auto session = dice.roll(200) + 1;
                // One group of many members, and many groups of few.
                const auto group = dice.roll(2) == 0 ? std::string("g") : "g" + std::to_string(dice.roll(120));
                const Options options{.qos = static_cast<std::uint8_t>(dice.roll(3)), .id = static_cast<std::uint32_t>(dice.roll(3))};
                if (grows) {
                    ASSERT_EQ(index.add("t", &who, options).is_new, model.insert_or_assign(&who, options).second);
                    ASSERT_EQ(index.add_member("t", group, {.session = session, .options = options}), groups[group].insert_or_assign(session, options).second);
                } else {
                    const auto removed = index.remove("t", &who);
                    ASSERT_EQ(removed.existed, model.erase(&who) > 0) << "seed=" << seed << " step=" << step;
                    ASSERT_EQ(removed.last, removed.existed && model.empty());
                    ASSERT_EQ(index.remove_member("t", group, session), groups[group].erase(session) > 0) << "seed=" << seed << " step=" << step;
                }
                if (groups[group].empty()) groups.erase(group);
                if (step % 100 != 0) continue;
                const auto& match = index.match("t", false);
                std::map<const Subscriber*, std::uint8_t> got, wanted;
                for (const auto& target : match.targets) got[target.subscriber] = target.qos;
                for (const auto& [subscriber, of] : model) wanted[subscriber] = of.qos;
                ASSERT_EQ(got, wanted) << "seed=" << seed << " step=" << step;
                ASSERT_EQ(match.targets.size(), model.size());
                ASSERT_EQ(match.groups.size(), groups.size());
                for (auto* found : match.groups) {
                    ASSERT_EQ(index.find_group("t", found->name), found);
                    ASSERT_EQ(found->members.size(), groups.at(found->name).size());
                    for (const auto& [number, of] : groups.at(found->name)) {
                        const auto* member = found->find(number);
                        ASSERT_TRUE(member != nullptr && member->session == number && member->options == of);
                    }
                    ASSERT_EQ(found->find(1000), nullptr);
                }
            }
            for (auto& one : subscribers) EXPECT_EQ(index.remove("t", &one).existed, model.contains(&one));
            for (const auto& [group, members] : groups)
                for (const auto& [session, options] : members) EXPECT_TRUE(index.remove_member("t", group, session));
            EXPECT_EQ(index.plain_count() + index.shared_count(), 0u);
            EXPECT_EQ(pool.value(), empty) << "something is left of what was";
        }
        EXPECT_EQ(pool.value(), 0);
    }
    static MessageBytes after;
    MessageBytes::use(after);
}

// A filter with one subscriber, as most have, pays nothing for those that have many; these pay for a table.
TEST(SubscriptionIndex, what_a_subscription_costs) {
    MessageBytes pool;
    MessageBytes::use(pool);
    {
        SubscriptionIndex index;
        std::vector<Subscriber> subscribers(30'000);
        for (std::size_t i = 0; i < 1000; ++i) index.add("device/" + std::to_string(10'000 + i), &subscribers[i], {});
        EXPECT_LE(pool.value() / 1000, 180);
        const auto before = pool.value();
        for (auto& one : subscribers) index.add("t", &one, {});
        EXPECT_LE((pool.value() - before) / 30'000, 18 + 9) << "a list grows by doubling; its table has 65,536 places";
    }
    static MessageBytes after;
    MessageBytes::use(after);
}

TEST(RetainedIndex, agrees_with_matching_one_by_one) {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        Dice dice{seed};
        RetainedIndex<int> index;
        std::map<std::string, int> model;
        for (int step = 1; step < 1500; ++step) {
            const auto topic = random_path(dice, false);
            if (dice.roll(3) > 0) index[topic] = model[topic] = step;
            else {
                if (auto* slot = index.find(topic)) *slot = 0, index.erase(topic);
                model.erase(topic);
            }
            const auto filter = random_path(dice, true);
            std::multiset<int> wanted, got;
            for (const auto& [name, value] : model)
                if (matches(filter, name)) wanted.insert(value);
            index.match(filter, {}, [&](int& value) { got.insert(value); });
            ASSERT_EQ(got, wanted) << "seed=" << seed << " filter=" << filter;
        }
        for (const auto& [topic, value] : model) *index.find(topic) = 0, index.erase(topic);
        EXPECT_EQ(index.nodes(), 0u) << "nodes are left behind";
    }
}

}  // namespace
}  // namespace penstock::topics
