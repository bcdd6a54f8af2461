#pragma once
#include <string>
#include <vector>

#include "resources/schema.h"

namespace penstock::api {

/// What a list or watch is limited to: the parsed `labelSelector` and `fieldSelector`.
/// Core: any thread; a value type.
class Selector {
  public:
    /// The error names the faulty part; field labels that the kind does not offer are refused.
    static Result<Selector> parse(const resources::Kind& kind, const std::string& labels, const std::string& fields);
    [[nodiscard]] bool matches(const resources::Json& object) const;
    [[nodiscard]] bool empty() const { return labels_.empty() && fields_.empty(); }
    /// The name that `metadata.name=X` asks for; empty when it is not in it.
    [[nodiscard]] std::string only_name() const;

  private:
    enum class Op : unsigned char { in, not_in, exists, absent };
    struct Requirement {
        std::string key;
        Op op{};
        std::vector<std::string> values;
    };
    struct Field {
        std::string path, value;
        bool unequal = false;
    };
    static Result<Requirement> parse_requirement(std::string_view text);

    std::vector<Requirement> labels_;
    std::vector<Field> fields_;
};

/// `matchLabels` and `matchExpressions` of an object in a spec.
bool matches_label_selector(const resources::Json& selector, const resources::Json& object);

}  // namespace penstock::api
