#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "base/held_folder.h"
#include "base/result.h"

namespace rocksdb {
class DB;
struct Options;
}

namespace penstock::store {

/// A store of which files were deleted while it was open still reads them. copy_anew() writes all of it into a folder `anew` inside of
/// `folder`, which it makes when that was deleted too. It refuses where the folder was moved or unmounted: then the files are elsewhere
/// and come back.
/// Core: the writer's thread.
Result<void> copy_anew(rocksdb::DB& from, const rocksdb::Options& rules, HeldFolder& folder);
/// Number of the newest change that the store of that name (IDENTITY) is known to have held; 0: nothing is known.
using NewestChange = std::function<std::uint64_t(const std::string& identity)>;
/// Puts a copy that is whole in the place of the store's files, which are closed; those go into a folder `former`. It can be
/// interrupted at any step, and goes on when it is called again: a start does so first. Does nothing where no copy is; one that is not
/// whole goes away. So does one that was left behind: the store went on after it was made (`newest`), which it says in its file WHOLE.
/// One of another store than the one whose files are there is moved into the folder `lost`; what is answered then says so for a person,
/// and is empty otherwise. `newest` null: the copy was made in this process for the files that were here, and is taken.
Result<std::string> take_copy(const std::string& folder, const NewestChange& newest);
/// What is there of a copy goes away, for sure: the store's own files are in use.
void drop_copy(const std::string& folder);
/// The copy is in use: what it has replaced goes away.
void drop_former(const std::string& folder);

}  // namespace penstock::store
