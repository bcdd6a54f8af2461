#pragma once
#include <sys/types.h>

#include <string>

#include "base/result.h"

namespace rocksdb {
class DB;
struct Options;
}

namespace penstock::store {

/// A store whose files were deleted while it was open still reads them. copy_anew() writes all of it into a folder `anew` inside of
/// `folder`, which it makes; take_copy() moves that into place when the old one is closed. Both refuse where another store, or
/// another file system than `device`, stands there: then the files are elsewhere and come back.
/// Core: the writer's thread.
Result<void> copy_anew(rocksdb::DB& from, const rocksdb::Options& rules, const std::string& folder, dev_t device);
Result<void> take_copy(const std::string& folder);

}  // namespace penstock::store
