#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock {

/// A folder that is kept open: what is written by way of it goes into that folder, whatever comes to stand under its name. A disk that
/// was unmounted leaves an empty folder of the same name behind, in which nothing may be begun anew beside the state on the disk.
///
/// A folder that was deleted is another matter: then ready() makes it anew. Any thread.
class HeldFolder {
  public:
    /// The folder must be there.
    static Result<std::shared_ptr<HeldFolder>> open(std::string path);
    ~HeldFolder();
    HeldFolder(const HeldFolder&) = delete;
    HeldFolder& operator=(const HeldFolder&) = delete;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    /// A path that leads into the open folder and nowhere else. For opening files; a person is told named().
    [[nodiscard]] std::string at(std::string_view name) const;
    /// `text` with the folder's own path in the place of the one that at() gave.
    [[nodiscard]] std::string named(std::string text) const;
    Error named(const Error& error) const { return Error{named(error.message)}; }
    /// The open folder stands under its name.
    [[nodiscard]] bool is_there() const noexcept;
    /// It is there, or was deleted and is there again (mode 0700). The error: it was moved, or its disk was unmounted.
    Result<void> ready();

  private:
    HeldFolder(std::string path, int file, std::uint64_t device) : path_(std::move(path)), file_(file), device_(device) {}
    std::string path_;
    int file_;                           ///< the number stays, also when the folder is another one
    std::uint64_t device_;
};

}  // namespace penstock
