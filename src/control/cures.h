#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "control/objects.h"
#include "resources/json.h"

namespace penstock::control {

// What is said to a person who has to put something right: which names there are, what to write where, and a command.

/// Something that works less well than it should, and what ends that.
struct Warning {
    std::string what;
    std::string cure;                    ///< a command or setting as it is to be typed; empty: it stands in `what`
    /// `what; cure`.
    [[nodiscard]] std::string text() const { return cure.empty() ? what : what + "; " + cure; }
    bool operator==(const Warning&) const = default;
};
/// `cure` for a text that names no command of its own.
Warning warning_of(std::string what, const std::string& cure);

/// `NAME -n NAMESPACE` of `NAMESPACE/NAME`.
std::string as_words(std::string_view qualified_name);
/// What is said of a Secret or ConfigMap that is named in `field` and is not there: the command that makes it, `make`
/// with its name and namespace in the place of `{}` and `{}`; or, where no object can have that name, that another
/// one is to be named with `edit`.
std::string absent_object(const resources::Kind& kind, const std::string& name_space, const std::string& name,
                          const char* field, const std::string& edit, const char* make);
/// A name as one word of YAML: in quotes where it would be read as a number, a truth value or null.
std::string yaml_word(const std::string& name);
/// `command`, which changes a Secret or ConfigMap. Where that is immutable, it is made anew before, with
/// all that it has and so that it can be changed, and is immutable again afterwards.
std::string change_command(const Objects& objects, const resources::Kind& kind, const std::string& name_space,
                           const std::string& name, const std::string& command);
/// The command that sets the password of a user in a Secret, which need not be there.
std::string passwd_command(const Objects& objects, const std::string& name_space, const std::string& secret,
                           const std::string& user);
/// The command that puts a file into an entry of a ConfigMap, and leaves what else is in it as it is.
std::string put_entry_command(const Objects& objects, const std::string& name_space, const std::string& name,
                              const std::string& entry, const std::string& file);
/// `kubectl edit KIND NAME -n NAMESPACE`; `qualified_name`: `NAMESPACE/NAME`.
std::string edit_command(std::string_view kind, std::string_view qualified_name);

/// A command that makes an object as it stands: nothing has to be written first.
std::string make_command(const resources::Json& object);
/// ` (did you mean "NAME"?)`, or nothing when no name is near.
std::string did_you_mean(std::string_view wanted, const std::vector<std::string>& there);
/// `a, b, c`; of more than ten how many there are beside.
std::string listed(const std::vector<std::string>& names);

/// What is said of a BrokerAuthentication or BrokerAuthorization (`kind`) that is named and not there: the nearest name,
/// those that there are, or how one is made. `name_space/name` need not be well-formed; a name that no object can
/// have comes with one that can be made in its place.
std::string absent_rules(const Objects& objects, const char* kind, const std::string& name_space, const std::string& name);
/// The same of an issuer; for the embedded API alone, which knows them all. `kind`: `Issuer` or `ClusterIssuer`.
std::string absent_issuer(const Objects& objects, const std::string& kind, const std::string& name_space, const std::string& name);
/// How a port gets authentication, or TLS. `listener`: `namespace/name`; `path`: of the port in it, `spec.ports[0]`.
std::string authentication_cure(const Objects& objects, const std::string& listener, const std::string& path);
std::string tls_cure(const Objects& objects, const std::string& listener, const std::string& path);

}  // namespace penstock::control
