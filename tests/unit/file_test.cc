// What is read whole, and what stands in its place.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "app/identity.h"
#include "client/client.h"

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

}  // namespace
}  // namespace penstock
