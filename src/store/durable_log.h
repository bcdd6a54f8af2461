#pragma once
#include <memory>

namespace rocksdb {
class Logger;
}

namespace penstock::store {

/// Takes what RocksDB reports of itself into the log of this process: errors as warnings, warnings as information, the rest is left
/// out; at most 20 lines a minute, and how many were left out is told with the next one. RocksDB's own, the file LOG in its folder, is
/// written on the disk whose failure it is to report, and RocksDB ends the process when a line follows one that could not be written.
/// Any thread.
std::shared_ptr<rocksdb::Logger> make_info_log();

}  // namespace penstock::store
