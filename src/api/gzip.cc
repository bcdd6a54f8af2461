#include "api/gzip.h"

#include <zlib.h>

#include "base/text.h"

namespace penstock::api {

bool accepts_gzip(std::string_view accept_encoding) {
    bool any = false;
    for (const auto clause : split(accept_encoding, ',')) {
        const auto semicolon = clause.find(';');
        const auto coding = to_lower(trim(clause.substr(0, semicolon)));
        if (coding != "gzip" && coding != "x-gzip" && coding != "*") continue;
        std::string weight;
        if (semicolon != std::string_view::npos)
            for (const char c : clause.substr(semicolon + 1))
                if (c != ' ' && c != '\t') weight += c;
        // A weight of nothing is a refusal: `q=0`, `q=0.0`, ...
        const bool wanted =
            !weight.starts_with("q=0") || weight.find_first_of("123456789") != std::string::npos;
        if (coding != "*") return wanted;
        any = wanted;
    }
    return any;
}

std::string gzip(std::string_view bytes) {
    constexpr int window_and_gzip_header = 15 + 16, memory_level = 8;
    z_stream stream{};
    if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, window_and_gzip_header, memory_level,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return {};
    std::string in(bytes), out(deflateBound(&stream, static_cast<uLong>(bytes.size())), '\0');
    stream.next_in = static_cast<Bytef*>(static_cast<void*>(in.data()));
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = static_cast<Bytef*>(static_cast<void*>(out.data()));
    stream.avail_out = static_cast<uInt>(out.size());
    const bool done = deflate(&stream, Z_FINISH) == Z_STREAM_END;
    out.resize(done ? stream.total_out : 0);
    deflateEnd(&stream);
    return out;
}

}   // namespace penstock::api
