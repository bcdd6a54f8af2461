#pragma once
#include <memory>
#include <string>
#include <vector>

#include "client/client.h"

namespace penstock::client {

/// The kinds a client may name: those this program declares, and those the server has beyond (asked once, when needed).
/// One thread.
class Kinds {
  public:
    explicit Kinds(Transport& client) : client_(client) {}
    /// By plural, singular, short name or kind, with or without group. The error names the nearest word.
    Result<const resources::Kind*> by_word(std::string_view word);
    /// The error says what the server has instead.
    Result<const resources::Kind*> of_object(const resources::Json& object);
    /// All kinds of the server.
    Result<const std::vector<resources::Kind>*> all();

  private:
    Transport& client_;
    Result<const std::vector<resources::Kind>*> ask();
    /// Answers of the server, the last one counts; earlier ones stay, because kinds handed out lie in them.
    std::vector<std::unique_ptr<const std::vector<resources::Kind>>> answers_;
};

}  // namespace penstock::client
