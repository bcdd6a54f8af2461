#pragma once
#include <memory>
#include <string>

#include "base/held_folder.h"
#include "store/durable.h"

namespace penstock::control {

/// Where a broker that keeps its state keeps it.
struct StatePlace {
    std::string folder;                  ///< of the durable store; empty: there is none
    std::string mark_file;               ///< DurableOptions::mark_file
    std::string key_file;                ///< the key ring of encryption at rest
    bool keys_are_given = false;         ///< somebody else makes and rotates the keys (a systemd credential): the file is only read
    std::string buffer_folder;           ///< for what does not fit into memory; empty: there is none
    std::shared_ptr<HeldFolder> data;    ///< in which all of these are, but for keys that are given; null: not looked at
};

/// Name of the key ring inside a copy of the state.
constexpr const char* state_keys_name = "state-keys";

/// The ring as it is in force: made when encryption begins, and with one key more when `rotation` (annotation
/// `penstock.io/persistence-key`) is another name than its newest key has. On the disk when this returns. When one of `in_use` is
/// missing there, the file was deleted or changed while it was needed, and they are put back.
Result<store::KeyRing> state_keys(const StatePlace& place, bool seal, const std::string& rotation, const store::KeyRing& in_use = {});

/// Lets the keys go that nothing on the disk needs any more; returns the number of keys that went.
Result<std::size_t> drop_state_keys(const StatePlace& place, store::KeyRing& ring, const store::Durable::Figures& figures, bool seal);

}  // namespace penstock::control
