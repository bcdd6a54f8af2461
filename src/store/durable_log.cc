#include "store/durable_log.h"

#include <rocksdb/env.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <string_view>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

namespace penstock::store {
namespace {

constexpr std::int64_t lines_a_minute = 20;

class InfoLog final : public rocksdb::Logger {
  public:
    InfoLog() : Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
    using Logger::Logv;
    void Logv(const char* format, va_list values) override { Logv(rocksdb::InfoLogLevel::INFO_LEVEL, format, values); }
    void Logv(rocksdb::InfoLogLevel level, const char* format, va_list values) override {
        using Level = rocksdb::InfoLogLevel;
        // A list of all options is written as "header" at each opening.
        if (level != Level::WARN_LEVEL && level != Level::ERROR_LEVEL && level != Level::FATAL_LEVEL) return;
        std::uint64_t left_out = 0;
        if (!limit_.allow(monotonic_ms() / 60, left_out)) return;   // its seconds are minutes here
        std::array<char, 1024> bytes{};
        std::vsnprintf(bytes.data(), bytes.size(), format, values);
        const auto text = trim(bytes.data());
        if (level == Level::WARN_LEVEL) log::info("store", "RocksDB: {} left_out={}", text, left_out);
        else log::warn("store", "RocksDB: {} left_out={}", text, left_out);
    }

  private:
    log::RateLimit limit_{lines_a_minute};
};

}  // namespace

std::shared_ptr<rocksdb::Logger> make_info_log() { return std::make_shared<InfoLog>(); }

}  // namespace penstock::store
