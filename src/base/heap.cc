#include "base/heap.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace penstock {

std::size_t resident_now() {
    std::ifstream status("/proc/self/status");
    std::size_t kib = 0;
    for (std::string word; status >> word;)
        if (word == "RssAnon:") {
            status >> kib;
            break;
        }
    return kib * 1024;
}

Heap heap_now() {
    const auto all = mallinfo2();
    return {.in_use = all.uordblks + all.hblkhd, .resident = resident_now()};
}

bool HeapKeeper::is_due(const Heap& heap) noexcept {
    const auto spare = heap.resident - std::min(heap.resident, heap.in_use);
    // Not while it grows: what is free now is wanted again.
    const bool grows = heap.in_use > last_in_use_ + last_in_use_ / 8;
    last_in_use_ = heap.in_use;
    return !grows && spare >= worth && spare > heap.in_use / 4;
}

bool HeapKeeper::look(std::int64_t now_ms, std::int64_t used) {
    peak_ = std::max(peak_, used);
    const bool fell = peak_ - used >= static_cast<std::int64_t>(worth / 2);
    if (now_ms < (fell ? soon_ : next_look_)) return false;
    next_look_ = now_ms + look_ms;
    soon_ = now_ms + soon_ms;
    peak_ = used;
    if (resident_now() < small || !is_due(heap_now())) return false;
    malloc_trim(0);
    return true;
}

}  // namespace penstock
