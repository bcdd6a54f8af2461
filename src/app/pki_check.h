#pragma once
#include <filesystem>

#include "base/result.h"

namespace penstock::app {

/// Before the folder `pki` of a data folder is used: a CA or a key of tokens that is missing or damaged, where there was one, is an
/// error that names the file and the cure; nothing is made in its place. A leaf certificate that is damaged is taken out of the way:
/// the CA issues another one. That there was something is known by `pki.mark` of the data folder (base/mark.h), and by what is there.
Result<void> check_pki(const std::filesystem::path& data_folder);
/// The resources are there where anything beside them says that there were some: they are not begun anew beside old keys and state.
Result<void> check_registry(const std::filesystem::path& data_folder);
/// The folder is in use now: the mark says what it holds, and is made again where it was deleted.
void mark_pki(const std::filesystem::path& data_folder);

}  // namespace penstock::app
