// The registry's file, damaged: it is refused with the cure, or what is read is what was written.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include <fmt/format.h>

#include "base/random.h"
#include "registry/database.h"

namespace penstock::registry {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}
void write(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }

struct Folder {
    fs::path path = fs::temp_directory_path() / ("penstock-registry-" + random_uuid());
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
};

/// A registry as a killed process leaves it: some of it in the file, the rest in its log.
struct Killed {
    Folder folder;
    std::map<std::string, std::string> right;
    std::uint64_t version = 1;

    /// `ended`: it came to an end, and all of it is in the file.
    explicit Killed(bool ended = false) {
        const Folder work;
        const auto path = (work.path / "registry.sqlite").string();
        {
            Database first;
            EXPECT_TRUE(first.open(path));
            put(first, 0, 40);
        }
        auto second = std::make_unique<Database>();
        EXPECT_TRUE(second->open(path));
        put(*second, 30, 60);
        EXPECT_TRUE(second->write("things.test", "ns", "object-3", nullptr, ++version));
        right.erase("object-3");
        if (ended) second.reset();
        fs::copy(work.path, folder.path, fs::copy_options::recursive);
    }
    void put(Database& database, int from, int to) {
        for (int i = from; i < to; ++i) {
            const auto name = fmt::format("object-{}", i), body = fmt::format("{{\"number\": {}, \"text\": \"{}\"}}", i + from, std::string(200, 'x'));
            EXPECT_TRUE(database.write("things.test", "ns", name, &body, ++version));
            right[name] = body;
        }
    }
    void copy_to(const fs::path& into) const {
        fs::remove_all(into);
        fs::copy(folder.path, into, fs::copy_options::recursive);
    }
};

struct Outcome {
    std::string refused;
    std::map<std::string, std::string> found;
    std::uint64_t version = 0;
};
Outcome open(const fs::path& folder) {
    Outcome out;
    Database database;
    auto opened = database.open((folder / "registry.sqlite").string());
    if (opened) opened = database.each([&](const std::string&, const std::string&, const std::string& name, const std::string& body) { out.found[name] = body; });
    if (opened) out.version = database.last_version().value_or(0);
    else out.refused = opened.error().message;
    return out;
}

/// Each kind of damage to that file; answers how many were refused.
int damage_each(const Killed& killed, const char* name) {
    const Folder at;
    const auto whole = read(killed.folder.path / name);
    EXPECT_GT(whole.size(), 4096u) << name;
    std::map<std::string, std::string> damaged{{"empty", ""}, {"all NUL", std::string(whole.size(), '\0')}};
    for (const int tenths : {1, 3, 5, 7, 9}) {
        damaged[fmt::format("cut at {}", tenths)] = whole.substr(0, whole.size() * static_cast<std::size_t>(tenths) / 10);
        auto nul = whole;
        for (std::size_t i = nul.size() * static_cast<std::size_t>(tenths) / 10, n = 0; n < 4096 && i < nul.size(); ++i, ++n) nul[i] = '\0';
        damaged[fmt::format("NUL at {}", tenths)] = nul;
    }
    for (std::size_t byte = 0; byte < whole.size(); byte += whole.size() / 120 + 1) {
        auto flipped = whole;
        flipped[byte] = static_cast<char>(flipped[byte] ^ 1 << byte % 8);
        damaged[fmt::format("flipped at {}", byte)] = flipped;
    }
    int refused = 0;
    for (const auto& [kind, bytes] : damaged) {
        killed.copy_to(at.path);
        write(at.path / name, bytes);
        const auto after = open(at.path);
        if (after.refused.empty()) {
            EXPECT_EQ(after.found, killed.right) << name << ' ' << kind;
            EXPECT_GE(after.version, killed.version) << name << ' ' << kind;
            continue;
        }
        ++refused;
        EXPECT_NE(after.refused.find((at.path / "registry.sqlite").string()), std::string::npos) << name << ' ' << kind << ": " << after.refused;
        EXPECT_TRUE(after.refused.find("restore") != std::string::npos || after.refused.find("newer penstock") != std::string::npos) << name << ' ' << kind << ": " << after.refused;
    }
    killed.copy_to(at.path);
    fs::remove(at.path / name);
    EXPECT_NE(open(at.path).refused, "") << name;
    return refused;
}

TEST(RegistryDamage, what_was_killed_has_none) {
    for (const bool ended : {false, true}) {
        const Killed killed(ended);
        const Folder at;
        killed.copy_to(at.path);
        EXPECT_EQ(open(at.path).found, killed.right) << ended;
    }
}
TEST(RegistryDamage, of_the_file_is_never_silent) { EXPECT_GT(damage_each(Killed(true), "registry.sqlite"), 30); }
TEST(RegistryDamage, of_the_log_is_never_silent) { EXPECT_GT(damage_each(Killed(), "registry.sqlite-wal"), 60); }

TEST(RegistryDamage, what_the_refusal_advises_works) {
    const Killed killed;
    const Folder at;
    killed.copy_to(at.path);
    fs::remove(at.path / "registry.sqlite-wal");
    EXPECT_NE(open(at.path).refused.find("to go on with what is there, remove " + (at.path / "registry.sqlite.mark").string()), std::string::npos) << open(at.path).refused;
    fs::remove(at.path / "registry.sqlite.mark");
    const auto older = open(at.path);
    EXPECT_EQ(older.refused, "");
    EXPECT_EQ(older.found.size(), 40u);
    for (const char* name : {"registry.sqlite", "registry.sqlite-wal", "registry.sqlite-shm", "registry.sqlite.mark"}) fs::remove(at.path / name);
    EXPECT_EQ(open(at.path).refused, "");
}

/// A file that an older penstock wrote, or wrote to in between, has no checksums, or old ones: it is taken as it is.
TEST(RegistryDamage, older_versions_do_not_keep_checksums) {
    const Folder at;
    const auto path = (at.path / "registry.sqlite").string();
    const std::string body = "{}";
    {
        Database database;
        ASSERT_TRUE(database.open(path));
        ASSERT_TRUE(database.write("things.test", "", "a", &body, 5));
    }
    const auto sql = [&](const char* text) {
        sqlite3* db = nullptr;
        const int opened = sqlite3_open(path.c_str(), &db);
        const int done = opened == SQLITE_OK ? sqlite3_exec(db, text, nullptr, nullptr, nullptr) : opened;
        sqlite3_close(db);
        return done;
    };
    ASSERT_EQ(sql("INSERT INTO objects VALUES('things.test','','b',6,'{}'); DELETE FROM objects WHERE name='a'; UPDATE meta SET value=6 WHERE key='version'"), 0);
    EXPECT_EQ(open(at.path).refused, "");
    ASSERT_EQ(sql("UPDATE objects SET body='[]' WHERE name='b'"), 0);
    EXPECT_NE(open(at.path).refused.find("the object things.test b is not what was written"), std::string::npos) << open(at.path).refused;
    ASSERT_EQ(sql("DELETE FROM objects WHERE name='b'"), 0);
    EXPECT_NE(open(at.path).refused.find("is not there, and was not deleted"), std::string::npos);
    ASSERT_EQ(sql("DROP TABLE sums; UPDATE meta SET value=1 WHERE key='sums'"), 0);
    EXPECT_EQ(open(at.path).refused, "");
}

}  // namespace
}  // namespace penstock::registry
