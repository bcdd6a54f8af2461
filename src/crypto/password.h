#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock::crypto {

/// A hash of the password with a fresh salt, in PHC string form: `$scrypt$ln=15,r=8,p=1$SALT$HASH` (RFC 7914; 32 MiB, some
/// 50 ms).
std::string hash_password(std::string_view password);
/// The same kind and cost as `sample` (hash_password's when empty or not known).
std::string hash_like(const std::string& sample, std::string_view password);
/// True when the password fits. Takes scrypt and PBKDF2 (`$pbkdf2-sha256$i=N$...`, `$pbkdf2-sha512$i=N$...`) in PHC form, and
/// what mosquitto_passwd of Mosquitto 2.0 writes (`$7$N$SALT$HASH`, PBKDF2 with SHA-512). Not its `$6$`
/// from before (one salted SHA-512: a thief tries billions a second), not crypt's. Blocking: tens of milliseconds.
bool verify_password(const std::string& hash, std::string_view password);
/// Why a hash cannot be used, or nothing.
std::string password_hash_fault(const std::string& hash);
/// A user as a password file of Mosquitto has him (`USER:HASH` on a line).
struct PasswordLine {
    std::size_t number = 0;              ///< of the line, from 1 on
    std::string user, hash;
    std::string fault;                   ///< why he cannot be an entry of a Secret and log in; empty: he can
};
/// The users of a password file, without comments (#) and blank lines; the error names the first line that
/// has no `USER:HASH`.
Result<std::vector<PasswordLine>> read_password_file(std::string_view text);

}  // namespace penstock::crypto
