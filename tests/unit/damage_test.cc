// State whose files are damaged: whatever is done to which file, what is read is right, or the damage is told; never is less there in
// silence. What a crash or a power cut leaves is no damage.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <fstream>
#include <map>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "base/crc32c.h"
#include "base/mark.h"
#include "base/random.h"
#include "store/durable.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

struct Folder {
    fs::path path = fs::temp_directory_path() / ("penstock-damage-" + random_uuid());
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
};

mqtt::MessageRef message(const std::string& topic, const std::string& payload) {
    return mqtt::MessageRef(mqtt::Message::make({.topic = topic, .payload = payload, .properties = {}, .partition = {}, .has_partition = false,
                                                 .retain = true, .qos = mqtt::Qos::at_least_once, .expires_at = 0, .publisher = 0}));
}

KeyRing one_key() { return {.keys = {{.id = 3, .bytes = std::string(32, 'k'), .label = ""}}}; }

/// A life of the store that keeps retained messages alone.
struct Life final : Recovered {
    std::unique_ptr<Durable> durable;
    std::unique_ptr<Engine> engine;
    std::map<std::string, std::string> found;
    std::string refused;

    Life(const fs::path& data, bool sealed, const std::string& boot = "one", int sync_interval_ms = 0) {
        auto opened = Durable::open({.folder = (data / "broker").string(), .mark_file = (data / "broker.mark").string(), .boot = boot, .owner = "test/broker",
                                     .sync_interval_ms = sync_interval_ms, .keys = sealed ? one_key() : KeyRing{}, .seal = sealed, .file_system = {}});
        if (!opened) {
            refused = opened.error().message;
            return;
        }
        durable = std::move(*opened);
        engine = durable->engine(0, [] {});
        engine->recover([](std::string_view) { return true; }, *this);
        durable->start();
    }
    ~Life() {
        if (durable) durable->stop();
        engine.reset();
    }
    void keep(const std::string& topic, const std::string& payload) {
        engine->put_retained(message(topic, payload), ++sequence_);
        static const std::vector<std::uint64_t> none{0};
        const auto ticket = engine->commit({.sent = none, .processed = none});
        while (engine->durable() < ticket) std::this_thread::yield();
    }
    [[nodiscard]] std::string notice() const { return durable->figures().notice; }
    void session(SessionRecord) override {}
    void subscription(std::string_view, std::string_view, const topics::Options&, std::uint32_t) override {}
    void handed_on(std::string_view, std::vector<Share>, std::unique_ptr<SessionStore>) override {}
    void incoming(std::string_view, std::uint16_t) override {}
    void seen(std::string_view, std::uint16_t, Portion) override {}
    void leaving(std::uint64_t, LeavingRecord) override {}
    void queue(std::string_view, std::unique_ptr<SessionStore>, std::uint16_t) override {}
    void state(std::string, statestore::Entry) override {}
    void retained(const mqtt::MessageRef& m, std::uint64_t) override { found[std::string(m->view().topic)] = m->view().payload; }

  private:
    std::uint64_t sequence_ = 0;
};

std::string payload_of(int number) { return fmt::format("{} ", number) + std::string(static_cast<std::size_t>(40 + number * 7 % 300), 'x'); }

/// State with something in tables and more in the log, as `kill -9` leaves it; and what belongs in it.
struct Killed {
    Folder folder;
    std::map<std::string, std::string> right;

    explicit Killed(bool sealed, int sync_interval_ms = 0) {
        const Folder work;
        const auto keep = [&](Life& life, int from, int to) {
            for (int i = from; i < to; ++i) life.keep(fmt::format("t/{:04}", i), payload_of(i)), right[fmt::format("t/{:04}", i)] = payload_of(i);
        };
        {
            Life life(work.path, sealed);
            keep(life, 0, 150);
        }
        Life life(work.path, sealed, "one", sync_interval_ms);   // what was in the log stands in a table now
        keep(life, 150, 350);
        fs::copy(work.path, folder.path, fs::copy_options::recursive);
    }
    void copy_to(const fs::path& into) const {
        fs::remove_all(into);
        fs::copy(folder.path, into, fs::copy_options::recursive);
    }
};

