// What is read whole, and what stands in its place.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "app/identity.h"
#include "base/file.h"
#include "client/client.h"
#include "store/key_ring.h"

namespace penstock {
namespace {

// A Secret's mount or a person may put anything where a file was; opening a pipe would wait for a writer for ever.
TEST(ReadFile, what_is_no_regular_file_is_refused_and_not_waited_for) {
    const auto folder = std::filesystem::temp_directory_path() / ("penstock-read-file-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    const auto pipe = folder / "pipe", plain = folder / "plain";
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    std::ofstream(plain) << "text";
    for (const auto& path : {pipe, folder, std::filesystem::path("/dev/zero")}) {
        const auto read = app::read_file(path);
        ASSERT_FALSE(read) << path;
        EXPECT_EQ(read.error().message, path.string() + ": is no regular file");
    }
    EXPECT_EQ(app::read_file(plain).value_or(""), "text");
    EXPECT_EQ(app::read_file(folder / "none").error().message, (folder / "none").string() + ": cannot be read: No such file or directory");
    const auto config = client::read_kubeconfig(pipe.string());
    ASSERT_FALSE(config);
    EXPECT_NE(config.error().message.find("is no regular file"), std::string::npos) << config.error().message;
    std::filesystem::remove_all(folder);
}

// What a person names may have no end, or be a disk's image by mistake: memory is not the bound.
TEST(ReadFile, what_is_larger_than_its_bound_or_has_no_end_is_refused) {
    const auto folder = std::filesystem::temp_directory_path() / ("penstock-read-bound-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    const auto plain = folder / "plain";
    std::ofstream(plain) << "12345";
    EXPECT_EQ(read_whole_file(plain, Streams::refused, 5).value_or(""), "12345");
    EXPECT_EQ(read_whole_file(plain, Streams::refused, no_bytes_max).value_or(""), "12345");
    const auto by_one = read_whole_file(plain, Streams::refused, 4);
    ASSERT_FALSE(by_one);
    EXPECT_EQ(by_one.error().message, plain.string() + ": is larger than 4 bytes, or has no end; no more is taken here: name a smaller file");
    const auto endless = app::read_file("/dev/zero", Streams::taken);
    ASSERT_FALSE(endless);
    EXPECT_EQ(endless.error().message, "/dev/zero: is larger than 16777216 bytes, or has no end; no more is taken here: name a smaller file");
    // A ring of keys is no device, and one that is there but cannot be read is no empty one.
    const auto ring = store::KeyRing::read("/dev/zero");
    ASSERT_FALSE(ring);
    EXPECT_EQ(ring.error().message, "/dev/zero: is no regular file");
    std::filesystem::resize_file(plain, file_bytes_max + 1);
    EXPECT_FALSE(store::KeyRing::read(plain.string()));
    std::filesystem::remove_all(folder);
}

TEST(ReadFile, lines_come_one_by_one_and_one_without_an_end_is_refused_by_its_number) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    auto write_all = [&](std::string_view text) { return ::write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()); };
    LineReader lines(ends[0], "input", 70'000);
    std::string line;
    ASSERT_TRUE(write_all("one\n\ntwo\r\nfirst half, "));
    for (const auto* expected : {"one", "", "two\r"}) {
        ASSERT_TRUE(lines.next(line).value_or(false));
        EXPECT_EQ(line, expected);
    }
    ASSERT_TRUE(write_all("second half\n"));
    ASSERT_TRUE(lines.next(line).value_or(false));
    EXPECT_EQ(line, "first half, second half");
    ASSERT_TRUE(write_all("last"));
    close(ends[1]);
    ASSERT_TRUE(lines.next(line).value_or(false));
    EXPECT_EQ(line, "last");
    const auto end = lines.next(line);
    ASSERT_TRUE(end);
    EXPECT_FALSE(*end);
    close(ends[0]);

    const int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    LineReader endless(zero, "input", 70'000);
    const auto refused = endless.next(line);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message, "input line 1: is longer than 70000 bytes; no more is taken here: end it before with a newline");
    close(zero);
}

}  // namespace
}  // namespace penstock
