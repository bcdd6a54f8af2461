#pragma once
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
/// Puts a copy that is whole in the place of the store's files, which are closed; those go into a folder `former`. It can be
/// interrupted at any step, and goes on when it is called again: a start does so first. Does nothing where no copy is; one that is not
/// whole goes away.
Result<void> take_copy(const std::string& folder);
/// What is there of a copy goes away: the store's own files are in use.
void drop_copy(const std::string& folder);
/// The copy is in use: what it has replaced goes away.
void drop_former(const std::string& folder);

}  // namespace penstock::store