fs::path newest_log(const fs::path& data) {
    fs::path newest;
    for (const auto& entry : fs::directory_iterator(data / "broker"))
        if (entry.path().extension() == ".log" && entry.path() > newest) newest = entry.path();
    return newest;
}
std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}
void write(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }
void blank(const fs::path& path, std::size_t at, std::size_t size) {
    auto bytes = read(path);
    for (auto i = at; i < std::min(bytes.size(), at + size); ++i) bytes[i] = '\0';
    write(path, bytes);
}
bool is_part_of(const std::map<std::string, std::string>& some, const std::map<std::string, std::string>& all) {
    return std::ranges::all_of(some, [&](const auto& pair) { return all.contains(pair.first) && all.at(pair.first) == pair.second; });
}

class Damage : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(clear_and_sealed, Damage, ::testing::Bool(), [](const auto& which) { return which.param ? "sealed" : "clear"; });

TEST_P(Damage, a_killed_process_has_left_none) {
    const Killed killed(GetParam());
    const Life after(killed.folder.path, GetParam());
    EXPECT_EQ(after.found, killed.right);
    EXPECT_EQ(after.notice(), "");
    EXPECT_FALSE(fs::exists(killed.folder.path / "broker" / "lost"));
}

TEST_P(Damage, a_hole_in_the_log_is_told_and_set_aside) {
    const Killed killed(GetParam());
    const auto log = newest_log(killed.folder.path);
    const auto before = fs::file_size(log);
    blank(log, before / 3, 4096);
    {
        const Life after(killed.folder.path, GetParam(), "two");   // the mark is not needed for it, as after a power cut
        EXPECT_TRUE(is_part_of(after.found, killed.right));
        EXPECT_LT(after.found.size(), killed.right.size());
        EXPECT_GE(after.found.size(), 150u);
        EXPECT_NE(after.notice().find(log.filename().string()), std::string::npos) << after.notice();
        EXPECT_NE(after.notice().find("acknowledged changes are lost"), std::string::npos) << after.notice();
    }
    bool kept = false;
    for (const auto& entry : fs::recursive_directory_iterator(killed.folder.path / "broker" / "lost")) kept |= entry.path().filename() == log.filename() && entry.file_size() == before;
    EXPECT_TRUE(kept);
    // It is said until somebody has dealt with it.
    {
        const Life again(killed.folder.path, GetParam());
        EXPECT_NE(again.notice().find(log.filename().string()), std::string::npos) << again.notice();
    }
    fs::rename(killed.folder.path / "broker" / "lost", killed.folder.path / "seen");
    const Life last(killed.folder.path, GetParam());
    EXPECT_EQ(last.notice(), "");
}

/// The statements in the log tell it even where the mark is old or gone.
TEST_P(Damage, a_hole_is_told_without_the_mark) {
    const Killed killed(GetParam());
    fs::remove(killed.folder.path / "broker.mark");
    blank(newest_log(killed.folder.path), fs::file_size(newest_log(killed.folder.path)) / 2, 64);
    const Life after(killed.folder.path, GetParam());
    EXPECT_NE(after.notice().find("whole records stand behind"), std::string::npos) << after.notice();
}

/// A log cut at any byte looks like the end that a crash tore; the mark says how far it went.
TEST_P(Damage, a_log_that_is_cut_short_is_told) {
    const Killed killed(GetParam());
    const auto size = fs::file_size(newest_log(killed.folder.path));
    const Folder at;
    for (const auto left : {std::uintmax_t{0}, std::uintmax_t{1}, std::uintmax_t{64}, size / 3, size / 2, size - 7, size - 1}) {
        killed.copy_to(at.path);
        fs::resize_file(newest_log(at.path), left);
        const Life after(at.path, GetParam());
        ASSERT_EQ(after.refused, "") << left;
        EXPECT_TRUE(is_part_of(after.found, killed.right)) << left;
        EXPECT_NE(after.notice(), "") << left;
    }
    killed.copy_to(at.path);
    const auto log = newest_log(at.path);
    fs::remove(log);
    const Life after(at.path, GetParam());
    EXPECT_NE(after.notice().find(log.filename().string() + " is missing"), std::string::npos) << after.notice();
}

