// When a followed file takes effect, with a given clock and given files: never half of one, and nothing is deleted that may return.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/file_follower.h"
#include "harness/api_transport.h"

namespace penstock {
namespace {

using client::FileFollower;
using client::FollowState;
using client::Look;
using Phase = FollowState::Phase;
using resources::Json;
using resources::text_at;

/// Files as a test wants them to be seen.
struct GivenFiles final : client::ManifestFiles {
    struct File {
        std::string text;
        std::uint64_t inode = 1;
        std::int64_t changed_ms = 0;
        client::Writer writer = client::Writer::none;
        bool unreadable = false;
    };
    std::map<std::string, File> files;
    std::string fault;                   ///< of the folder
    std::function<void()> while_read;

    Look look() override {
        client::SourceMark source{.path = "/m", .fault = fault, .is_folder = true, .device = 1, .inode = 1};
        if (fault.empty())
            for (const auto& [name, file] : files)
                source.files.push_back({.path = name, .device = 1, .inode = file.inode, .size = file.text.size(), .modified_ns = file.changed_ms * 1'000'000, .changed_ns = file.changed_ms * 1'000'000});
        return {source};
    }
    client::Writer writer_of(const std::string& path) override { return files.at(path).writer; }
    Result<std::string> read(const std::string& path) override {
        if (while_read) while_read();
        if (!files.contains(path) || files.at(path).unreadable) return fail(path + ": cannot be read");
        return files.at(path).text;
    }
};

std::string map_of(const std::string& name, const std::string& data = "{a: \"1\", b: \"2\"}") { return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: " + data + "\n---\n"; }

class Follower : public testing::Test {
  protected:
    void SetUp() override { renew(); }
    void renew() {
        auto given = std::make_unique<GivenFiles>();
        if (files != nullptr) *given = *files;
        files = given.get();
        follower = std::make_unique<FileFollower>(api, std::move(given), FileFollower::Options{.source = "/m", .name_space = "default", .may_be_empty = may_be_empty, .now_ms = [this] { return now; }, .wall_ms = [this] { return now; }});
    }
    void write(const std::string& name, const std::string& text) {
        auto& file = files->files[name];
        file.text = text;
        file.changed_ms = now;
    }
    const FollowState& after(std::int64_t ms) {
        // Twice a second, as it runs.
        for (const auto end = now + ms; now < end;) {
            now = std::min(end, now + 500);
            follower->step();
        }
        return follower->step();
    }
    bool exists(const std::string& name) { return world.registry->get(*resources::find_kind("v1", "ConfigMap"), "default", name).has_value(); }
    Json data(const std::string& name) { return (**world.registry->get(*resources::find_kind("v1", "ConfigMap"), "default", name))["data"]; }
    /// `a` and `b` in force.
    void settled() {
        write("f.yaml", map_of("a") + map_of("b"));
        ASSERT_EQ(after(2000).phase, Phase::applied) << follower->state().why;
        ASSERT_TRUE(exists("a") && exists("b"));
    }

    test::ApiWorld world;
    test::ApiTransport api{world};
    std::int64_t now = 1'000'000'000;
    bool may_be_empty = true;
    GivenFiles* files = nullptr;
    std::unique_ptr<FileFollower> follower;
};

TEST_F(Follower, a_change_acts_when_the_file_has_settled) {
    settled();
    write("f.yaml", map_of("a", "{a: \"9\", b: \"2\"}") + map_of("b") + map_of("c"));
    EXPECT_EQ(after(500).phase, Phase::waiting);
    EXPECT_FALSE(exists("c"));
    EXPECT_EQ(after(1000).phase, Phase::applied);
    EXPECT_TRUE(exists("c"));
    EXPECT_EQ(data("a")["a"], "9");
}

TEST_F(Follower, a_file_that_is_rewritten_in_pieces_deletes_nothing) {
    settled();
    // `generator > file`: empty at once, then half, then all, with pauses.
    write("f.yaml", "");
    EXPECT_EQ(after(8000).phase, Phase::waiting);
    EXPECT_NE(follower->state().why.find("there is no document left in them; configmap/a and 1 more would be deleted; that takes effect when the files stay so for 30 s"), std::string::npos) << follower->state().why;
    write("f.yaml", map_of("a"));
    EXPECT_EQ(after(8000).phase, Phase::waiting);
    EXPECT_NE(follower->state().why.find("configmap/b left them and would be deleted; that takes effect when the files stay so for 10 s"), std::string::npos) << follower->state().why;
    write("f.yaml", map_of("a") + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {a: \"1\"}\n");
    EXPECT_EQ(after(8000).phase, Phase::waiting);
    EXPECT_NE(follower->state().why.find("ConfigMap/default/b lost a field or an item"), std::string::npos) << follower->state().why;
    EXPECT_TRUE(exists("a") && exists("b"));
    EXPECT_EQ(data("b").size(), 2u);
    write("f.yaml", map_of("a") + map_of("b"));
    EXPECT_EQ(after(2000).phase, Phase::applied);
}

TEST_F(Follower, a_file_that_is_open_for_writing_is_not_taken) {
    settled();
    write("f.yaml", map_of("a") + map_of("b") + map_of("c"));
    files->files["f.yaml"].writer = client::Writer::some;
    EXPECT_EQ(after(40'000).phase, Phase::waiting);
    EXPECT_NE(follower->state().why.find("f.yaml: a program has it open for writing"), std::string::npos) << follower->state().why;
    files->files["f.yaml"].writer = client::Writer::none;
    EXPECT_EQ(after(500).phase, Phase::applied);
    EXPECT_TRUE(exists("c"));
    // A program that forgot to close it does not hold it for ever.
    write("f.yaml", map_of("a") + map_of("b") + map_of("c") + map_of("d"));
    files->files["f.yaml"].writer = client::Writer::some;
    EXPECT_EQ(after(61'000).phase, Phase::applied);
    EXPECT_TRUE(exists("d"));
}

TEST_F(Follower, where_writers_cannot_be_seen_it_waits_longer_and_at_a_cut_line_too) {
    settled();
    write("f.yaml", map_of("a") + map_of("b") + map_of("c"));
    files->files["f.yaml"].writer = client::Writer::unknown;
    EXPECT_EQ(after(2500).phase, Phase::waiting);
    EXPECT_EQ(after(1000).phase, Phase::applied);
    files->files["f.yaml"].writer = client::Writer::none;
    write("f.yaml", map_of("a") + map_of("b") + map_of("c") + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {a: cut");
    EXPECT_EQ(after(2500).phase, Phase::waiting);
    EXPECT_EQ(after(1000).phase, Phase::faulty) << "half a document";
    write("f.yaml", map_of("a") + map_of("b") + map_of("c") + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}");
    EXPECT_EQ(after(2500).phase, Phase::waiting);
    EXPECT_FALSE(exists("d"));
    EXPECT_EQ(after(1000).phase, Phase::applied);
    EXPECT_TRUE(exists("d"));
}

TEST_F(Follower, what_stays_away_goes) {
    settled();
    write("f.yaml", map_of("a"));
    EXPECT_EQ(after(9500).phase, Phase::waiting);
    EXPECT_TRUE(exists("b"));
    EXPECT_EQ(after(1000).phase, Phase::applied);
    EXPECT_FALSE(exists("b"));
    write("f.yaml", "# nothing any more\n");
    EXPECT_EQ(after(29'500).phase, Phase::waiting);
    EXPECT_TRUE(exists("a"));
    EXPECT_EQ(after(1000).phase, Phase::applied);
    EXPECT_FALSE(exists("a"));
}

TEST_F(Follower, a_file_that_is_written_again_and_again_with_the_same_text_takes_effect) {
    settled();
    for (int i = 0; i < 4; ++i) {
        write("f.yaml", map_of("a"));
        after(4000);
    }
    EXPECT_FALSE(exists("b"));
    EXPECT_EQ(follower->state().phase, Phase::applied);
}

TEST_F(Follower, a_file_that_is_deleted_and_made_anew_changes_nothing) {
    settled();
    const auto before = world.registry->version();
    files->files.clear();
    EXPECT_EQ(after(8000).phase, Phase::waiting);
    write("f.yaml", map_of("a") + map_of("b"));
    files->files["f.yaml"].inode = 2;
    EXPECT_EQ(after(2000).phase, Phase::applied);
    EXPECT_EQ(world.registry->version(), before);
    // An editor's rename: another file under the same name.
    write("f.yaml", map_of("a", "{a: \"3\", b: \"2\"}") + map_of("b"));
    files->files["f.yaml"].inode = 3;
    EXPECT_EQ(after(1500).phase, Phase::applied);
    EXPECT_EQ(data("a")["a"], "3");
}

TEST_F(Follower, a_folder_or_file_that_is_not_there_takes_nothing_away_however_long) {
    settled();
    files->fault = "/m: No such file or directory";
    EXPECT_EQ(after(600'000).phase, Phase::waiting);
    EXPECT_NE(follower->state().why.find("/m: No such file or directory; nothing that came from the files is deleted until it is back"), std::string::npos);
    EXPECT_TRUE(exists("a") && exists("b"));
    files->fault.clear();
    EXPECT_EQ(after(2000).phase, Phase::applied);
    write("f.yaml", map_of("a"));
    files->files["f.yaml"].unreadable = true;
    EXPECT_EQ(after(600'000).phase, Phase::waiting);
    EXPECT_NE(follower->state().why.find("f.yaml: cannot be read"), std::string::npos);
    EXPECT_TRUE(exists("b"));
}

TEST_F(Follower, a_start_with_an_empty_folder_deletes_only_after_a_while) {
    settled();
    files->files.clear();
    renew();   // the process starts anew; the mount of the folder may come a little later
    EXPECT_EQ(after(29'000).phase, Phase::waiting);
    EXPECT_TRUE(exists("a") && exists("b"));
    write("f.yaml", map_of("a") + map_of("b"));
    EXPECT_EQ(after(1500).phase, Phase::applied);
    EXPECT_TRUE(exists("a") && exists("b"));
}

TEST_F(Follower, a_start_takes_files_at_once_that_nobody_writes) {
    write("f.yaml", map_of("a"));
    EXPECT_EQ(follower->step().phase, Phase::applied) << follower->state().why;
    // What left them while nothing ran goes at once when the files are old enough.
    write("f.yaml", map_of("b"));
    now += 60'000;
    renew();
    EXPECT_EQ(follower->step().phase, Phase::applied) << follower->state().why;
    EXPECT_FALSE(exists("a"));
    EXPECT_TRUE(exists("b"));
}

TEST_F(Follower, an_explicit_folder_without_manifests_is_told) {
    may_be_empty = false;
    renew();
    EXPECT_EQ(after(60'000).phase, Phase::waiting);
    EXPECT_EQ(follower->state().why, "/m: no .yaml, .yml or .json file in it; nothing that came from it is deleted");
    EXPECT_FALSE(follower->state().was_applied);
}

TEST_F(Follower, files_that_change_while_they_are_read_are_read_again) {
    settled();
    write("f.yaml", map_of("a") + map_of("b") + map_of("half"));
    files->while_read = [&] {
        write("f.yaml", map_of("a") + map_of("b") + map_of("c"));
        ++files->files["f.yaml"].inode;
        files->while_read = nullptr;
    };
    after(1500);
    EXPECT_FALSE(exists("half"));
    EXPECT_EQ(after(1500).phase, Phase::applied);
    EXPECT_TRUE(exists("c"));
    EXPECT_FALSE(exists("half"));
}

TEST_F(Follower, a_fault_keeps_everything_as_it_was_and_is_told) {
    settled();
    write("f.yaml", map_of("a", "{a: \"7\", b: \"2\"}") + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: [no]\n");
    EXPECT_EQ(after(2000).phase, Phase::faulty);
    ASSERT_EQ(follower->state().faults.size(), 1u);
    EXPECT_NE(follower->state().faults[0].find("f.yaml: document 2 (line 6): data: Invalid value"), std::string::npos) << follower->state().faults[0];
    EXPECT_EQ(data("a")["a"], "1");
    write("f.yaml", map_of("a", "{a: \"7\", b: \"2\"}") + map_of("b"));
    EXPECT_EQ(after(2000).phase, Phase::applied);
    EXPECT_TRUE(follower->state().faults.empty());
}

TEST_F(Follower, what_was_refused_is_tried_again_by_itself) {
    int conflicts = 0;
    follower->on_conflict([&](const Json&, const std::string&) { ++conflicts; });
    write("x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: later}\n---\n" + map_of("beside"));
    EXPECT_EQ(after(2000).phase, Phase::refused);
    EXPECT_NE(follower->state().why.find("namespaces \"later\" not found"), std::string::npos) << follower->state().why;
    EXPECT_TRUE(exists("beside")) << "a refusal keeps out that document alone";
    ASSERT_TRUE(world.registry->create(*resources::find_kind("v1", "Namespace"), "", {{"metadata", {{"name", "later"}}}}));
    EXPECT_EQ(after(6000).phase, Phase::applied);
    // A field that somebody else changed is told once and taken when it is given back.
    settled();
    const auto& kind = *resources::find_kind("v1", "ConfigMap");
    ASSERT_TRUE(world.registry->patch(kind, "default", "a", registry::PatchType::merge, {{"data", {{"a", "mine"}}}}, false, {.manager = "kubectl-edit"}));
    write("f.yaml", map_of("a", "{a: \"theirs\", b: \"2\"}") + map_of("b"));
    EXPECT_EQ(after(30'000).phase, Phase::refused);
    EXPECT_EQ(conflicts, 1);
    EXPECT_EQ(data("a")["a"], "mine");
    // What the API says of several fields in several lines is one line of the log.
    ASSERT_TRUE(world.registry->patch(kind, "default", "a", registry::PatchType::merge, {{"data", {{"b", "mine"}}}}, false, {.manager = "kubectl-edit"}));
    write("f.yaml", map_of("a", "{a: \"theirs\", b: \"3\"}") + map_of("b"));
    EXPECT_EQ(after(30'000).phase, Phase::refused);
    EXPECT_TRUE(follower->state().why.contains("conflicts with \"kubectl-edit\" using v1: .data.a; .data.b")) << follower->state().why;
    EXPECT_FALSE(follower->state().why.contains("\\x0a")) << follower->state().why;
    ASSERT_TRUE(world.registry->patch(kind, "default", "a", registry::PatchType::merge, {{"data", {{"b", nullptr}}}}, false, {.manager = "kubectl-edit"}));
    ASSERT_TRUE(world.registry->patch(kind, "default", "a", registry::PatchType::merge, {{"data", {{"a", nullptr}}}}, false, {.manager = "kubectl-edit"}));
    EXPECT_EQ(after(61'000).phase, Phase::applied);
    EXPECT_EQ(data("a")["a"], "theirs");
}

TEST_F(Follower, what_get_printed_is_a_file) {
    write("f.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, resourceVersion: \"77\", uid: 0d1e, generation: 3}\ndata: {a: \"1\"}\n");
    EXPECT_EQ(follower->step().phase, Phase::applied) << follower->state().why;
    EXPECT_TRUE(exists("a"));
}

TEST_F(Follower, a_start_of_which_nothing_is_taken_says_so) {
    const std::string nowhere = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: z, namespace: nowhere}\n---\n";
    write("f.yaml", nowhere);
    EXPECT_EQ(follower->step().phase, Phase::refused);
    EXPECT_FALSE(follower->state().was_applied) << "nothing of it was";
    write("f.yaml", nowhere + map_of("a"));
    EXPECT_EQ(after(5000).phase, Phase::refused);
    EXPECT_TRUE(exists("a"));
    EXPECT_TRUE(follower->state().was_applied);
}

TEST_F(Follower, nothing_is_deleted_while_the_api_does_not_say_what_there_is) {
    settled();
    write("f.yaml", map_of("a"));
    world.faults.server_error = 1;
    EXPECT_EQ(after(30'000).phase, Phase::waiting);
    world.faults.server_error = 0;
    EXPECT_TRUE(exists("b"));
    EXPECT_EQ(after(1000).phase, Phase::applied);
    EXPECT_FALSE(exists("b"));
}

/// On a real disk.
class Disk : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = testing::TempDir() + "/penstock-follow-XXXXXX";
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder = name;
    }
    void TearDown() override { std::filesystem::remove_all(folder); }
    void write(const std::string& name, const std::string& text) { std::ofstream(folder / name) << text; }
    std::vector<std::string> names(client::DiskFiles& files) {
        std::vector<std::string> out;
        const auto look = files.look();
        for (const auto& file : look.front().files) out.push_back(std::filesystem::path(file.path).filename());
        return out;
    }
    std::filesystem::path folder;
};

TEST_F(Disk, a_folder_is_its_manifests_and_not_what_editors_and_mounts_put_beside_them) {
    for (const char* name : {"b.yaml", "a.yml", "c.json", ".a.yaml.swp", ".#a.yaml", "a.yaml~", "4913", "note.txt", ".hidden.yaml"}) write(name, "");
    std::filesystem::create_directory(folder / "d.yaml");
    client::DiskFiles files({folder.string()});
    EXPECT_EQ(names(files), (std::vector<std::string>{"a.yml", "b.yaml", "c.json"}));
}

TEST_F(Disk, a_configmap_mount_swaps_its_link) {
    for (const char* version : {"..1", "..2"}) {
        std::filesystem::create_directory(folder / version);
        std::ofstream(folder / version / "m.yaml") << version;
    }
    std::filesystem::create_symlink("..1", folder / "..data");
    std::filesystem::create_symlink("..data/m.yaml", folder / "m.yaml");
    client::DiskFiles files({folder.string()});
    const auto before = files.look();
    EXPECT_EQ(names(files), (std::vector<std::string>{"m.yaml"}));
    std::filesystem::create_symlink("..2", folder / "..data_tmp");
    std::filesystem::rename(folder / "..data_tmp", folder / "..data");
    EXPECT_NE(files.look(), before);
    EXPECT_EQ(files.read((folder / "m.yaml").string()).value(), "..2");
    std::filesystem::remove(folder / "..data");
    EXPECT_NE(files.look().front().fault, "") << "a link to nothing is no absence";
}

TEST_F(Disk, what_is_not_there_or_no_file_is_a_fault) {
    client::DiskFiles gone({(folder / "x.yaml").string(), (folder / "y").string()});
    const auto look = gone.look();
    for (const auto& source : look) EXPECT_NE(source.fault.find("No such file or directory"), std::string::npos);
    client::DiskFiles device({"/dev/zero"});
    EXPECT_EQ(device.look().front().fault, "/dev/zero: is neither a file nor a folder");
    write("big.yaml", std::string(resources::manifest_bytes_max + 1, '#'));
    client::DiskFiles big({(folder / "big.yaml").string()});
    EXPECT_NE(big.read((folder / "big.yaml").string()).error().message.find("larger than 16777216 bytes"), std::string::npos);
}

TEST_F(Disk, a_writer_is_seen_until_it_closes_the_file) {
    const auto path = (folder / "m.yaml").string();
    write("m.yaml", "a");
    client::DiskFiles files({path});
    const auto quiet = files.writer_of(path);
    if (quiet == client::Writer::unknown) GTEST_SKIP() << "this file system has no leases";
    EXPECT_EQ(quiet, client::Writer::none);
    const int writer = open(path.c_str(), O_WRONLY | O_APPEND);
    EXPECT_EQ(files.writer_of(path), client::Writer::some);
    close(writer);
    EXPECT_EQ(files.writer_of(path), client::Writer::none);
}

/// Whatever a file says, and wherever: what is said of it stays short.
TEST(Messages, quote_no_text_whole) {
    const std::string large(256 << 10, 'x');
    const std::string head = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {name: a, namespace: b}\n";
    test::ApiWorld world;
    test::ApiTransport transport{world};
    client::Kinds kinds(transport);
    int said = 0;
    for (const auto& text : {"apiVersion: v1\nkind: " + large + "\n", "apiVersion: " + large + "\nkind: BrokerListener\n", "apiVersion: a/" + large + "\nkind: " + large + "\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + large + "}\n",
                             "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: " + large + "}\n", head + large + ": 1\n", head + "spec: {" + large + ": 1}\n", head + "spec: {serviceType: " + large + "}\n", head + "spec: {ports: [{port: " + large + "}]}\n",
                             head + "spec: *" + large + "\n", head + "spec: !" + large + " {}\n", head + "spec: !<" + large + "\n", head + "spec: &" + large + "\n  - {\n", "%" + large + "\n---\n" + head, "%TAG !" + large + "! x\n%TAG !" + large + "! x\n---\n" + head, "%YAML " + large + "\n---\n" + head,
                             head + "spec: {" + large + ": 1, " + large + ": 2}\n", head + "spec: \"\\" + large + "\"\n", large + "\n", "{\"" + large + "\": \n", "[" + large + "}\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {" + large + ": b}}\n"}) {
        const auto documents = resources::parse_documents(text, "m.yaml");
        std::vector<std::string> faults;
        if (!documents) {
            faults.push_back(documents.error().message);
        } else {
            faults = client::validate_documents(*documents, true);
            for (const auto& document : *documents) {
                const auto applied = client::apply_document(transport, kinds, document, {.name_space = "default", .server_side = true, .manager = "m"});
                faults.push_back(applied.what + applied.error);
            }
        }
        for (const auto& fault : faults) EXPECT_LT(fault.size(), 8192u) << text.substr(0, 150) << ": " << fault.substr(0, 400);
        said += static_cast<int>(faults.size());
    }
    EXPECT_GT(said, 20);
}

TEST_F(Disk, a_pipe_is_read_once_and_not_waited_for) {
    const auto path = (folder / "pipe").string();
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    client::DiskFiles files({path});
    const auto fault = [&] { return files.look().front().fault; };
    EXPECT_EQ(fault(), path + ": nothing has been written into it yet");
    const int writer = open(path.c_str(), O_WRONLY | O_NONBLOCK);
    ASSERT_GE(writer, 0);
    EXPECT_EQ(fault(), path + ": its writer has not ended yet");
    ASSERT_EQ(::write(writer, "kind: x\n", 8), 8);
    EXPECT_EQ(fault(), path + ": its writer has not ended yet");
    EXPECT_FALSE(files.read(path));
    close(writer);
    EXPECT_EQ(fault(), "");
    EXPECT_EQ(files.read(path).value_or("gone"), "kind: x\n");
    EXPECT_EQ(files.read(path).value_or("gone"), "kind: x\n") << "what was read stays";
    const auto before = files.look();
    EXPECT_EQ(files.look(), before);
}

TEST_F(Disk, what_would_hold_up_its_reader_is_not_opened) {
    ASSERT_EQ(mkfifo((folder / "pipe.yaml").c_str(), 0600), 0);
    write("m.yaml", "");
    client::DiskFiles files({folder.string()});
    EXPECT_EQ(names(files), (std::vector<std::string>{"m.yaml"})) << "a pipe in a folder is no manifest";
    // One that takes the place of a file between the look and the reading.
    for (const auto& path : {(folder / "pipe.yaml").string(), std::string("/dev/zero")}) {
        const auto text = files.read(path);
        ASSERT_FALSE(text);
        EXPECT_EQ(text.error().message, path + ": is neither a file nor a folder");
    }
}

TEST_F(Disk, standard_input_is_not_waited_for) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const int before = dup(0);
    dup2(ends[0], 0);
    client::DiskFiles files({"-"});
    EXPECT_EQ(files.look().front().fault, "standard input: nothing has been written into it yet");
    ASSERT_EQ(::write(ends[1], "kind: x\n", 8), 8);
    EXPECT_EQ(files.look().front().fault, "standard input: its writer has not ended yet");
    close(ends[1]);
    EXPECT_EQ(files.look().front().fault, "");
    EXPECT_EQ(files.read("-").value_or("gone"), "kind: x\n");
    dup2(before, 0);
    close(before);
    close(ends[0]);
}

}  // namespace
}  // namespace penstock