/// The mark and the newest log gone together: a second mark in the folder says it.
TEST_P(Damage, a_log_that_is_gone_with_the_mark_is_told) {
    const Killed killed(GetParam());
    const Folder at;
    {
        killed.copy_to(at.path);
        fs::remove(newest_log(at.path));
        fs::remove(at.path / "broker.mark");
        const Life after(at.path, GetParam());
        ASSERT_EQ(after.refused, "");
        EXPECT_TRUE(is_part_of(after.found, killed.right));
        EXPECT_NE(after.notice(), "") << after.found.size() << " of " << killed.right.size();
    }
    killed.copy_to(at.path);
    fs::resize_file(newest_log(at.path), fs::file_size(newest_log(at.path)) / 2);
    fs::remove(at.path / "broker.mark");
    const Life cut(at.path, GetParam());
    EXPECT_NE(cut.notice(), "");
}

/// Both marks and the newest log gone together: the list of files that is in force says that there was a log.
TEST_P(Damage, a_log_that_is_gone_with_both_marks_is_told) {
    const Killed killed(GetParam());
    const Folder at;
    killed.copy_to(at.path);
    fs::remove(newest_log(at.path));
    fs::remove(at.path / "broker.mark");
    fs::remove(at.path / "broker" / "penstock.mark");
    {
        const Life after(at.path, GetParam());
        ASSERT_EQ(after.refused, "");
        EXPECT_TRUE(is_part_of(after.found, killed.right));
        EXPECT_LT(after.found.size(), killed.right.size());
        EXPECT_NE(after.notice().find("the log is missing"), std::string::npos) << after.notice();
    }
    // Of the very first life, before anything stands in a table.
    const Folder first, killed_first;
    {
        Life life(first.path, GetParam());
        life.keep("a", "1");
        fs::copy(first.path, killed_first.path, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    }
    fs::remove(newest_log(killed_first.path));
    fs::remove(killed_first.path / "broker.mark");
    fs::remove(killed_first.path / "broker" / "penstock.mark");
    const Life after(killed_first.path, GetParam());
    ASSERT_EQ(after.refused, "");
    EXPECT_NE(after.notice().find("the log is missing"), std::string::npos) << after.notice();
}

/// A copy (a backup) has no marks and no name of its own, and is whole; with its log or without.
TEST_P(Damage, a_backup_that_is_put_in_place_is_none) {
    const Folder folder, restored;
    {
        Life life(folder.path, GetParam());
        life.keep("a", "1");
        ASSERT_TRUE(life.durable->copy_to((restored.path / "broker").string()));
    }
    for (const bool with_log : {true, false}) {
        const Folder at;
        fs::copy(restored.path, at.path, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
        if (const auto log = newest_log(at.path); !with_log && !log.empty() && fs::file_size(log) == 0) fs::remove(log);
        const Life after(at.path, GetParam());
        EXPECT_EQ(after.refused, "");
        EXPECT_EQ(after.found, (std::map<std::string, std::string>{{"a", "1"}}));
        EXPECT_EQ(after.notice(), "");
    }
}

/// Lays a copy beside the files, as a store whose files were deleted makes one; `whole` is what its file WHOLE says, if it has one.
void lay_copy(const fs::path& data, const fs::path& of, const std::optional<std::string>& whole) {
    const auto copy = data / "broker" / "anew";
    fs::create_directories(copy);
    for (const auto& entry : fs::directory_iterator(of / "broker"))
        if (const auto name = entry.path().filename(); entry.is_regular_file() && name != "LOCK" && name != "penstock.mark") fs::copy_file(entry.path(), copy / name);
    if (whole) write(copy / "WHOLE", *whole);
}
std::string id_of(const fs::path& data) { return read(data / "broker" / "IDENTITY"); }

/// Of a copy that was left behind nothing is taken for the state: one that failed, that is older, of another store, or of an unknown one.
TEST_P(Damage, a_copy_that_was_left_behind_is_not_the_state) {
    const Killed killed(GetParam());
    const Folder other, at;
    {
        Life life(other.path, GetParam());
        life.keep("stranger", "1");
    }
    const auto same = "id=" + id_of(killed.folder.path);
    struct Case {
        const char* what;
        std::optional<std::string> whole;
        bool is_kept;
    };
    for (const auto& [what, whole, is_kept] : {Case{"it failed", std::nullopt, false}, {"it is older", same + " changes=3\n", false}, {"of another store", "id=11111111-2222-3333 changes=99999999\n", true},
                                               {"nobody knows", "", true}, {"torn", same + " changes=9999999", true}}) {
        killed.copy_to(at.path);
        lay_copy(at.path, other.path, whole);
        {
            const Life after(at.path, GetParam());
            ASSERT_EQ(after.refused, "") << what;
            EXPECT_EQ(after.found, killed.right) << what;
            EXPECT_FALSE(fs::exists(at.path / "broker" / "anew")) << what;
            EXPECT_EQ(after.notice().find("another store's state was left behind") != std::string::npos, is_kept) << what << ": " << after.notice();
        }
        // Without the marks the logs say how far the store has come.
        if (is_kept) continue;
        killed.copy_to(at.path);
        fs::remove(at.path / "broker.mark");
        fs::remove(at.path / "broker" / "penstock.mark");
        lay_copy(at.path, other.path, whole);
        const Life unmarked(at.path, GetParam());
        EXPECT_EQ(unmarked.found, killed.right) << what;
    }
}

/// A process that ended between the copy and its taking the place of what is gone.
TEST_P(Damage, a_copy_takes_the_place_of_what_is_gone) {
    const Killed killed(GetParam());
    const Folder at;
    for (const bool is_all_gone : {true, false}) {
        killed.copy_to(at.path);
        lay_copy(at.path, killed.folder.path, "id=" + id_of(killed.folder.path) + " changes=99999999\n");
        for (const auto& entry : fs::directory_iterator(at.path / "broker"))
            if (entry.is_regular_file() && (is_all_gone || entry.path().extension() == ".sst")) fs::remove(entry.path());
        const Life after(at.path, GetParam());
        ASSERT_EQ(after.refused, "");
        EXPECT_EQ(after.found, killed.right);
        EXPECT_EQ(after.notice(), "");
        EXPECT_FALSE(fs::exists(at.path / "broker" / "anew"));
    }
}

/// Marks that somebody deletes while they are in use come again with the next write.
TEST_P(Damage, marks_that_are_deleted_are_made_again) {
    const Folder folder;
    Life life(folder.path, GetParam());
    life.keep("a", "1");
    for (const auto& mark : {folder.path / "broker.mark", folder.path / "broker" / "penstock.mark"}) {
        ASSERT_TRUE(fs::remove(mark)) << mark;
        life.keep("a", "2");
        EXPECT_TRUE(fs::exists(mark)) << mark;
    }
}

/// With an interval between syncs the mark says what was written too. The same start of the machine has it; after a power cut it may be gone.
TEST_P(Damage, what_was_not_synced_may_be_gone_after_a_power_cut_alone) {
    const Killed killed(GetParam(), 60'000);
    const Folder at;
    for (const auto& [boot, told] : {std::pair{"one", true}, std::pair{"two", false}}) {
        killed.copy_to(at.path);
        fs::resize_file(newest_log(at.path), fs::file_size(newest_log(at.path)) - 9);
        const Life after(at.path, GetParam(), boot);
        EXPECT_EQ(after.found.size(), killed.right.size() - 1);
        EXPECT_EQ(after.notice() != "", told) << after.notice();
    }
    killed.copy_to(at.path);
    blank(newest_log(at.path), fs::file_size(newest_log(at.path)) / 2, 600);
    const Life after(at.path, GetParam(), "two");
    EXPECT_LT(after.found.size(), killed.right.size());
    EXPECT_EQ(after.notice(), "") << "what stands behind the hole says itself that this was not synced";
}

TEST_P(Damage, current_is_mended) {
    const Killed killed(GetParam());
    const Folder at;
    const auto current = at.path / "broker" / "CURRENT";
    for (const char* text : {"", "\n", "MANIFEST-", "MANIFEST-000001\n", "MANIFEST-999999\n", "NANIFEST-000005\n", "../../etc/passwd\n"}) {
        killed.copy_to(at.path);
        write(current, text);
        const Life after(at.path, GetParam());
        EXPECT_EQ(after.found, killed.right) << text << after.refused;
        EXPECT_EQ(after.notice(), "") << text;
    }
    killed.copy_to(at.path);
    fs::remove(current);
    const Life after(at.path, GetParam());
    EXPECT_EQ(after.found, killed.right);
}

TEST_P(Damage, a_folder_that_is_gone_is_not_begun_anew) {
    const Killed killed(GetParam());
    fs::remove_all(killed.folder.path / "broker");
    for (int i = 0; i < 2; ++i) {
        const Life refused(killed.folder.path, GetParam());
        EXPECT_NE(refused.refused.find("is missing or empty, though state was kept in it"), std::string::npos) << refused.refused;
        EXPECT_NE(refused.refused.find("to begin anew, remove " + (killed.folder.path / "broker.mark").string()), std::string::npos) << refused.refused;
    }
    fs::remove(killed.folder.path / "broker.mark");
    const Life anew(killed.folder.path, GetParam());
    EXPECT_EQ(anew.refused, "");
    EXPECT_TRUE(anew.found.empty());
}

/// A flipped byte in a table costs what stands in that block, and no more.
TEST_P(Damage, what_can_be_read_of_a_table_is_kept) {
    const Folder folder;
    std::map<std::string, std::string> right;
    {
        Life life(folder.path, GetParam());
        for (int i = 0; i < 600; ++i) life.keep(fmt::format("t/{:04}", i), payload_of(i)), right[fmt::format("t/{:04}", i)] = payload_of(i);
    }
    { const Life life(folder.path, GetParam()); }
    fs::path table;
    for (const auto& entry : fs::directory_iterator(folder.path / "broker"))
        if (entry.path().extension() == ".sst" && (table.empty() || entry.file_size() > fs::file_size(table))) table = entry.path();
    auto bytes = read(table);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write(table, bytes);
    for (int i = 0; i < 2; ++i) {
        const Life after(folder.path, GetParam());
        ASSERT_EQ(after.refused, "");
        EXPECT_TRUE(is_part_of(after.found, right));
        EXPECT_LT(after.found.size(), right.size());
        EXPECT_GT(after.found.size(), right.size() * 3 / 4) << after.notice();
        EXPECT_NE(after.notice().find(table.filename().string()), std::string::npos) << after.notice();
    }
}

/// Each file, each kind of damage: refused and told why, or told, or all is right.
TEST_P(Damage, is_never_silent) {
    const Killed killed(GetParam());
    const Folder at;
    std::vector<std::string> names{"../broker.mark"};
    for (const auto& entry : fs::directory_iterator(killed.folder.path / "broker")) names.push_back(entry.path().filename().string());
    std::map<std::string, std::function<void(const fs::path&)>> kinds;
    kinds["missing"] = [](const fs::path& file) { fs::remove(file); };
    kinds["empty"] = [](const fs::path& file) { write(file, ""); };
    kinds["a folder"] = [](const fs::path& file) { fs::remove(file), fs::create_directory(file); };
    for (const int tenths : {1, 3, 5, 9}) {
        kinds[fmt::format("cut to {} tenths", tenths)] = [tenths](const fs::path& file) { fs::resize_file(file, fs::file_size(file) * static_cast<std::uintmax_t>(tenths) / 10); };
        kinds[fmt::format("NUL from {} tenths", tenths)] = [tenths](const fs::path& file) { blank(file, fs::file_size(file) * static_cast<std::size_t>(tenths) / 10, 4096); };
    }
    kinds["all NUL"] = [](const fs::path& file) { blank(file, 0, fs::file_size(file)); };
    for (const int place : {0, 9, 17, 50, 70, 333, 500, 750, 990, 1000})
        kinds[fmt::format("flipped at {}", place)] = [place](const fs::path& file) {
            auto bytes = read(file);
            if (bytes.empty()) return;
            const auto at_byte = place < 100 ? std::min<std::size_t>(static_cast<std::size_t>(place), bytes.size() - 1) : (bytes.size() - 1) * static_cast<std::size_t>(place) / 1000;
            bytes[at_byte] = static_cast<char>(bytes[at_byte] ^ 0x10);
            write(file, bytes);
        };
    int told = 0, refused = 0, right = 0;
    for (const auto& name : names)
        for (const auto& [kind, damage] : kinds) {
            killed.copy_to(at.path);
            damage(at.path / "broker" / name);
            const Life after(at.path, GetParam());
            if (!after.refused.empty()) {
                ++refused;
                EXPECT_NE(after.refused.find((at.path / "broker").string()), std::string::npos) << name << ' ' << kind << ": " << after.refused;
                continue;
            }
            EXPECT_TRUE(is_part_of(after.found, killed.right)) << name << ' ' << kind;
            if (after.found == killed.right) ++right;
            else {
                ++told;
                EXPECT_NE(after.notice(), "") << name << ' ' << kind << ": " << after.found.size() << " of " << killed.right.size();
            }
        }
    EXPECT_GT(told, 20);
    EXPECT_GT(right, 20);
    RecordProperty("refused", refused);
}

}  // namespace
}  // namespace penstock::store

namespace penstock {
namespace {

namespace fs = std::filesystem;

TEST(Crc32c, is_that_of_rfc_3720) {
    EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
    EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
    EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
    EXPECT_EQ(crc32c("56789", crc32c("1234")), 0xE3069283u);
}

TEST(Mark, says_what_was_written_last_or_before) {
    const auto path = (fs::temp_directory_path() / ("penstock-mark-" + random_uuid())).string();
    Mark::Values values;
    {
        Mark mark(path);
        EXPECT_EQ(mark.read(values).value(), Mark::State::missing);
        for (int i = 1; i <= 5; ++i) ASSERT_TRUE(mark.write({{"n", std::to_string(i)}, {"name", "a/b"}}));
        EXPECT_TRUE(mark.sync());
    }
    const auto text = [&] {
        std::ifstream in(path, std::ios::binary);
        return std::string{std::istreambuf_iterator<char>(in), {}};
    }();
    EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
    for (std::size_t at = 0; at < text.size(); ++at) {
        auto damaged = text;
        damaged[at] = static_cast<char>(damaged[at] ^ 1);
        std::ofstream(path, std::ios::binary | std::ios::trunc) << damaged;
        Mark mark(path);
        ASSERT_EQ(mark.read(values).value(), Mark::State::good) << at;
        ASSERT_TRUE(values["n"] == "5" || values["n"] == "4") << at << ' ' << values["n"];
    }
    for (const auto& bad : {std::string(1024, '\0'), std::string("x"), text.substr(0, 40)}) {
        std::ofstream(path, std::ios::binary | std::ios::trunc) << bad;
        Mark mark(path);
        EXPECT_EQ(mark.read(values).value(), Mark::State::damaged);
        EXPECT_TRUE(mark.write({{"n", "9"}}));
        Mark again(path);
        EXPECT_EQ(again.read(values).value(), Mark::State::good);
        EXPECT_EQ(values["n"], "9");
    }
    fs::remove(path);
}

}  // namespace
}  // namespace penstock
